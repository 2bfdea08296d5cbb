"""An engine without a daemon: a real store in a temporary folder, and a stand-in for the upstream.

The stand-in exists so that every interleaving can be forced: a turn is a small script that the test steps
through with events. What it says of Claude Code is nothing; the real CLI runs in the tests of `upstream`.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from dragoman_protocol.content import Prompt
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams
from dragoman_protocol.query import QueryRunParams
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import AssistantText, Event, StreamOpenParams, TextDelta
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.agents import Agents
from dragomand.engine.attachments import Attachments
from dragomand.engine.auth import Auth
from dragomand.engine.budgets import Budgets
from dragomand.engine.caller import Approver, Caller
from dragomand.engine.calls import Calls
from dragomand.engine.channel import Published
from dragomand.engine.errors import EngineError
from dragomand.engine.limit_settings import LimitSettings
from dragomand.engine.open_stream import StreamTimes
from dragomand.engine.orchestrations import Orchestrations
from dragomand.engine.permissions import Permissions
from dragomand.engine.queries import Queries
from dragomand.engine.query_limits import QueryLimits
from dragomand.engine.runs import Runs
from dragomand.engine.sessions import Sessions
from dragomand.engine.statistics import Statistics
from dragomand.engine.streams import Streams
from dragomand.store.store import Store
from dragomand.upstream.interface import (
    ApiAccess,
    AskPermission,
    EventSink,
    Failure,
    PermissionAnswer,
    PermissionAsk,
    Rewound,
    RunSpec,
    TurnOutcome,
)

PRESETS = Path(Agents.__init__.__code__.co_filename).parents[1] / "agents"
"""The agents that are shipped."""
PATIENCE_S = 30.0
"""Longest wait for anything; only a failing test waits so long."""

Script = Callable[["TurnOnRun"], Awaitable[TurnOutcome]]
"""What the stand-in does for one turn."""


class TurnOnRun:
    """One turn on the stand-in, as its script sees it."""

    def __init__(self, run: "ScriptedRun", prompt: Prompt, message_id: str, sink: EventSink) -> None:
        self.run = run
        self.prompt = prompt
        self.message_id = message_id
        self.sink = sink
        self.interrupted = asyncio.Event()

    def say(self, text: str, *, item: str = "text-1", offset: int = 0) -> None:
        """One delta."""
        self.sink(TextDelta(item_id=item, offset=offset, text=text))

    def said(self, text: str, *, item: str = "text-1") -> None:
        """One whole text."""
        self.sink(AssistantText(item_id=item, text=text))

    async def may(self, tool: str = "Write", **tool_input: Any) -> PermissionAnswer:
        """Ask for a permission, in a task of its own as the real upstream does."""
        ask = PermissionAsk(tool_name=tool, input=tool_input, tool_use_id="tool-1", reason=None)
        return await asyncio.create_task(self.run.ask(ask))  # type: ignore[arg-type]


class ScriptedRun:
    """A run of the stand-in."""

    def __init__(self, upstream: "ScriptedUpstream", spec: RunSpec, ask: AskPermission) -> None:
        self.upstream = upstream
        self.spec = spec
        self.ask: Callable[[PermissionAsk], Coroutine[Any, Any, PermissionAnswer]] = ask  # type: ignore[assignment]
        opened = spec.session_id if spec.fork else spec.resume or spec.session_id
        self.upstream_session_id: str | None = opened
        self.version: str | None = "9.9.9"
        self.api_access: ApiAccess | None = self.upstream.api_access
        self.warm: bool | None = False
        self.alive = True
        self.memory_bytes: int | None = None
        self.pid: int | None = self.upstream.pid
        self.turn: TurnOnRun | None = None
        self.turns = 0
        self.closed = False
        self.cancelled = False

    async def send(self, prompt: Prompt, message_id: str, sink: EventSink) -> TurnOutcome:
        assert self.turn is None, "two turns at once on one run"
        assert not self.closed, "a turn on a closed run"
        turn = self.turn = TurnOnRun(self, prompt, message_id, sink)
        self.turns += 1
        self.upstream.prompts.append(prompt)
        self.upstream.sent.set()
        script = self.upstream.scripts.pop(0) if self.upstream.scripts else answering("hello")
        try:
            return await script(turn)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.turn = None

    async def interrupt(self) -> bool:
        self.upstream.interrupts += 1
        if self.turn is None:
            return False
        self.turn.interrupted.set()
        return True

    async def rewind_files(self, message_id: str, *, dry_run: bool) -> Rewound:
        self.upstream.rewound.append((message_id, dry_run))
        if self.upstream.hold_rewind is not None:
            await self.upstream.hold_rewind.wait()
        if self.upstream.rewind_error is not None:
            raise self.upstream.rewind_error
        return Rewound(files=("/a/file",), insertions=1, deletions=2)

    async def close(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        self.closed = True
        self.upstream.closed.append(self)
        if self.upstream.close_error is not None:
            raise self.upstream.close_error


@dataclass
class ScriptedUpstream:
    """The stand-in: opens runs at once unless `hold_open`, and plays `scripts` one a turn."""

    scripts: list[Script] = field(default_factory=list)
    runs: list[ScriptedRun] = field(default_factory=list)
    closed: list[ScriptedRun] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    interrupts: int = 0
    open_errors: list[Exception] = field(default_factory=list)
    close_error: Exception | None = None
    api_access: ApiAccess | None = None
    pid: int | None = None
    opening: asyncio.Event = field(default_factory=asyncio.Event)
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    hold_open: asyncio.Event | None = None
    rewound: list[tuple[str, bool]] = field(default_factory=list)
    rewind_error: Exception | None = None
    hold_rewind: asyncio.Event | None = None

    async def open(self, spec: RunSpec, ask: AskPermission) -> ScriptedRun:
        self.opening.set()
        if self.hold_open is not None:
            await self.hold_open.wait()
        if self.open_errors:
            raise self.open_errors.pop(0)
        run = ScriptedRun(self, spec, ask)
        self.runs.append(run)
        return run

    async def close(self) -> None:
        for run in self.runs:
            await run.close()


def answering(text: str, **outcome: Any) -> Script:
    """A turn that says *text* and completes."""

    async def script(turn: TurnOnRun) -> TurnOutcome:
        turn.say(text)
        turn.said(text)
        given = {
            "usage": Usage(input_tokens=3, output_tokens=5),
            "model": "claude-x",
            "stop_reason": "end_turn",
            "message_count": 2,
            "leaf_id": f"leaf of {text}",
            **outcome,
        }
        return TurnOutcome(status="completed", text=text, **given)

    return script


class Gated:
    """A turn that says *before*, waits to be let go or interrupted, then says the rest."""

    def __init__(self, before: str = "half", after: str = " and half", *, stubborn: bool = False) -> None:
        self.before = before
        self.after = after
        self.stubborn = stubborn
        """It does not end when it is interrupted."""
        self.go = asyncio.Event()
        self.reached = asyncio.Event()
        self.turn: TurnOnRun | None = None

    async def __call__(self, turn: TurnOnRun) -> TurnOutcome:
        self.turn = turn
        turn.say(self.before)
        self.reached.set()
        stops = [asyncio.ensure_future(self.go.wait())]
        if not self.stubborn:
            stops.append(asyncio.ensure_future(turn.interrupted.wait()))
        try:
            await asyncio.wait(stops, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for stop in stops:
                stop.cancel()
        if not self.go.is_set():
            return TurnOutcome(status="interrupted", message_count=1)
        whole = self.before + self.after
        turn.say(self.after, offset=len(self.before))
        turn.said(whole)
        return TurnOutcome(status="completed", text=whole, message_count=2)


def failing(category: Any, message: str = "it failed", **facts: Any) -> Script:
    """A turn that fails."""

    async def script(turn: TurnOnRun) -> TurnOutcome:
        return TurnOutcome(status="failed", failure=Failure(category, message, **facts), message_count=1)

    return script


@dataclass
class Engine:
    """Everything that `app` would construct of the engine."""

    store: Store
    upstream: ScriptedUpstream
    tasks: anyio.abc.TaskGroup
    cwd: Path
    admission: Admission
    calls: Calls
    sessions: Sessions
    permissions: Permissions
    runs: Runs
    queries: Queries
    streams: Streams
    attachments: Attachments
    orchestrations: Orchestrations
    budgets: Budgets
    statistics: Statistics
    limit_settings: LimitSettings

    def params(self, prompt: Prompt = "hi", **chosen: Any) -> QueryRunParams:
        """A query in the engine's folder."""
        if "session_id" not in chosen:
            chosen.setdefault("cwd", str(self.cwd))
        return QueryRunParams(prompt=prompt, **chosen)

    def opening(self, **chosen: Any) -> StreamOpenParams:
        """A stream in the engine's folder."""
        if "session_id" not in chosen:
            chosen.setdefault("cwd", str(self.cwd))
        return StreamOpenParams(**chosen)

    async def events(self, session_id: str) -> list[Event]:
        """The stored events of a session."""
        from dragomand.engine.records import to_event

        return [to_event(row) for row in await self.store.items(session_id, limit=1000)]

    async def check_whole(self, session_id: str) -> None:
        """Every turn of the session has begun and ended, and its numbers have no gap."""
        rows = await self.store.items(session_id, limit=1000)
        assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
        for turn in await self.store.turns(session_id):
            kinds = [row.kind for row in rows if row.turn_id == turn.turn_id]
            assert kinds[:2] == ["turn_started", "user_message"]
            assert kinds[-1] == "turn_completed"
            assert kinds.count("turn_completed") == 1
            assert turn.status != "running"

    def check_idle(self) -> None:
        """Nothing is left over: no permit, place, claim, channel, question, process."""
        assert (self.admission.running, self.admission.queued) == (0, 0)
        assert self.queries.live == 0
        assert self.sessions.open == 0
        assert self.permissions.pending == 0
        assert self.attachments.open == 0
        assert not self.sessions._channels
        assert not self.streams.count
        assert all(run.closed for run in self.upstream.runs)


