"""Open sessions: a Claude Code process that stays alive between turns (00.38, 00.39, 06.1 to 06.3).

The daemon owns the session: a turn goes on while nobody is attached. A stream is closed by `stream/close`, by
the end of its process, and when for a while no turn ran and nobody watched.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import msgspec
from anyio.abc import TaskGroup
from dragoman_protocol.stream import StreamOpenParams, StreamSendParams, Waiting

from dragomand.store.errors import DuplicateMessageError
from dragomand.store.rows import SessionRow
from dragomand.upstream.interface import UpstreamRun

from . import options, working_directory
from .admission import Admission
from .auth import Auth
from .caller import Caller
from .channel import Channel
from .deadline import Deadline
from .errors import EngineError
from .queries import QueryLimits, new_session
from .runs import OpenRun, Runs
from .sessions import Sessions, storage_errors
from .turn import Turn

_ENDS_STREAM = frozenset({"claude_crashed", "claude_protocol", "auth_failed"})
"""Errors of a turn after which its process cannot be used further."""


@dataclass(slots=True, eq=False)
class _Stream:
    """One open session."""

    session: SessionRow
    params: StreamOpenParams
    channel: Channel
    is_new: bool
    ready: anyio.Event = field(default_factory=anyio.Event)
    closing: anyio.Event = field(default_factory=anyio.Event)
    closed: anyio.Event = field(default_factory=anyio.Event)
    opened: OpenRun | None = None
    error: EngineError | None = None
    turn: Turn | None = None


class Streams:
    """All open sessions of the daemon."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        auth: Auth,
        admission: Admission,
        sessions: Sessions,
        runs: Runs,
        limits: QueryLimits,
        max_open: int,
        idle_s: float,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        logger: logging.Logger,
    ) -> None:
        """Keep at most *max_open* processes, each at most *idle_s* seconds without a turn or a watcher."""
        self._tasks = tasks
        self._auth = auth
        self._admission = admission
        self._sessions = sessions
        self._runs = runs
        self._limits = limits
        self._max_open = max_open
        self._idle_s = idle_s
        self._clock = clock
        self._new_id = new_id
        self._logger = logger
        self._open: dict[str, _Stream] = {}

    @property
    def busy(self) -> bool:
        """Whether a turn runs in any of them."""
        return any(stream.turn is not None for stream in self._open.values())

    async def open(self, params: StreamOpenParams, caller: Caller) -> tuple[str, Channel]:
        """Start the session's process and return its id and channel. Raises `EngineError`."""
        self._auth.require()
        options.check(params, caller, self._limits.allowed_env)
        if len(self._open) >= self._max_open:
            raise EngineError(
                "queue_full",
                f"{len(self._open)} streams are open, as many as may (session.maxOpen). Close one with stream/close.",
                limit=self._max_open,
            )
        session, is_new = await self._session(params)
        if session.session_id in self._open:
            raise EngineError(
                "session_busy", "This session has an open stream already.", session_id=session.session_id
            )
        channel = self._sessions.channel_of(session)
        stream = self._open[session.session_id] = _Stream(session, params, channel, is_new)
        self._tasks.start_soon(self._keep, stream)
        try:
            await stream.ready.wait()
        except BaseException:
            stream.closing.set()
            raise
        if stream.error is not None:
            raise stream.error
        return session.session_id, channel

    async def send(self, params: StreamSendParams, caller: Caller) -> str:
        """Accept a message and return its turn's id. Raises `stream_not_open`, `session_busy`, `queue_full` …"""
        self._auth.require()
        digest = hashlib.sha256(msgspec.json.encode([params.session_id, params.prompt])).hexdigest()
        stream = self._open.get(params.session_id)
        known = await self._known(params, digest, stream)
        if known is not None:
            return known
        stream = self._open.get(params.session_id)
        if stream is None or stream.opened is None or stream.closing.is_set():
            raise EngineError("stream_not_open", session_id=params.session_id)
        if stream.turn is not None:
            raise EngineError(
                "session_busy",
                "A turn of this session is running: wait for its turnCompleted, or stop it with stream/interrupt.",
                session_id=params.session_id,
                turn_id=stream.turn.turn_id,
            )
        turn = stream.turn = self._turn(stream, params, digest, caller)
        accepted = _Accepted()
        self._tasks.start_soon(self._run_turn, stream, turn, accepted)
        await accepted.event.wait()
        if accepted.error is not None:
            raise accepted.error
        return turn.turn_id

    def turn_of(self, session_id: str) -> Turn | None:
        """Return the turn that runs in this open session now."""
        stream = self._open.get(session_id)
        return stream.turn if stream is not None else None

    async def close(self, session_id: str) -> None:
        """Stop what runs, end the process and wait for its end. Raises `stream_not_open`."""
        stream = self._open.get(session_id)
        if stream is None:
            raise EngineError("stream_not_open", session_id=session_id)
        if stream.turn is not None:
            stream.turn.stop("client")
        stream.closing.set()
        await stream.closed.wait()

    def stop_all(self) -> None:
        """The daemon is stopping: end every turn and every process."""
        for stream in list(self._open.values()):
            if stream.turn is not None:
                stream.turn.stop("shutdown")
            stream.closing.set()

    # -- one stream

    async def _keep(self, stream: _Stream) -> None:
        """Own one process from its start to its end."""
        session_id = stream.session.session_id
        try:
            with self._sessions.claim(session_id, "stream"):
                stream.opened = await self._runs.open(stream.session, stream.params)
                stream.ready.set()
                try:
                    await self._until_unused(stream)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._runs.close(stream.opened)
        except EngineError as error:
            stream.error = error
        except Exception as unexpected:
            self._logger.exception("stream failed")
            stream.error = EngineError("internal_error", detail=type(unexpected).__name__)
        finally:
            del self._open[session_id]
            self._sessions.tidy(session_id)
            stream.ready.set()
            stream.closed.set()

    async def _until_unused(self, stream: _Stream) -> None:
        while not stream.closing.is_set():
            with anyio.move_on_after(self._idle_s):
                await stream.closing.wait()
            if stream.turn is None and not stream.channel.watched:
                return

    async def _run_turn(self, stream: _Stream, turn: Turn, accepted: "_Accepted") -> None:
        def waiting(reason: str, ahead: int) -> None:
            accepted.event.set()
            stream.channel.publish(Waiting(reason=reason, position=ahead))

        async def run_of(_turn: Turn) -> UpstreamRun:
            # The first thing that happens after the turn's row is there.
            accepted.event.set()
            assert stream.opened is not None
            stream.opened.turn = turn
            await self._runs.record(stream.opened, stream.session)
            return stream.opened.run

        try:
            async with self._admission.admit(
                turn.caller.id,
                priority="interactive",
                timeout_s=self._limits.queue_timeout_ms / 1000,
                waiting=waiting,
            ) as permit:
                end = await turn.execute(
                    self._sessions.store,
                    run_of,
                    queued_ms=permit.queued_ms,
                    clock=self._clock,
                    logger=self._logger,
                )
            stream.is_new = False
            if end.error is not None and end.error.kind in _ENDS_STREAM:
                stream.closing.set()
        except DuplicateMessageError as duplicate:
            accepted.error = EngineError("message_conflict", str(duplicate), message_id=turn.given_message_id)
        except EngineError as error:
            accepted.error = error
        except Exception as unexpected:
            self._logger.exception("turn failed")
            accepted.error = EngineError("internal_error", detail=type(unexpected).__name__)
        finally:
            stream.turn = None
            accepted.event.set()

    def _turn(self, stream: _Stream, params: StreamSendParams, digest: str, caller: Caller) -> Turn:
        return Turn(
            turn_id=self._new_id(),
            session=stream.session,
            new_session=stream.is_new,
            prompt=params.prompt,
            message_id=self._new_id(),
            given_message_id=params.message_id,
            request_digest=digest,
            caller=caller,
            channel=stream.channel,
            deadline=Deadline(None),
        )

    async def _session(self, params: StreamOpenParams) -> tuple[SessionRow, bool]:
        if params.session_id is not None:
            session = await self._sessions.load(params.session_id)
            working_directory.check_same(params.cwd, session.cwd)
            working_directory.check(session.cwd or "", self._limits.roots)
            return session, False
        if params.cwd is None:
            raise EngineError(
                "invalid_params",
                "A new session needs `cwd`, an absolute path of a directory.",
                path="$.cwd",
                reason="missing",
            )
        cwd = working_directory.check(params.cwd, self._limits.roots)
        title = params.title
        return new_session(self._new_id, self._clock(), str(cwd), "", title, params.tags, params.model), True

    async def _known(self, params: StreamSendParams, digest: str, stream: _Stream | None) -> str | None:
        """Return the turn's id if this message was sent before."""
        if params.message_id is None:
            return None
        running = stream.turn if stream is not None else None
        if running is not None and running.given_message_id == params.message_id:
            first, turn_id = running.request_digest, running.turn_id
        else:
            with storage_errors():
                row = await self._sessions.store.turn_by_message(params.message_id)
            if row is None:
                return None
            first, turn_id = row.request_digest, row.turn_id
        if first != digest:
            raise EngineError(
                "message_conflict",
                f"The messageId {params.message_id!r} was used for another request; make a new one for each prompt.",
                message_id=params.message_id,
            )
        return turn_id


class _Accepted:
    """Whether a message was taken, and why not."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.error: EngineError | None = None
