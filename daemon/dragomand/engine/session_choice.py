"""Which session a request works in: the stored one that it names, or a new one.

Whoever asks has claimed the session's id already: a row that is read before the claim may be old.
"""

from collections.abc import Callable, Sequence

from dragoman_protocol.content import Prompt, prompt_text
from dragoman_protocol.query import QueryRunParams
from dragoman_protocol.stream import StreamOpenParams

from dragomand.store.rows import SessionRow

from . import working_directory
from .caller import Caller
from .errors import EngineError
from .forks import ForkOf, Forks, upstream_at
from .inheritance import Inheritance
from .session_ids import new_session_id
from .sessions import Sessions, storage_errors
from .upstream_choice import unavailable

TITLE_CHARS = 80
"""Longest title that is made from a prompt, in code points."""


class SessionChoice:
    """Finds the row to work with."""

    def __init__(
        self,
        sessions: Sessions,
        *,
        roots: Sequence[str],
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """Look in *sessions*; new ones work inside *roots* (none: anywhere). *clock* gives Unix seconds."""
        self._sessions = sessions
        self._roots = roots
        self._clock = clock
        self._new_id = new_id
        self._forks = Forks(sessions, clock=clock, new_id=new_id)

    def id_for(self, params: QueryRunParams | StreamOpenParams) -> str:
        """Return the id to claim: the one that is named, or a new one.

        Raises `invalid_params` where both are asked for, and for a new id that is no UUID.
        """
        if params.session_id is None:
            return new_session_id(params.new_session_id, self._new_id)
        for name, given in (("fork", params.fork), ("newSessionId", params.new_session_id)):
            if given is not None:
                text = f"{name} begins a new session, sessionId continues one; leave one of them out."
                raise EngineError("invalid_params", text, path=f"$.{name}", reason="not with sessionId")
        return params.session_id

    async def upstream_of(self, params: QueryRunParams | StreamOpenParams) -> str | None:
        """Return which upstream answers the named session, or the one to fork; None for a new one."""
        if params.fork is not None:
            return await upstream_at(self._sessions.store, params.fork.session_id, params.fork.at_turn_id)
        if params.session_id is None:
            return None
        with storage_errors():
            turns = await self._sessions.store.turns(params.session_id, limit=1)
        return turns[-1].upstream if turns else None

    async def check_streamable(self, params: StreamOpenParams) -> None:
        """Raise `upstream_unavailable` for a session whose upstream keeps no stream open."""
        if await self.upstream_of(params) == "messages_api":
            raise unavailable("messagesApi answers this session, and keeps no stream", "Use query/run.")

    async def row_for(
        self,
        params: QueryRunParams | StreamOpenParams,
        session_id: str,
        caller: Caller,
        prompt: Prompt = "",
        *,
        needs_cwd: bool = True,
    ) -> SessionRow:
        """Return the stored row of a named session, else a row for a new one that begins with *prompt*.

        Raises `session_not_found`, `session_exists`, `invalid_cwd`, and `invalid_params` for a new one
        without `cwd` that *needs_cwd*.
        """
        if params.new_session_id is not None:
            await self._sessions.check_free(session_id)
        if params.session_id is not None or params.fork is not None:
            session = await self._stored(params, session_id, caller)
            working_directory.check_same(params.cwd, session.cwd)
            if needs_cwd:
                working_directory.check(session.cwd or "", self._roots)
            elif params.cwd is not None and session.cwd is None:
                text = "This session has no folder: leave cwd out, or start a new session."
                raise EngineError("invalid_cwd", text, path=params.cwd, reason="other_session")
            return session
        if params.cwd is None and needs_cwd:
            raise EngineError(
                "invalid_params",
                "A new session of Claude Code's needs `cwd`, an absolute path of a directory. "
                "One without tools or a folder: `upstream: messagesApi`.",
                path="$.cwd",
                reason="missing",
            )
        now = self._clock()
        return SessionRow(
            session_id=session_id,
            created_at=now,
            updated_at=now,
            cwd=None if params.cwd is None else str(working_directory.check(params.cwd, self._roots)),
            title=params.title or first_line(prompt),
            model=params.model,
            owner=caller.name,
            tags=tuple(params.tags or ()),
            epoch=self._new_id(),
        )


    async def _stored(
        self, params: QueryRunParams | StreamOpenParams, session_id: str, caller: Caller
    ) -> SessionRow:
        """Return the row of the session to go on with; a fork's is not written yet."""
        if params.fork is None:
            return await self._sessions.load(session_id)
        of = ForkOf(
            session_id=params.fork.session_id,
            at_turn_id=params.fork.at_turn_id,
            path="$.fork",
            title=params.title,
            tags=None if params.tags is None else tuple(params.tags),
            owner=caller.name,
        )
        return await self._forks.row_for(of, session_id)

    async def begin(
        self, row: SessionRow, params: QueryRunParams | StreamOpenParams, after: Inheritance | None
    ) -> None:
        """Note in the session what its next turns inherit (None: what it has), before its turn begins.

        *params* are complete. A fork is written now; a new session's row with its first turn. Raises
        `EngineError`.
        """
        if after is not None:
            row.agent, row.kept, row.model = after.agent, after.stored(), params.model
        if params.fork is not None:
            await self._forks.store(row)
        elif params.session_id is not None and after is not None:
            with storage_errors():
                await self._sessions.store.update_session(
                    row.session_id, agent=row.agent, kept=row.kept, model=row.model
                )


def goes_on_from(params: QueryRunParams | StreamOpenParams) -> str | None:
    """Return the session whose turns come before this one: its own, or the one that is forked."""
    return params.session_id if params.fork is None else params.fork.session_id


def first_line(prompt: Prompt) -> str | None:
    """Return the first line of what is asked, shortened; None if it has no text."""
    lines = prompt_text(prompt).strip().splitlines()
    return lines[0][:TITLE_CHARS] if lines else None