def caller(
    client: str = "client-1", *, approver: Approver | None = None, scopes: str = "query tools approve"
) -> Caller:
    """A client."""
    return Caller(id=client, name=f"name of {client}", scopes=frozenset(scopes.split()), approver=approver)


class Person:
    """A client's person who answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[PermissionRequestParams] = []
        self.was_asked = asyncio.Event()
        self.withdrawn = 0
        self._answer: asyncio.Future[PermissionDecision] = asyncio.get_running_loop().create_future()

    async def __call__(self, question: PermissionRequestParams) -> PermissionDecision:
        self.asked.append(question)
        self.was_asked.set()
        try:
            return await asyncio.shield(self._answer)
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise

    def says(self, decision: Any, **more: Any) -> None:
        """Answer."""
        self._answer.set_result(PermissionDecision(decision=decision, **more))

    def goes(self) -> None:
        """The connection breaks."""
        self._answer.set_exception(ConnectionError("gone"))


class Watcher:
    """A subscriber that keeps everything, and can be waited for."""

    def __init__(self) -> None:
        self.seen: list[Published] = []
        self._waiting: list[tuple[Callable[[Published], bool], asyncio.Event]] = []

    def __call__(self, event: Published) -> None:
        self.seen.append(event)
        for matches, found in self._waiting:
            if matches(event):
                found.set()

    @property
    def kinds(self) -> list[str]:
        """The names of what was seen."""
        return [type(event.params.event).__name__ for event in self.seen]

    async def sees(self, *kinds: type, times: int = 1) -> None:
        """Wait until it has seen each of *kinds* so often."""
        for kind in kinds:

            def matches(_event: Published, kind: type = kind) -> bool:
                return sum(isinstance(seen.params.event, kind) for seen in self.seen) >= times

            found = asyncio.Event()
            self._waiting.append((matches, found))
            if not matches(self.seen[0] if self.seen else None):  # type: ignore[arg-type]
                async with asyncio.timeout(PATIENCE_S):
                    await found.wait()


@asynccontextmanager
async def group_of_its_own() -> AsyncIterator[anyio.abc.TaskGroup]:
    """A task group that can be cancelled without cancelling the test: its host is a task of its own."""
    ready: asyncio.Future[anyio.abc.TaskGroup] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def host() -> None:
        async with anyio.create_task_group() as tasks:
            ready.set_result(tasks)
            await leave.wait()

    hosting = asyncio.create_task(host())
    try:
        yield await ready
    finally:
        leave.set()
        async with asyncio.timeout(PATIENCE_S):
            await hosting


@asynccontextmanager
async def an_engine(folder: Path, **chosen: Any) -> AsyncIterator[Engine]:
    """An engine with a store in *folder*; *chosen* replaces the figures below."""
    figures = {
        "max_running": 4,
        "attempts": 1,
        "ancestors": lambda _pid: (),
        "max_queued": 20,
        "max_queued_per_client": 10,
        "timeout_ms": 60_000,
        "queue_timeout_ms": 60_000,
        "permission_timeout_s": 60.0,
        "max_open": 3,
        "idle_s": 60.0,
        "sleep_s": 60.0,
        "recycle_turns": 100,
        "recycle_bytes": 1 << 30,
        "api_key": "sk-test",
        "max_calls": 16,
        "direct": None,
        "direct_model": None,
        **chosen,
    }
    cwd = folder / "work"
    os.makedirs(cwd, exist_ok=True)
    ids = itertools.count(1)
    instants = itertools.count(1_000_000)
    logger = logging.getLogger("test.engine")

    def new_id() -> str:
        return f"{next(ids):032d}"

    def clock() -> float:
        return float(next(instants))

    async with AsyncExitStack() as stack:
        store = await Store.open(str(folder / "store.db"), clock=clock)
        stack.push_async_callback(store.close)
        tasks = await stack.enter_async_context(group_of_its_own())
        upstream = ScriptedUpstream()
        auth = Auth(api_key=figures["api_key"], environment={}, claude_config_dir=str(folder / "claude"))
        names = ("max_running", "max_queued", "max_queued_per_client", "max_calls", "attempts")
        bounds = {name: figures[name] for name in names}
        admission = Admission(DoorSettings(**bounds), clock=asyncio.get_running_loop().time)
        sessions = Sessions(store, clock)
        permissions = Permissions(
            timeout_s=figures["permission_timeout_s"], clock=clock, new_id=new_id, logger=logger
        )
        budgets = Budgets(
            store, tasks=tasks, clock=clock, tell=lambda _: None, ask_timeout_s=20.0, logger=logger
        )
        await budgets.load()
        limit_settings = LimitSettings(store, [], lambda _: None)
        await limit_settings.load()
        queue_timeout_s = figures["queue_timeout_ms"] / 1000
        calls = Calls(admission, clock=clock, queue_timeout_s=queue_timeout_s, budgets=budgets)
        runs = Runs(
            upstream=upstream,
            direct=figures["direct"],
            store=store,
            permissions=permissions,
            clock=clock,
            new_id=new_id,
            calls=calls,
            ancestors=figures["ancestors"],
            direct_model=figures["direct_model"],
        )
        agents = Agents(PRESETS, folder / "agents")
        limits = QueryLimits(
            timeout_ms=figures["timeout_ms"],
            queue_timeout_ms=figures["queue_timeout_ms"],
            roots=[str(folder)],
            allowed_env=["PATH", "LANG"],
        )
        parts: dict[str, Any] = {
            "tasks": tasks,
            "auth": auth,
            "admission": admission,
            "sessions": sessions,
            "runs": runs,
            "budgets": budgets,
            "agents": agents,
            "limits": limits,
            "clock": clock,
            "new_id": new_id,
            "logger": logger,
        }
        queries = Queries(**parts)
        times = StreamTimes(
            idle_s=figures["idle_s"],
            sleep_s=figures["sleep_s"],
            recycle_turns=figures["recycle_turns"],
            recycle_bytes=figures["recycle_bytes"],
        )
        streams = Streams(**parts, max_open=figures["max_open"], times=times)
        engine = Engine(
            store=store,
            upstream=upstream,
            tasks=tasks,
            cwd=cwd,
            admission=admission,
            calls=calls,
            sessions=sessions,
            permissions=permissions,
            runs=runs,
            queries=queries,
            streams=streams,
            attachments=Attachments(sessions),
            orchestrations=Orchestrations(queries),
            budgets=budgets,
            statistics=Statistics(store, clock),
            limit_settings=limit_settings,
        )
        try:
            yield engine
        finally:
            permissions.deny_all()
            queries.stop_all()
            streams.stop_all()


class Kit:
    """What the tests here share, as test modules cannot import each other."""

    PATIENCE_S = PATIENCE_S
    Gated = Gated
    Person = Person
    Watcher = Watcher
    answering = staticmethod(answering)
    failing = staticmethod(failing)
    caller = staticmethod(caller)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def engine(self, **chosen: Any) -> Any:
        """An engine for an `async with` block: nothing of it outlives the block."""
        return an_engine(self.folder, **chosen)

    @staticmethod
    async def soon(event: asyncio.Event) -> None:
        """Wait for *event*, which must come."""
        async with asyncio.timeout(PATIENCE_S):
            await event.wait()

    @staticmethod
    async def ended(task: "asyncio.Task[Any]") -> Any:
        """Return what *task* returns, or the `EngineError` that it raises."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await task
            except EngineError as error:
                return error

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        """Let the loop run until *condition* holds; for what nobody can be told of by an event."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # there is no event, that is why
                await asyncio.sleep(0)

    @staticmethod
    async def refused(kind: str, work: Awaitable[Any]) -> EngineError:
        """Return the `EngineError` of *kind* that *work* raises."""
        with pytest.raises(EngineError) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await work
        assert caught.value.kind == kind, caught.value
        return caught.value


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """The shared parts, with a folder of its own."""
    return Kit(tmp_path)


@pytest.fixture(scope="session")
def new_kit(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Kit]:
    """Makes a kit for each example of a property."""
    return lambda: Kit(tmp_path_factory.mktemp("engine"))
