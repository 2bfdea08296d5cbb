"""Starts upstream runs for turns, and records what each run was (`processRun`)."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, replace
from functools import partial

import anyio
from dragoman_protocol.query import AnswerOptions, QueryRunParams, TurnOptions
from dragoman_protocol.stream import StreamOpenParams

from dragomand.policy.fair_queue import Priority
from dragomand.store.errors import StorageError
from dragomand.store.rows import ProcessRunRow, SessionRow
from dragomand.store.store import Store
from dragomand.upstream.interface import (
    AdmitCall,
    AskPermission,
    PermissionAnswer,
    PermissionAsk,
    RunSpec,
    TurnOutcome,
    Upstream,
    UpstreamError,
    UpstreamRun,
)

from .admission import ANY_MODELS, WaitingSink, family_of
from .asking import telling
from .call import Call, Payer
from .caller import Caller
from .calls import Calls
from .errors import EngineError, from_failure, from_storage
from .history import load_history
from .options import to_direct_spec, to_spec
from .permissions import Permissions
from .sessions import storage_errors
from .structured import OutputSchema
from .turn import Turn

MOST_LINEAGES = 512
"""Of so many clients, the newest, it is remembered whom they descend from."""


@dataclass(slots=True)
class OpenRun:
    """A started run and what is recorded of it."""

    run: UpstreamRun
    record: ProcessRunRow | None
    """None for a run without a process: there is nothing to resume."""
    session: SessionRow
    turn: Turn | None = None
    """The turn that runs on it now; whom its questions belong to."""
    message_count: int | None = None
    """Messages in the upstream's own record when a turn ended last."""
    recorded: bool = False
    """Whether `record` is in the store."""
    priority: Priority = "interactive"
    models: str = ANY_MODELS

    def ended(self, outcome: TurnOutcome | None) -> None:
        """Note what a turn's outcome tells of the run."""
        if outcome is not None and self.record is not None:
            self.record.cost_total_usd = outcome.cost_total_usd
            if outcome.message_count is not None:
                self.message_count = outcome.message_count


