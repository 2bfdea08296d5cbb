"""Forks: a new session that begins with the turns of another one, and goes on by itself.

What is ours is copied at once, so that a fork reads whole whatever becomes of the original. Claude Code's own
conversation is forked by Claude Code, when the fork's first turn resumes it; at which message is written down
here, because the original may have gone on until then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dragoman_protocol.session import SessionForkParams, SessionInfo

from dragomand.store.errors import UnknownRowError
from dragomand.store.rows import ForkPoint, SessionRow
from dragomand.store.store import Store

from .errors import EngineError
from .session_ids import new_session_id
from .sessions import Sessions, info_of, storage_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkOf:
    """What is to be forked, and how the fork is called."""

    session_id: str
    at_turn_id: str | None
    path: str = "$"
    """Where the request names it."""
    title: str | None = None
    tags: tuple[str, ...] | None = None
    owner: str | None = None


class Forks:
    """Makes forks in the store."""

    def __init__(self, sessions: Sessions, *, clock: Callable[[], float], new_id: Callable[[], str]) -> None:
        """Fork sessions of *sessions*; *clock* gives Unix seconds."""
        self._sessions = sessions
        self._clock = clock
        self._new_id = new_id

    async def fork(self, params: SessionForkParams, owner: str | None) -> SessionInfo:
        """Make a fork that nobody has asked anything yet. Raises `session_not_found`, `session_exists` …"""
        fork_id = new_session_id(params.new_session_id, self._new_id)
        with self._sessions.claim(fork_id, "turn"):
            await self._sessions.check_free(fork_id)
            row = await self.row_for(
                ForkOf(
                    session_id=params.session_id,
                    at_turn_id=params.at_turn_id,
                    title=params.title,
                    tags=None if params.tags is None else tuple(params.tags),
                    owner=owner,
                ),
                fork_id,
            )
            return info_of(await self.store(row), running=False)

    async def row_for(self, of: ForkOf, fork_id: str) -> SessionRow:
        """Return the row of a fork that is not stored yet.

        Raises `session_not_found`, and `invalid_params` for a turn that the session does not have, or that
        has not ended.
        """
        source = await self._sessions.load(of.session_id)
        with storage_errors():
            point = await self._sessions.store.fork_point(of.session_id, of.at_turn_id)
            kept = await self._sessions.store.kept(of.session_id)
        if point is None:
            raise _no_such_turn(of)
        now = self._clock()
        return SessionRow(
            session_id=fork_id,
            created_at=now,
            updated_at=now,
            cwd=source.cwd,
            title=of.title or source.title,
            model=source.model,
            owner=of.owner,
            tags=source.tags if of.tags is None else of.tags,
            epoch=self._new_id(),
            last_seq=point.last_seq,
            turn_count=point.turn_count,
            item_count=point.last_seq,
            last_turn_status=point.status,
            agent=source.agent,
            kept=kept,
            forked_from=source.session_id,
            forked_at_turn=point.turn_id,
            forked_seq=point.last_seq,
            **_claude_part(source, point, of),
        )

    async def store(self, row: SessionRow) -> SessionRow:
        """Write a fork with its copies; return its row. Raises `session_not_found` for a lost original."""
        with storage_errors():
            try:
                return await self._sessions.store.fork_session(row)
            except UnknownRowError:
                raise _gone(row.forked_from or "") from None


async def upstream_at(store: Store, session_id: str, at_turn_id: str | None) -> str | None:
    """Return which upstream answered there; None if there is no such turn."""
    with storage_errors():
        point = await store.fork_point(session_id, at_turn_id)
    return None if point is None else point.upstream


def _claude_part(source: SessionRow, point: ForkPoint, of: ForkOf) -> dict[str, Any]:
    """Return where Claude Code's conversation is to be forked; nothing if there is none."""
    if point.upstream == "messages_api":
        return {}
    still_to_fork = source.claude_fork_session_id is not None and source.claude_message_count is None
    found = source.claude_fork_session_id if still_to_fork else source.claude_session_id
    count = source.claude_fork_count if still_to_fork else source.claude_message_count
    if point.claude_leaf_id is not None:
        return {
            "claude_fork_session_id": found,
            "claude_fork_leaf_id": point.claude_leaf_id,
            "claude_fork_count": point.claude_message_count,
        }
    if found is None or count is None:
        return {}  # Claude Code never wrote a word of it down
    if not point.is_end:
        text = "An older version ran this turn, and where it ended in Claude Code's record is not known. "
        text += "Leave atTurnId out to fork the session at its end."
        raise EngineError("invalid_params", text, path=f"{of.path}.atTurnId", reason="not known")
    return {"claude_fork_session_id": found, "claude_fork_count": count}


def _no_such_turn(of: ForkOf) -> EngineError:
    if of.at_turn_id is None:
        text = f"No turn of session {of.session_id!r} has ended, so there is nothing to fork."
        return EngineError("invalid_params", text, path=f"{of.path}.sessionId", reason="no turn")
    text = f"Session {of.session_id!r} has no turn {of.at_turn_id[:100]!r} that has ended; "
    text += "session/get lists its turns."
    return EngineError("invalid_params", text, path=f"{of.path}.atTurnId", reason="no such turn")


def _gone(session_id: str) -> EngineError:
    return EngineError(
        "session_not_found", f"Session {session_id!r} was deleted meanwhile.", session_id=session_id
    )
