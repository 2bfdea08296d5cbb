"""`query/run`: load session → `admit()` → open turn → run → number and publish → close turn → settle.

The turn runs in a task of the engine's, so it ends in order whatever becomes of the one who waits for it. A
`messageId` makes a submission exactly-once: while it runs, further submissions wait for the same end; later ones
get the stored answer.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
import msgspec
from anyio.abc import TaskGroup
from dragoman_protocol.content import Prompt, prompt_text
from dragoman_protocol.query import QueryRunParams, QueryRunResult
from dragoman_protocol.stream import AssistantText, Waiting

from dragomand.store.errors import DuplicateMessageError
from dragomand.store.rows import SessionRow, TurnRow
from dragomand.upstream.interface import UpstreamRun

from . import options, working_directory
from .admission import Admission
from .auth import Auth
from .caller import Caller
from .channel import Published, Subscriber
from .deadline import Deadline
from .errors import EngineError
from .records import to_event
from .runs import OpenRun, Runs
from .sessions import Sessions, storage_errors, usage_of
from .turn import Turn, TurnEnd

STOP_PATIENCE_S = 12.0
"""How long, in seconds, one who cancelled waits for the turn's end: an interrupt and then the closing ladder."""

TITLE_CHARS = 80


@dataclass(slots=True)
class QueryLimits:
    """What a query may take; milliseconds."""

    timeout_ms: int
    queue_timeout_ms: int
    roots: list[str]
    allowed_env: list[str]