class Runs:
    """Opens and closes runs."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        direct: Upstream | None = None,
        store: Store,
        permissions: Permissions,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        calls: Calls | None = None,
        credential: Callable[[], str] = lambda: "apiKey",
        direct_credential: Callable[[], str] = lambda: "apiKey",
        direct_model: str | None = None,
        ancestors: Callable[[int], Iterable[int]] = lambda _pid: (),
    ) -> None:
        """Start runs of *upstream* and record them in *store*; *clock* gives Unix seconds.

        What they call through the gateway is counted by *calls*. *direct* is the Messages API, whose runs
        leave no record. *credential* names the one that pays, *direct_credential* that of direct calls,
        *direct_model* the model of those that name none, *ancestors* the processes that one descends from.
        """
        self._ancestors = ancestors
        self._live: dict[int, OpenRun] = {}
        """Those that a turn has run on, by the pid of their outermost process."""
        self._lineages: OrderedDict[str, frozenset[int]] = OrderedDict()
        self._credential = credential
        self._direct_credential = direct_credential
        self.direct_model = direct_model
        self._upstream = upstream
        self._direct = direct
        self._calls = calls
        self._store = store
        self._permissions = permissions
        self._clock = clock
        self._new_id = new_id
        self.version: str | None = None
        """Claude Code's version, once known."""

    async def open_direct(
        self,
        session: SessionRow,
        options: AnswerOptions,
        *,
        turn: Turn,
        output: OutputSchema | None,
        resumed: bool,
    ) -> OpenRun:
        """Start a run of the Messages API, with what the session said before; raises `EngineError`.

        Its calls are admitted and counted as those of *turn*.
        """
        assert self._direct is not None
        if resumed:
            with storage_errors():
                history = await load_history(self._store, session.session_id)
        else:
            history = ()
        instruction = None if output is None else output.instruction
        channel = turn.channel
        spec = to_direct_spec(
            options,
            session,
            instruction=instruction,
            history=history,
            deltas_wanted=lambda: channel.watched,
            admit_call=self._admit_calls(options, turn),
        )
        try:
            run = await self._direct.open(spec, _nobody)
        except UpstreamError as error:
            raise from_failure(error.failure) from error
        return OpenRun(run=run, record=None, session=session)

    async def open(
        self, session: SessionRow, options: TurnOptions, caller: Caller, instruction: str | None = None
    ) -> OpenRun:
        """Start a run for *session* with what *caller* chose and may have; raises `EngineError`.

        *instruction* is added to the system prompt.
        """
        opened: list[OpenRun] = []

        async def ask(question: PermissionAsk) -> PermissionAnswer:
            turn = opened[0].turn if opened else None
            if turn is None:
                return PermissionAnswer(allow=False, message="No turn is running, so nobody can be asked.")
            return await turn.ask(self._permissions, question)

        try:
            run = await self._open(session, options, caller, ask, instruction)
        except UpstreamError as error:
            raise from_failure(error.failure) from error
        record = ProcessRunRow(
            run_id=self._new_id(),
            session_id=session.session_id,
            claude_session_id=run.upstream_session_id,
            claude_version=run.version,
            started_at=self._clock(),
        )
        count = session.claude_message_count
        opened.append(
            OpenRun(
                run=run,
                record=record,
                session=session,
                message_count=count,
                priority=_priority(options),
                models=family_of(options.model or session.model),
            )
        )
        self._charge(opened[0], options, caller)
        self.version = run.version or self.version
        return opened[0]

    def begin(self, opened: OpenRun, turn: Turn) -> None:
        """From now on *turn* runs on it. Where the daemon sees no calls, the turn takes a permit as one."""
        opened.turn = turn
        if opened.run.pid is not None:
            self._live[opened.run.pid] = opened
        if self._calls is not None and opened.record is not None and opened.run.api_access is None:
            turn.in_one_call = partial(self._in_one_call, opened, turn)

    def turn_above(self, caller: Caller) -> str | None:
        """Return the turn in whose Claude Code process *caller* runs, which may wait for what it asks for."""
        if not self._live or caller.peer_pid is None:
            return None
        lineage = self._lineages.get(caller.id)
        if lineage is None:
            lineage = self._lineages[caller.id] = frozenset(self._ancestors(caller.peer_pid))
            while len(self._lineages) > MOST_LINEAGES:
                self._lineages.popitem(last=False)
        for pid in lineage & self._live.keys():
            turn = self._live[pid].turn
            if turn is not None:
                return turn.turn_id
        return None

    async def _in_one_call(
        self, opened: OpenRun, turn: Turn, talk: Callable[[], Awaitable[TurnOutcome]]
    ) -> TurnOutcome:
        assert self._calls is not None
        payer = Payer(
            turn.caller.id,
            turn.caller.name,
            turn.turn_id,
            opened.priority,
            turn.session.session_id,
            opened.models,
            self._credential(),
        )
        async with AsyncExitStack() as held:
            turn.queueing = anyio.CancelScope()
            with turn.queueing as waiting:
                try:
                    permit = self._calls.whole_turn(payer, self._tell(turn))
                    call = await held.enter_async_context(permit)
                finally:
                    turn.queueing = None
            if waiting.cancelled_caught:
                return TurnOutcome(status="interrupted")
            outcome = await talk()
            call.finished, call.failure = outcome.status == "completed", outcome.failure
            call.status, call.usage = 200 if call.finished else None, outcome.usage
            return outcome

    def _tell(self, turn: Turn) -> WaitingSink:
        return telling(turn.caller, turn.session.session_id, turn.turn_id, turn.sink, self._clock)

    def _admit_calls(self, options: AnswerOptions, turn: Turn) -> AdmitCall | None:
        calls = self._calls
        if calls is None:
            return None
        payer = Payer(
            turn.caller.id,
            turn.caller.name,
            turn.turn_id,
            _priority(options),
            turn.session.session_id,
            family_of(options.model or turn.session.model or self.direct_model),
            self._direct_credential(),
        )
        waiting = self._tell(turn)
        if payer.priority == "interactive":
            return lambda attempt: calls.carry_out(lambda: calls.call_of(payer, waiting), attempt)

        def admit() -> AbstractAsyncContextManager[Call]:
            return _patiently(calls.call_of(payer, waiting), turn)

        return lambda attempt: calls.carry_out(admit, attempt, patient=True)

    async def _open(
        self,
        session: SessionRow,
        options: TurnOptions,
        caller: Caller,
        ask: AskPermission,
        instruction: str | None,
    ) -> UpstreamRun:
        spec = to_spec(
            options, caller, session, resume=session.claude_session_id, instruction=instruction
        )
        known = session.claude_message_count is not None
        fork = None if known else _fork_spec(session, spec, self._new_id)
        if fork is not None and session.claude_session_id is None:
            return await self._upstream.open(fork, ask)
        if fork is not None:
            spec = replace(spec, resume_holds=fork.resume_holds)
        try:
            return await self._upstream.open(spec, ask)
        except UpstreamError as error:
            if error.failure.category != "mismatch" or known:
                raise
        # A turn was cut off before Claude Code had written its first word, or the whole of what a fork takes
        # over: there is nothing to lose.
        return await self._upstream.open(
            fork or replace(spec, resume=None, resume_message_count=None), ask
        )

    def _charge(self, opened: OpenRun, options: TurnOptions, caller: Caller) -> None:
        """Let the calls of a run count as those of whoever's turn runs on it, else of who opened it."""
        access = None if self._calls is None else opened.run.api_access
        if self._calls is None or access is None:
            return
        priority = _priority(options)
        models = family_of(options.model or opened.session.model)

        def payer() -> Payer:
            turn = opened.turn
            if turn is None:
                return Payer(caller.id, caller.name, priority=priority, models=models)
            who, session_id = turn.caller, turn.session.session_id
            return Payer(
                who.id, who.name, turn.turn_id, priority, session_id, models,
                max_cost_usd=options.max_budget_usd, waiting=self._tell(turn),
            )  # fmt: skip

        self._calls.charge(access.grant_id, payer)

    async def record(self, opened: OpenRun) -> None:
        """Write down which Claude Code session a run is, so that it can be resumed; only what has changed.

        The session's row must exist. Raises `EngineError`.
        """
        run, record, session = opened.run, opened.record, opened.session
        if record is None:
            return
        known = run.upstream_session_id or session.claude_session_id or session.session_id
        failures: list[StorageError] = []
        # Both writes share one commit: somebody waits for the first word of the answer meanwhile.
        async with anyio.create_task_group() as writes:
            if known != session.claude_session_id or opened.message_count != session.claude_message_count:
                change = partial(
                    self._store.update_session,
                    session.session_id,
                    claude_session_id=known,
                    claude_message_count=opened.message_count,
                )
                writes.start_soon(_collect, change, failures)
            if known != record.claude_session_id or not opened.recorded:
                record.claude_session_id = known
                writes.start_soon(_collect, partial(self._store.record_run, record), failures)
        if failures:
            raise from_storage(failures[0], session_id=session.session_id)
        session.claude_session_id = known
        session.claude_message_count = opened.message_count
        opened.recorded = True

    async def close(self, opened: OpenRun) -> None:
        """End a run and note its end, its cost, and the Claude Code session if it is another one now."""
        for pid in [pid for pid, each in self._live.items() if each is opened]:
            del self._live[pid]
        await opened.run.close()
        if opened.record is None:
            return
        opened.record.ended_at = self._clock()
        opened.record.claude_version = self.version = opened.run.version or self.version
        if not opened.recorded:
            return  # its session was never written: no turn began
        opened.recorded = False
        # Only a note; the turn's own end has been told already, with the store's failure if it had one.
        with suppress(EngineError):
            await self.record(opened)


