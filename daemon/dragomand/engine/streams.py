"""Open sessions: a Claude Code process that stays alive between turns (00.38, 00.39, 06.1 to 06.3).

The daemon owns the session: a turn goes on while nobody is attached. A stream is closed by `stream/close`, by
the end of its process, and when for a while no turn ran and nobody watched.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from dragoman_protocol.stream import Event, StreamOpenParams, StreamSendParams

from dragomand.store.errors import DuplicateMessageError
from dragomand.upstream.interface import UpstreamRun

from . import options, stream_sends
from .admission import Admission, Permit
from .agents import Agents
from .asking import payment_of, spend_of, telling, turn_asked
from .auth import Auth
from .budgets import Budgets
from .caller import Caller
from .channel import Channel
from .deadline import Deadline
from .errors import EngineError
from .inheritance import Inheritance, Inheriting
from .open_stream import OpenStream, StreamLife, StreamTimes, ends_stream
from .query_limits import QueryLimits
from .runs import OpenRun, Runs
from .session_choice import SessionChoice, goes_on_from
from .sessions import Sessions
from .stream_sends import Accepted
from .turn import Turn, TurnEnd


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
        budgets: Budgets,
        agents: Agents,
        limits: QueryLimits,
        max_open: int,
        times: StreamTimes,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        logger: logging.Logger,
    ) -> None:
        """Keep at most *max_open* streams, each as long as *times* say."""
        self._tasks = tasks
        self._auth = auth
        self._admission = admission
        self._sessions = sessions
        self._choice = SessionChoice(sessions, roots=limits.roots, clock=clock, new_id=new_id)
        self._runs = runs
        self._budgets = budgets
        self._agents = agents
        self._limits = limits
        self._inheriting = Inheriting(
            sessions.store, agents, allowed_env=limits.allowed_env, roots=limits.roots
        )
        self._max_open = max_open
        self._times = times
        self._clock = clock
        self._new_id = new_id
        self._logger = logger
        self._open: dict[str, StreamLife] = {}
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether a turn runs in any of them."""
        return any(stream.turn is not None for stream in self._open.values())

    @property
    def count(self) -> int:
        """How many are open, those included that are being started or ended."""
        return len(self._open)

    async def open(self, params: StreamOpenParams, caller: Caller) -> tuple[str, Channel]:
        """Start the session's process and return its id and channel. Raises `EngineError`."""
        self._auth.require_claude_code()
        answering = await self._agents.answering(params)
        options.check(answering, caller, self._limits.allowed_env, self._limits.roots)
        if self._stopping:
            raise EngineError("draining")
        if len(self._open) >= self._max_open:
            raise EngineError(
                "queue_full",
                f"{len(self._open)} streams are open, as many as may (session.maxOpen). "
                "Close one with stream/close.",
                limit=self._max_open,
            )
        if (session_id := self._choice.id_for(params)) in self._open:
            raise EngineError("session_busy", "It has an open stream already.", session_id=session_id)
        stream = self._open[session_id] = StreamLife(session_id, params, caller)
        self._tasks.start_soon(self._keep, stream)
        try:
            await stream.ready.wait()
        except BaseException:
            stream.close()
            raise
        if stream.error is not None or stream.opened is None:
            if self._stopping:
                raise EngineError("draining")
            raise stream.error or EngineError("stream_not_open", session_id=session_id)
        return session_id, stream.opened.channel

    async def send(self, params: StreamSendParams, caller: Caller) -> str:
        """Accept a message and return its turn's id. Raises `stream_not_open`, `session_busy`, `queue_full` …

        When the caller is cancelled before the message is accepted, the turn is stopped.
        """
        self._auth.require_claude_code()
        digest = stream_sends.digest(params)
        known = await stream_sends.sent_before(
            params, digest, self._sessions.store, lambda: self.turn_of(params.session_id)
        )
        if known is not None:
            return known
        stream, opened = self._opened(params.session_id)
        self._check_use(stream, caller)
        turn = stream.turn = self._turn(opened, params, digest, caller)
        stream.turn_over = anyio.Event()
        accepted = Accepted()
        self._tasks.start_soon(self._run_turn, stream, opened, turn, accepted)
        try:
            await accepted.event.wait()
        except BaseException:
            turn.stop("client")
            raise
        if accepted.error is not None:
            raise accepted.error
        return turn.turn_id

    @asynccontextmanager
    async def between_turns(
        self, session_id: str, caller: Caller
    ) -> AsyncIterator[tuple[UpstreamRun, StreamOpenParams]]:
        """Have the stream's process, which is woken if it sleeps, for the block; no turn begins meanwhile.

        Gives what it was opened with too. Raises `stream_not_open`, `session_busy`, `scope_required` …
        """
        stream, opened = self._opened(session_id)
        self._check_use(stream, caller)
        stream.used = True
        try:
            await opened.wake(self._runs, stream.params, stream.caller)
            yield opened.run.run, stream.params
        finally:
            stream.used = False
            opened.used_at = anyio.current_time()
            stream.changed.set()

    def process_of(self, session_id: str) -> UpstreamRun | None:
        """Return the process of an open session, or its last one if it sleeps."""
        stream = self._open.get(session_id)
        return None if stream is None or stream.opened is None else stream.opened.run.run

    def turn_of(self, session_id: str) -> Turn | None:
        """Return the turn that runs in this open session now."""
        stream = self._open.get(session_id)
        return stream.turn if stream is not None else None

    def interrupt(self, session_id: str, turn_id: str | None = None) -> bool:
        """Stop the turn (only *turn_id*, if given) that runs or waits here; whether there was one."""
        turn = self.turn_of(session_id)
        if turn is None or turn_id not in (None, turn.turn_id):
            return False
        turn.stop("client")
        return True

    async def close(self, session_id: str) -> None:
        """Stop what runs, end the process and wait for its end. Raises `stream_not_open`."""
        stream = self._open.get(session_id)
        if stream is None:
            raise EngineError("stream_not_open", session_id=session_id)
        if stream.turn is not None:
            stream.turn.stop("client")
        stream.close()
        await stream.closed.wait()

    def rest(self) -> None:
        """Memory is short: end the processes of streams in which no turn runs. They wake when needed."""
        for stream in self._open.values():
            if not stream.occupied and stream.opened is not None:
                stream.opened.tired = "pressure"
                stream.changed.set()

    def stop_all(self) -> None:
        """The daemon is stopping: end every turn and every process, and begin no other."""
        self._stopping = True
        for stream in list(self._open.values()):
            if stream.turn is not None:
                stream.turn.stop("shutdown")
            stream.close()

    def _opened(self, session_id: str) -> tuple[StreamLife, OpenStream]:
        stream = self._open.get(session_id)
        if stream is None or stream.opened is None or stream.closing.is_set():
            raise EngineError("stream_not_open", session_id=session_id)
        return stream, stream.opened

    def _check_use(self, stream: StreamLife, caller: Caller) -> None:
        """Raise unless nothing happens in it, and the caller is allowed what it was opened with."""
        options.check(stream.params, caller, self._limits.allowed_env, self._limits.roots)
        stream.check_free()

    # -- one stream

    async def _keep(self, stream: StreamLife) -> None:
        """Own one session's claim and process from start to end."""
        try:
            with self._sessions.claim(stream.session_id, "stream"):
                with stream.starting:
                    await self._start(stream)
                if stream.opened is not None:
                    await self._until_unused(stream, stream.opened)
        except EngineError as error:
            stream.error = error
        except Exception as unexpected:
            self._logger.exception("stream failed")
            stream.error = EngineError("internal_error", detail=type(unexpected).__name__)
        finally:
            del self._open[stream.session_id]
            self._sessions.tidy(stream.session_id)
            stream.ready.set()
            stream.closed.set()

    async def _start(self, stream: StreamLife) -> None:
        named = stream.params
        await self._choice.check_streamable(named)
        stream.params, after = await self._inheriting.whole(named, stream.caller, goes_on_from(named))
        session = await self._choice.row_for(stream.params, stream.session_id, stream.caller)
        run = await self._runs.open(session, stream.params, stream.caller)
        await self._begin(stream, run, after)
        channel = self._sessions.channel_of(session)
        is_new = named.session_id is None and named.fork is None
        channel.on_unwatched = lambda: stream.changed.set()
        stream.opened = OpenStream(run, channel, self._times, is_new, anyio.current_time())
        stream.ready.set()

    async def _begin(self, stream: StreamLife, run: OpenRun, after: Inheritance | None) -> None:
        """Write the session, if it is a fork, and what its turns inherit; the process is there already."""
        try:
            with anyio.CancelScope(shield=True):
                await self._choice.begin(run.session, stream.params, after)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._runs.close(run)
            raise

    async def _until_unused(self, stream: StreamLife, opened: OpenStream) -> None:
        """Wait until it is closed or idle; then end the turn, if one runs, and the process."""
        try:
            while not stream.closing.is_set():
                stream.changed = anyio.Event()
                if stream.turn is not None or stream.used:
                    await stream.changed.wait()
                    continue
                now, closes_at, sleeps_at = anyio.current_time(), opened.closes_at, opened.sleeps_at
                if closes_at <= now:
                    break
                if sleeps_at <= now:
                    await opened.sleep(self._runs)
                    continue
                with anyio.move_on_after(min(closes_at, sleeps_at) - now):
                    await stream.changed.wait()
            stream.close()
            if stream.turn is not None:
                stream.turn.stop("client")
                await stream.turn_over.wait()
        finally:
            opened.channel.on_unwatched = None
            await opened.sleep(self._runs)

    # -- one turn

    async def _run_turn(self, stream: StreamLife, opened: OpenStream, turn: Turn, accepted: Accepted) -> None:
        try:
            end = await self._admit_and_execute(stream, opened, turn, accepted)
            opened.run.ended(end.outcome)
            if end.cut_off or ends_stream(end.error):
                stream.close()
        except DuplicateMessageError as duplicate:
            error = EngineError("message_conflict", str(duplicate), message_id=turn.given_message_id)
            accepted.refuse(error, turn)
        except EngineError as error:
            accepted.refuse(error, turn)
        except Exception as unexpected:
            self._logger.exception("turn failed")
            accepted.refuse(EngineError("internal_error", detail=type(unexpected).__name__), turn)
        finally:
            self._turn_over(stream, opened, turn)
            accepted.event.set()

    async def _admit_and_execute(
        self, stream: StreamLife, opened: OpenStream, turn: Turn, accepted: Accepted
    ) -> TurnEnd:
        async with AsyncExitStack() as door:
            permit = await self._admit(door, stream, turn, accepted.before(opened.channel.publish))
            if isinstance(permit, EngineError) and not accepted.event.is_set():
                raise permit
            end = await self._execute(stream, opened, turn, permit, accepted)
            self._turn_over(stream, opened, turn)
            return end

    async def _admit(
        self, door: AsyncExitStack, stream: StreamLife, turn: Turn, publish: Callable[[Event], None]
    ) -> Permit | EngineError:
        """Return the permit, which is held until *door* closes, or why there is none."""
        above = self._runs.turn_above(turn.caller)
        tree = self._budgets.tree_below(above)
        payment = payment_of(turn.caller, turn.session, turn.choice.upstream, stream.params, tree)
        asked = turn_asked(
            turn.caller,
            turn.session,
            turn.turn_id,
            model=stream.params.model,
            credential=self._auth.credential,
            timeout_s=self._limits.queue_time_in_stream_s(stream.params),
            parent=above,
            priority=stream.params.priority,
            reserve=lambda: self._budgets.reserve(payment),
        )
        waiting = telling(turn.caller, stream.session_id, turn.turn_id, publish, self._clock)
        turn.queueing = anyio.CancelScope()
        if turn.stopped is not None:
            turn.queueing.cancel()
        with turn.queueing:
            try:
                await self._budgets.allow(payment, turn.caller, asked.timeout_s)
                permit = await door.enter_async_context(self._admission.admit(asked, waiting))
                turn.spend = spend_of(permit)
                return permit
            except EngineError as error:
                return error
            finally:
                turn.queueing = None
        return EngineError("request_cancelled")

    async def _execute(
        self,
        stream: StreamLife,
        opened: OpenStream,
        turn: Turn,
        permit: Permit | EngineError,
        accepted: Accepted,
    ) -> TurnEnd:
        """Run the turn. One that was not admitted after its id had been given out is written as failed."""

        async def run_of(_turn: Turn) -> UpstreamRun:
            # The first thing that happens after the turn's row is there.
            accepted.event.set()
            if isinstance(permit, EngineError):
                raise permit
            started = await opened.wake(self._runs, stream.params, stream.caller)
            self._runs.begin(opened.run, turn)
            await self._runs.record(opened.run)
            if started is not None:
                turn.sink(started)
            return opened.run.run

        queued_ms = permit.data.get("waited_ms", 0) if isinstance(permit, EngineError) else permit.queued_ms
        try:
            return await turn.execute(
                self._sessions.store, run_of, queued_ms=queued_ms, clock=self._clock, logger=self._logger
            )
        finally:
            opened.is_new = opened.is_new and not turn.begun

    def _turn_over(self, stream: StreamLife, opened: OpenStream, turn: Turn) -> None:
        if stream.turn is turn:
            stream.turn = None
            opened.turn_ended(anyio.current_time())
            stream.turn_over.set()
            stream.changed.set()

    def _turn(self, opened: OpenStream, params: StreamSendParams, digest: str, caller: Caller) -> Turn:
        return Turn(
            turn_id=self._new_id(),
            session=opened.run.session,
            new_session=opened.is_new,
            prompt=params.prompt,
            message_id=self._new_id(),
            given_message_id=params.message_id,
            request_digest=digest,
            caller=caller,
            channel=opened.channel,
            deadline=Deadline(None),
        )
