"""`query/run`: load session → `admit()` → open turn → run → number and publish → close turn → settle.

The turn runs in a task of the engine's, so it ends in order whatever becomes of the one who waits for it. A
`messageId` makes a submission exactly-once: while it runs, further submissions wait for the same end; later
ones get the stored answer.
"""

import asyncio
import logging
from collections.abc import Callable

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup
from dragoman_protocol.query import QueryRunParams, QueryRunResult

from dragomand.store.errors import DuplicateMessageError
from dragomand.store.rows import SessionRow
from dragomand.upstream.interface import UpstreamRun

from . import answers, options, working_directory
from .admission import Admission, Asked
from .agents import Agents
from .asking import payment_of, spend_of, telling, turn_asked
from .auth import Auth
from .budgets import Budgets
from .caller import Caller
from .channel import Subscriber
from .deadline import Deadline
from .errors import EngineError
from .inheritance import Inheriting
from .query_limits import QueryLimits
from .runs import OpenRun, Runs
from .session_choice import SessionChoice, goes_on_from
from .sessions import Sessions
from .spend import Payment
from .structured import OutputSchema
from .submissions import Submission
from .turn import Turn, TurnEnd
from .turn_tasks import TurnTasks
from .upstream_choice import Choice, choose

STOP_PATIENCE_S = 13.0
"""How long, in seconds, one who cancelled waits for the turn's end: an interrupt, then the closing ladder."""


