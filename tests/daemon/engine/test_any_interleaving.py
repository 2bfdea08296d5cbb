"""Queries and streams started, continued, cancelled and stopped in any order: everything ends, and whole."""

import asyncio
from typing import Any

from dragoman_protocol.query import QueryRunResult
from dragoman_protocol.stream import StreamSendParams
from dragomand.engine.errors import EngineError
from hypothesis import given, settings
from hypothesis import strategies as st

ENDS = {
    "request_cancelled",
    "queue_full",
    "queue_timeout",
    "session_busy",
    "session_not_found",
    "stream_not_open",
    "message_conflict",
}
STEPS = (
    "query",
    "again",
    "twice",
    "open",
    "send",
    "attach",
    "go",
    "cancel",
    "interrupt",
    "close",
    "delete",
    "wait",
)

steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=30)


class Crowd:
    """Clients that do one thing after another, without waiting for its end."""

    def __init__(self, kit: Any, engine: Any) -> None:
        self.kit = kit
        self.engine = engine
        self.tasks: list[asyncio.Task[Any]] = []
        self.sessions: list[str] = []
        self.gates: list[Any] = []

    def gate(self) -> None:
        """The next turn waits to be let go."""
        self.gates.append(self.kit.Gated())
        self.engine.upstream.scripts.append(self.gates[-1])

    def begin(self, work: Any) -> None:
        """Carry *work* out in a task of its own."""
        self.tasks.append(asyncio.create_task(work))

    def session(self, which: int) -> str:
        """One of the sessions that are known, or one that does not exist."""
        return self.sessions[which % len(self.sessions)] if self.sessions else "none"

    def query(self, which: int, **chosen: Any) -> None:
        who = self.kit.caller(f"client-{which % 3}")
        self.gate()
        self.begin(self.engine.queries.run(self.engine.params(**chosen), who, started=self.sessions.append))

    async def open(self, which: int) -> None:
        session_id, _ = await self.engine.streams.open(self.engine.opening(), self.kit.caller())
        self.sessions.append(session_id)

    def step(self, what: str, which: int) -> None:
        engine, session_id = self.engine, self.session(which)
        if what == "query":
            self.query(which, priority="batch" if which % 2 else "interactive")
        elif what == "again":
            self.query(which, session_id=session_id, queue_timeout_ms=0 if which == 5 else None)
        elif what == "twice":
            self.query(which, message_id=f"m{which % 2}")
        elif what == "open":
            self.begin(self.open(which))
        elif what == "send":
            self.gate()
            params = StreamSendParams(
                session_id=session_id, prompt="hi", message_id=None if which % 2 else "m9"
            )
            self.begin(engine.streams.send(params, self.kit.caller()))
        elif what == "attach":
            self.begin(
                engine.attachments.attach(
                    session_id, None, "c", lambda _event: which != 3, lambda _cursor: None
                )
            )
        elif what == "go" and self.gates:
            self.gates[which % len(self.gates)].go.set()
        elif what == "cancel" and self.tasks:
            self.tasks[which % len(self.tasks)].cancel()
        elif what == "interrupt":
            turn = engine.streams.turn_of(session_id) or engine.queries.turn_of(session_id)
            if turn is not None:
                turn.stop("client")
        elif what == "close":
            self.begin(engine.streams.close(session_id))
        elif what == "delete":
            self.begin(engine.sessions.delete(session_id))


@settings(max_examples=60, deadline=None)
@given(steps=steps, max_running=st.integers(1, 3), shutdown=st.booleans())
def test_any_interleaving(
    new_kit: Any, steps: list[tuple[str, int]], max_running: int, shutdown: bool
) -> None:
    async def run() -> None:
        kit = new_kit()
        async with kit.engine(max_running=max_running, max_queued=4, max_queued_per_client=3) as engine:
            crowd = Crowd(kit, engine)
            for what, which in steps:
                crowd.step(what, which)
                for _ in range(10 * which if what == "wait" else which % 2):
                    await asyncio.sleep(0)
            if shutdown:
                engine.permissions.deny_all()
                engine.queries.stop_all()
                engine.streams.stop_all()
            for gate in crowd.gates:
                gate.go.set()
            async with asyncio.timeout(kit.PATIENCE_S):
                ends = await asyncio.gather(*crowd.tasks, return_exceptions=True)
                for end in ends:
                    if isinstance(end, EngineError):
                        allowed = ENDS | {"draining", "turn_interrupted"} if shutdown else ENDS
                        assert end.kind in allowed, end
                    elif isinstance(end, QueryRunResult):
                        assert end.text in ("half and half", "hello")
                    else:
                        assert not isinstance(end, Exception), end
                engine.streams.stop_all()
                await kit.until(lambda: engine.streams.count == 0 and engine.queries.live == 0)
            engine.attachments.leave("c")
            rows, _ = await engine.store.sessions(limit=100, cursor=None)
            for row in rows:
                await engine.check_whole(row.session_id)
            engine.check_idle()

    asyncio.run(run())