@dataclass(slots=True, eq=False)
class _Submission:
    """One query on its way, and all who wait for it."""

    params: QueryRunParams
    caller: Caller
    digest: str
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Ends the waiting before the turn begins."""
    session_id: str = ""
    turn: Turn | None = None
    waiters: int = 0
    subscribers: list[Subscriber] = field(default_factory=list)
    started: list[Callable[[str], None]] = field(default_factory=list)
    result: QueryRunResult | None = None
    error: EngineError | None = None
    stopped: bool = False

    def hear(self, started: Callable[[str], None]) -> None:
        """Tell *started* the session's id, now or as soon as it is known."""
        if self.session_id:
            started(self.session_id)
        else:
            self.started.append(started)

    def in_session(self, session_id: str) -> None:
        """The session is known."""
        self.session_id = session_id
        for started in self.started:
            started(session_id)
        self.started.clear()

    def stop(self, *, shutdown: bool = False) -> None:
        """Stop it wherever it is."""
        self.stopped = True
        if self.turn is None:
            self.scope.cancel()
        else:
            self.turn.stop("shutdown" if shutdown else "client")


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
        limits: QueryLimits,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        logger: logging.Logger,
    ) -> None:
        """Run queries in *tasks*; *clock* gives Unix seconds, *new_id* UUIDs."""
        self._tasks = tasks
        self._auth = auth
        self._admission = admission
        self._sessions = sessions
        self._runs = runs
        self._limits = limits
        self._clock = clock
        self._new_id = new_id
        self._logger = logger
        self._live: set[_Submission] = set()
        self._by_message: dict[str, _Submission] = {}

    @property
    def live(self) -> int:
        """How many queries have not ended."""
        return len(self._live)

    async def run(
        self,
        params: QueryRunParams,
        caller: Caller,
        *,
        started: Callable[[str], None] | None = None,
        subscriber: Subscriber | None = None,
    ) -> QueryRunResult:
        """Run one turn and return its end.

        *started* hears the session's id as soon as it is known, *subscriber* every event. When the caller is
        cancelled and nobody else waits for the same submission, the turn is stopped, and `request_cancelled`
        is raised with what had been said. Raises `EngineError`; see the method's table for the kinds.
        """
        self._auth.require()
        options.check_upstream(params.upstream)
        options.check(params, caller, self._limits.allowed_env)
        submission = self._submit(params, caller)
        joined = submission.waiters > 0
        submission.waiters += 1
        if subscriber is not None:
            submission.subscribers.append(subscriber)
        if started is not None:
            submission.hear(started)
        try:
            await submission.done.wait()
        except anyio.get_cancelled_exc_class():
            if submission.waiters == 1:
                submission.stop()
                with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_PATIENCE_S):
                    await submission.done.wait()
            raise submission.error or EngineError("request_cancelled") from None
        finally:
            submission.waiters -= 1
            if subscriber is not None:
                submission.subscribers.remove(subscriber)
        if submission.error is not None:
            raise submission.error
        assert submission.result is not None
        return msgspec.structs.replace(submission.result, replayed=True) if joined else submission.result

    def turn_of(self, session_id: str) -> Turn | None:
        """Return the turn that a query runs in this session now."""
        for submission in self._live:
            if submission.turn is not None and submission.session_id == session_id:
                return submission.turn
        return None

    def stop_all(self) -> None:
        """The daemon is stopping: end every query."""
        for submission in list(self._live):
            submission.stop(shutdown=True)

    # -- one submission

    def _submit(self, params: QueryRunParams, caller: Caller) -> _Submission:
        asked = options.digest(params)
        known = self._by_message.get(params.message_id) if params.message_id is not None else None
        if known is not None:
            _same_request(params.message_id, known.digest, asked)
            return known
        submission = _Submission(params=params, caller=caller, digest=asked)
        self._live.add(submission)
        if params.message_id is not None:
            self._by_message[params.message_id] = submission
        self._tasks.start_soon(self._carry_out, submission)
        return submission

    async def _carry_out(self, submission: _Submission) -> None:
        try:
            with submission.scope:
                submission.result = await self._replay(submission) or await self._run(submission)
            if submission.result is None and submission.error is None:
                submission.error = EngineError("draining" if not submission.stopped else "request_cancelled")
        except EngineError as error:
            submission.error = error
        except Exception as unexpected:
            self._logger.exception("query failed")
            submission.error = EngineError("internal_error", detail=type(unexpected).__name__)
        finally:
            self._live.discard(submission)
            if submission.params.message_id is not None:
                self._by_message.pop(submission.params.message_id, None)
            submission.done.set()

    async def _run(self, submission: _Submission) -> QueryRunResult:
        params, caller = submission.params, submission.caller
        deadline_ms = params.timeout_ms or self._limits.timeout_ms
        deadline = Deadline(deadline_ms / 1000)
        session, is_new = await self._session(params)
        submission.in_session(session.session_id)
        channel = self._sessions.channel_of(session)
        unsubscribe = channel.subscribe(lambda event: _pass_on(submission, event))
        try:
            with self._sessions.claim(session.session_id, "turn"):
                async with self._admission.admit(
                    caller.id,
                    priority=params.priority,
                    timeout_s=self._queue_timeout_s(params, deadline_ms),
                    waiting=lambda reason, ahead: channel.publish(Waiting(reason=reason, position=ahead)),
                ) as permit:
                    turn = submission.turn = self._turn(submission, session, is_new, deadline)
                    end = await self._execute(turn, params, permit.queued_ms)
        finally:
            unsubscribe()
            self._sessions.tidy(session.session_id)
        if end.error is not None:
            raise end.error
        return _result(end.row, end.text, session.claude_session_id)

    async def _execute(self, turn: Turn, params: QueryRunParams, queued_ms: int) -> TurnEnd:
        opened: list[OpenRun] = []

        async def open_run(turn: Turn) -> UpstreamRun:
            opened.append(await self._runs.open(turn.session, params))
            opened[0].turn = turn
            await self._runs.record(opened[0], turn.session)
            return opened[0].run

        try:
            return await turn.execute(
                self._sessions.store, open_run, queued_ms=queued_ms, clock=self._clock, logger=self._logger
            )
        except DuplicateMessageError as duplicate:  # it came in over two submissions in the same instant
            raise EngineError("message_conflict", str(duplicate), message_id=params.message_id) from None
        finally:
            if opened:
                with anyio.CancelScope(shield=True):
                    await self._runs.close(opened[0])

    def _turn(self, submission: _Submission, session: SessionRow, is_new: bool, deadline: Deadline) -> Turn:
        params = submission.params
        return Turn(
            turn_id=self._new_id(),
            session=session,
            new_session=is_new,
            prompt=params.prompt,
            message_id=self._new_id(),
            given_message_id=params.message_id,
            request_digest=submission.digest,
            caller=submission.caller,
            channel=self._sessions.channel_of(session),
            deadline=deadline,
        )

    async def _session(self, params: QueryRunParams) -> tuple[SessionRow, bool]:
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
        return new_session(
            self._new_id, self._clock(), str(cwd), params.prompt, params.title, params.tags, params.model
        ), True

    def _queue_timeout_s(self, params: QueryRunParams, deadline_ms: int) -> float | None:
        given = params.queue_timeout_ms
        if given is None and params.priority == "interactive":
            given = self._limits.queue_timeout_ms
        return min(deadline_ms if given is None else given, deadline_ms) / 1000

    # -- exactly once

    async def _replay(self, submission: _Submission) -> QueryRunResult | None:
        """Return the stored answer of a message that was run before; raises its stored error."""
        message_id = submission.params.message_id
        if message_id is None:
            return None
        store = self._sessions.store
        with storage_errors():
            turn = await store.turn_by_message(message_id)
        if turn is None:
            return None
        _same_request(message_id, turn.request_digest, submission.digest)
        submission.in_session(turn.session_id)
        if turn.status != "completed":
            raise _stored_error(turn)
        with storage_errors():
            items = await store.turn_items(turn.turn_id)
            session = await store.session(turn.session_id)
        texts = [event.text for event in map(to_event, items) if isinstance(event, AssistantText)]
        claude_session_id = session.claude_session_id if session else None
        result = _result(turn, texts[-1] if texts else "", claude_session_id)
        return msgspec.structs.replace(result, replayed=True)