class Queries:
    """All queries of the daemon."""

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
        clock: Callable[[], float],
        new_id: Callable[[], str],
        logger: logging.Logger,
    ) -> None:
        """Run queries in *tasks*; *clock* gives Unix seconds, *new_id* UUIDs."""
        self._tasks = TurnTasks(tasks)
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
        self._clock = clock
        self._new_id = new_id
        self._logger = logger
        self._live: set[Submission] = set()
        self._by_message: dict[str, Submission] = {}
        self._stopping = False

    @property
    def live(self) -> int:
        """How many queries have not ended."""
        return len(self._live)

    @property
    def admission(self) -> Admission:
        """The door that every query goes through."""
        return self._admission

    async def run(
        self,
        params: QueryRunParams,
        caller: Caller,
        *,
        started: Callable[[str], None] | None = None,
        subscriber: Subscriber | None = None,
        timeout_ms: int | None = None,
    ) -> QueryRunResult:
        """Run one turn and return its end. *timeout_ms* is the default in place of the setting's.

        *started* hears the session's id as soon as it is known, *subscriber* every event. When the caller is
        cancelled and nobody else waits for the same submission, the turn is stopped, and `request_cancelled`
        is raised with what had been said. Raises `EngineError`; see the method's table for the kinds.
        """
        self._auth.require()
        asked = None if params.message_id is None else options.digest(params)
        answering = await self._agents.answering(params)
        options.check(answering, caller, self._limits.allowed_env, self._limits.roots)
        options.check_times(params)
        submission, joined = self._submit(params, caller, asked, timeout_ms)
        submission.waiters += 1
        if subscriber is not None:
            submission.watch(subscriber)
        if started is not None:
            submission.hear(started)
        try:
            await submission.done.wait()
        except asyncio.CancelledError:
            raise await self._given_up(submission) from None
        finally:
            submission.waiters -= 1
            if subscriber is not None:
                submission.unwatch(subscriber)
        if submission.result is None:
            raise submission.error or EngineError("internal_error")
        return msgspec.structs.replace(submission.result, replayed=True) if joined else submission.result

    def check_plan(self, cwd: str | None) -> None:
        """Raise what would fail every query in *cwd*: `auth_required`, `invalid_cwd`."""
        self._auth.require()
        if cwd is not None:
            working_directory.check(cwd, self._limits.roots)

    def turn_of(self, session_id: str) -> Turn | None:
        """Return the turn that a query runs in this session now."""
        for submission in self._live:
            if submission.turn is not None and submission.session_id == session_id:
                return submission.turn
        return None

    def interrupt(self, session_id: str, turn_id: str | None = None) -> bool:
        """Stop the query that runs, or waits to be admitted, in this session; whether there was one.

        Only if it is *turn_id*, where that is given: one that waits is no turn yet. It is answered with
        `request_cancelled`.
        """
        for submission in self._live:
            turn = submission.turn
            if submission.session_id == session_id and turn_id in (None, turn and turn.turn_id):
                submission.stop("client")
                return True
        return False

    def stop_all(self) -> None:
        """The daemon is stopping: end every query, and begin no other."""
        self._stopping = True
        for submission in list(self._live):
            submission.stop("shutdown")
        self._tasks.end()

    # -- one submission

    def _submit(
        self, params: QueryRunParams, caller: Caller, asked: str | None, timeout_ms: int | None
    ) -> tuple[Submission, bool]:
        """Return the submission that carries this out, and whether it had been on its way already."""
        message_id = params.message_id
        if message_id is not None and message_id in self._by_message:
            known = self._by_message[message_id]
            answers.check_same(message_id, known.digest, asked)
            return known, True
        if self._stopping:
            raise EngineError("draining")
        submission = Submission(params=params, caller=caller, digest=asked, timeout_ms=timeout_ms)
        self._tasks.start(self._carry_out(submission))
        self._live.add(submission)
        if message_id is not None:
            self._by_message[message_id] = submission
        return submission, False

    async def _given_up(self, submission: Submission) -> EngineError:
        """Somebody waits no longer; the last one stops it, and waits for its end in order."""
        if submission.waiters == 1 and not submission.done.is_set():
            submission.stop("client")
            with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_PATIENCE_S):
                await submission.done.wait()
        return submission.cancelled()

    async def _carry_out(self, submission: Submission) -> None:
        message_id = submission.params.message_id
        try:
            if submission.stopped is None:
                submission.task = asyncio.current_task()
                submission.result = await self._replay(submission) or await self._run(submission)
        except asyncio.CancelledError:
            if submission.stopped is None or submission.turn is not None:
                raise  # not by `stop`
        except EngineError as error:
            submission.error = error
        except DuplicateMessageError as duplicate:  # another session's stream took it in the same instant
            submission.error = EngineError("message_conflict", str(duplicate), message_id=message_id)
        except Exception as unexpected:
            self._logger.exception("query failed")
            submission.error = EngineError("internal_error", detail=type(unexpected).__name__)
        finally:
            self._live.discard(submission)
            if message_id is not None:
                self._by_message.pop(message_id, None)
            submission.end()

    async def _replay(self, submission: Submission) -> QueryRunResult | None:
        """Return the stored answer of a message that was run before; raises its stored error."""
        message_id = submission.params.message_id
        if message_id is None or submission.digest is None:
            return None
        turn = await answers.stored_turn(self._sessions.store, message_id, submission.digest)
        if turn is None:
            return None
        submission.in_session(turn.session_id)
        return await answers.replay(self._sessions.store, turn)

    async def _run(self, submission: Submission) -> QueryRunResult:
        timeout_ms = self._limits.time_of(submission.params, submission.timeout_ms)
        deadline = None if timeout_ms is None else Deadline(timeout_ms / 1000)
        output = await self._output(submission.params)
        session_id = self._choice.id_for(submission.params)
        try:
            with self._sessions.claim(session_id, "turn"):
                return await self._run_in(submission, session_id, deadline, timeout_ms, output)
        finally:
            self._sessions.tidy(session_id)

    async def _output(self, params: QueryRunParams) -> OutputSchema | None:
        """Return what the answer has to fit. Checking it loads a library, so not on the loop."""
        if params.output_schema is None:
            return None
        return await anyio.to_thread.run_sync(OutputSchema, params.output_schema, params.output_attempts)

    async def _run_in(
        self,
        submission: Submission,
        session_id: str,
        deadline: Deadline | None,
        timeout_ms: int | None,
        output: OutputSchema | None,
    ) -> QueryRunResult:
        caller = submission.caller
        choice = await self._choose(submission.params)
        params, after = await self._inheriting.whole(
            submission.params, caller, goes_on_from(submission.params)
        )
        session = await self._choice.row_for(
            params, session_id, caller, params.prompt, needs_cwd=choice.upstream == "claude_code"
        )
        submission.in_session(session_id)
        channel = self._sessions.channel_of(session)
        channel.unborn = params.fork is not None
        submission.in_channel(channel)
        tree_id = self._budgets.tree_below(self._runs.turn_above(caller))
        payment = payment_of(caller, session, choice.upstream, params, tree_id)
        asked = self._asked(submission, params, session, choice, timeout_ms, payment)
        waiting = telling(caller, session_id, asked.turn_id, channel.publish, self._clock)
        try:
            await self._budgets.allow(payment, caller, asked.timeout_s)
            async with self._admission.admit(asked, waiting) as permit:
                if deadline is None:  # of a batch: it begins now
                    deadline = Deadline((submission.timeout_ms or self._limits.timeout_ms) / 1000)
                turn = self._turn(submission, session, deadline, choice, output, asked.turn_id or "")
                turn.waits_freely = timeout_ms is None
                turn.spend = spend_of(permit)
                submission.begin(turn)
                await self._choice.begin(session, params, after)
                channel.unborn = False
                end = await self._execute(turn, params, permit.queued_ms, output)
        finally:
            submission.out_of_channel()
        if end.error is not None:
            raise end.error
        return answers.result_of(
            end.row,
            end.text,
            session.claude_session_id,
            reason=choice.reason,
            structured=None if turn.attempts is None else turn.attempts.answer,
            start=turn.start,
        )

    async def _choose(self, params: QueryRunParams) -> Choice:
        return choose(
            params,
            cwd=params.cwd,
            bound=await self._choice.upstream_of(params),
            has_key=self._auth.can_ask_directly,
            provider=self._auth.direct_provider,
            refusal=self._auth.claude_code_refusal,
            missing=self._auth.no_direct_answer,
        )

    def _asked(
        self,
        submission: Submission,
        params: QueryRunParams,
        session: SessionRow,
        choice: Choice,
        timeout_ms: int | None,
        payment: Payment,
    ) -> Asked:
        direct = choice.upstream == "messages_api"
        return turn_asked(
            submission.caller,
            session,
            self._new_id(),
            model=params.model or session.model or (self._runs.direct_model if direct else None),
            credential=self._auth.direct_credential if direct else self._auth.credential,
            timeout_s=self._limits.queue_time_s(params, timeout_ms),
            parent=self._runs.turn_above(submission.caller),
            priority=params.priority,
            reserve=lambda: self._budgets.reserve(payment),
        )

    async def _execute(
        self, turn: Turn, params: QueryRunParams, queued_ms: int, output: OutputSchema | None
    ) -> TurnEnd:
        opened: list[OpenRun] = []

        async def open_run(turn: Turn) -> UpstreamRun:
            run = await self._open(turn, params, output)
            opened.append(run)
            self._runs.begin(run, turn)
            await self._runs.record(run)
            return run.run

        try:
            end = await turn.execute(
                self._sessions.store, open_run, queued_ms=queued_ms, clock=self._clock, logger=self._logger
            )
            for run in opened[-1:]:  # one before it had died and got nothing
                run.ended(end.outcome)
            return end
        finally:
            for run in opened:
                if run.record is None:
                    await self._close(run)  # there is no process to wait for
                else:
                    with anyio.CancelScope(shield=True):
                        await self._close(run)

    async def _open(self, turn: Turn, params: QueryRunParams, output: OutputSchema | None) -> OpenRun:
        if turn.choice.upstream == "messages_api":
            return await self._runs.open_direct(
                turn.session,
                params,
                turn=turn,
                output=output,
                resumed=not turn.new_session,
            )
        instruction = None if output is None else output.instruction
        return await self._runs.open(turn.session, params, turn.caller, instruction)

    async def _close(self, run: OpenRun) -> None:
        """End the process. The turn has its end already, so nothing that goes wrong here changes it."""
        try:
            await self._runs.close(run)
        except Exception:
            self._logger.exception("run could not be closed")

    def _turn(
        self,
        submission: Submission,
        session: SessionRow,
        deadline: Deadline,
        choice: Choice,
        output: OutputSchema | None,
        turn_id: str,
    ) -> Turn:
        params = submission.params
        return Turn(
            turn_id=turn_id,
            session=session,
            new_session=params.session_id is None and params.fork is None,
            prompt=params.prompt,
            message_id=self._new_id(),
            given_message_id=params.message_id,
            request_digest=submission.digest,
            caller=submission.caller,
            channel=self._sessions.channel_of(session),
            deadline=deadline,
            choice=choice,
            output=output,
        )