def _priority(options: TurnOptions) -> Priority:
    return options.priority if isinstance(options, QueryRunParams | StreamOpenParams) else "interactive"


def _fork_spec(session: SessionRow, spec: RunSpec, new_id: Callable[[], str]) -> RunSpec | None:
    """Return how a fork's own conversation begins; None for a session that is no fork of Claude Code's."""
    if session.claude_fork_session_id is None:
        return None
    return replace(
        spec,
        # Where an attempt was cut off, its id is taken.
        session_id=session.session_id if session.claude_session_id is None else new_id(),
        resume=session.claude_fork_session_id,
        resume_message_count=session.claude_fork_count,
        resume_holds=session.claude_fork_leaf_id,
        fork=True,
    )


@asynccontextmanager
async def _patiently(entry: AbstractAsyncContextManager[Call], turn: Turn) -> AsyncIterator[Call]:
    """Wait at the door without a batch's time going on: a quota may take hours to return."""
    async with AsyncExitStack() as held:
        with turn.deadline.paused() if turn.waits_freely else nullcontext():
            call = await held.enter_async_context(entry)
        yield call


async def _nobody(_question: PermissionAsk) -> PermissionAnswer:
    return PermissionAnswer(allow=False)


async def _collect(write: Callable[[], Awaitable[None]], failures: list[StorageError]) -> None:
    try:
        await write()
    except StorageError as error:
        failures.append(error)
