"""Starts upstream runs for turns, and records what each run was (`processRun`)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dragoman_protocol.query import TurnOptions

from dragomand.store.errors import StorageError
from dragomand.store.rows import ProcessRunRow, SessionRow
from dragomand.store.store import Store
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk, Upstream, UpstreamError, UpstreamRun

from .errors import from_failure
from .options import to_spec
from .permissions import Permissions
from .sessions import storage_errors
from .turn import Turn


@dataclass(slots=True)
class OpenRun:
    """A started run and what is recorded of it."""

    run: UpstreamRun
    record: ProcessRunRow
    turn: Turn | None = None
    """The turn that runs on it now; whom its questions belong to."""


class Runs:
    """Opens and closes runs."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        store: Store,
        permissions: Permissions,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        """Start runs of *upstream* and record them in *store*; *clock* gives Unix seconds."""
        self._upstream = upstream
        self._store = store
        self._permissions = permissions
        self._clock = clock
        self._new_id = new_id
        self.version: str | None = None
        """Claude Code's version, once known."""

    async def open(self, session: SessionRow, options: TurnOptions) -> OpenRun:
        """Start a run for *session*; raises `EngineError`."""
        cwd = Path(session.cwd or "/")
        spec = to_spec(options, session_id=session.session_id, cwd=cwd, resume=session.claude_session_id)
        opened: list[OpenRun] = []

        async def ask(question: PermissionAsk) -> PermissionAnswer:
            turn = opened[0].turn if opened else None
            if turn is None:
                return PermissionAnswer(allow=False, message="No turn is running, so nobody can be asked.")
            return await turn.ask(self._permissions, question)

        try:
            run = await self._upstream.open(spec, ask)
        except UpstreamError as error:
            raise from_failure(error.failure) from error
        record = ProcessRunRow(
            run_id=self._new_id(),
            session_id=session.session_id,
            claude_session_id=run.upstream_session_id,
            claude_version=run.version,
            started_at=self._clock(),
        )
        opened.append(OpenRun(run=run, record=record))
        self.version = run.version or self.version
        return opened[0]

    async def record(self, opened: OpenRun, session: SessionRow) -> None:
        """Write down which Claude Code session a run is, so that it can be resumed. The session's row must exist."""
        opened.record.claude_session_id = opened.run.upstream_session_id or session.session_id
        session.claude_session_id = opened.record.claude_session_id
        with storage_errors():
            await self._store.record_run(opened.record)
            await self._store.update_session(session.session_id, claude_session_id=session.claude_session_id)

    async def close(self, opened: OpenRun) -> None:
        """End a run and note its end."""
        await opened.run.close()
        opened.record.ended_at = self._clock()
        opened.record.claude_version = opened.run.version
        self.version = opened.run.version or self.version
        try:
            await self._store.record_run(opened.record)
        except StorageError:
            # Only a note; the turn's own end has been told already, with the store's failure if it had one.
            return