def new_session(
    new_id: Callable[[], str],
    now: float,
    cwd: str,
    prompt: Prompt,
    title: str | None,
    tags: list[str] | None,
    model: str | None,
) -> SessionRow:
    """Make the row of a session that does not exist yet; its title is the first line of what is asked."""
    lines = prompt_text(prompt).strip().splitlines()
    return SessionRow(
        session_id=new_id(),
        created_at=now,
        updated_at=now,
        cwd=cwd,
        title=title or (lines[0][:TITLE_CHARS] if lines else None),
        model=model,
        tags=tuple(tags or ()),
        epoch=new_id(),
    )


def _pass_on(submission: _Submission, event: Published) -> None:
    for subscriber in submission.subscribers:
        subscriber(event)


def _same_request(message_id: str | None, first: str | None, second: str) -> None:
    if first != second:
        raise EngineError(
            "message_conflict",
            f"The messageId {message_id!r} was used for another request; make a new one for each prompt.",
            message_id=message_id,
        )


def _result(row: TurnRow, text: str, claude_session_id: str | None) -> QueryRunResult:
    return QueryRunResult(
        session_id=row.session_id,
        turn_id=row.turn_id,
        text=text,
        upstream="claudeCode",
        model=row.model,
        stop_reason=row.stop_reason,
        usage=usage_of(row),
        cost_usd=row.cost_usd,
        duration_ms=row.duration_ms or 0,
        queued_ms=row.queued_ms,
        claude_session_id=claude_session_id,
    )


def _stored_error(turn: TurnRow) -> EngineError:
    about = {"session_id": turn.session_id, "turn_id": turn.turn_id}
    if turn.status == "failed" and turn.error:
        facts = msgspec.json.decode(turn.error)
        return EngineError(facts.pop("kind"), facts.pop("message", None), **{**facts, **about})
    if turn.status == "cancelled":
        return EngineError("request_cancelled", **about)
    return EngineError("turn_interrupted", message_id=turn.message_id, **about)
