"""A stream's process sleeps, wakes with its conversation, and is replaced when it has grown."""

from typing import Any

from dragoman_protocol.stream import StreamSendParams, TurnCompleted
from dragomand.upstream.interface import Failure, UpstreamError


async def opened(engine: Any, kit: Any) -> tuple[str, Any]:
    session_id, channel = await engine.streams.open(engine.opening(), kit.caller())
    watcher = kit.Watcher()
    channel.subscribe(watcher)
    return session_id, watcher


async def turn(engine: Any, kit: Any, session_id: str, watcher: Any, times: int) -> str:
    await engine.streams.send(StreamSendParams(session_id=session_id, prompt="more"), kit.caller())
    await watcher.sees(TurnCompleted, times=times)
    status: str = watcher.seen[-1].params.event.status
    return status


async def test_it_sleeps_while_watched_and_wakes_with_its_conversation(kit: Any) -> None:
    async with kit.engine(sleep_s=0.01) as engine:
        session_id, watcher = await opened(engine, kit)
        assert await turn(engine, kit, session_id, watcher, 1) == "completed"
        await kit.until(lambda: engine.upstream.runs[0].closed)
        assert engine.streams.count == 1, "it is open for its clients all the time"
        assert await turn(engine, kit, session_id, watcher, 2) == "completed"
        spec = engine.upstream.runs[1].spec
        assert spec.resume == engine.upstream.runs[0].upstream_session_id
        await engine.streams.close(session_id)
        assert engine.upstream.runs[1].closed


async def test_put_to_sleep_before_its_first_turn_it_begins_anew(kit: Any) -> None:
    async with kit.engine(sleep_s=0.001) as engine:
        session_id, watcher = await opened(engine, kit)
        await kit.until(lambda: engine.upstream.runs[0].closed)
        assert await turn(engine, kit, session_id, watcher, 1) == "completed"
        assert engine.upstream.runs[1].spec.resume is None
        await engine.streams.close(session_id)


async def test_after_so_many_turns_the_process_is_replaced(kit: Any) -> None:
    async with kit.engine(recycle_turns=2) as engine:
        session_id, watcher = await opened(engine, kit)
        for times in (1, 2):
            await turn(engine, kit, session_id, watcher, times)
        await kit.until(lambda: engine.upstream.runs[0].closed)
        for times in (3, 4):
            await turn(engine, kit, session_id, watcher, times)
        assert [run.turns for run in engine.upstream.runs] == [2, 2]
        await engine.streams.close(session_id)


async def test_a_process_that_has_grown_is_replaced(kit: Any) -> None:
    async with kit.engine(recycle_bytes=1000) as engine:
        session_id, watcher = await opened(engine, kit)
        engine.upstream.runs[0].memory_bytes = 1000
        await turn(engine, kit, session_id, watcher, 1)
        assert not engine.upstream.runs[0].closed
        engine.upstream.runs[0].memory_bytes = 1001
        await turn(engine, kit, session_id, watcher, 2)
        await kit.until(lambda: engine.upstream.runs[0].closed)
        assert await turn(engine, kit, session_id, watcher, 3) == "completed"
        await engine.streams.close(session_id)


async def test_when_memory_is_short_only_those_sleep_in_which_nothing_runs(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, _ = await opened(engine, kit)
        busy_id, busy = await opened(engine, kit)
        engine.upstream.scripts.append(gate := kit.Gated())
        await engine.streams.send(StreamSendParams(session_id=busy_id, prompt="go"), kit.caller())
        await kit.soon(gate.reached)
        engine.streams.rest()
        await kit.until(lambda: engine.upstream.runs[0].closed)
        assert not engine.upstream.runs[1].closed
        gate.go.set()
        await busy.sees(TurnCompleted)
        for each in (session_id, busy_id):
            await engine.streams.close(each)


async def test_what_cannot_be_resumed_ends_the_stream_and_says_so(kit: Any) -> None:
    async with kit.engine(sleep_s=0.01) as engine:
        session_id, watcher = await opened(engine, kit)
        await turn(engine, kit, session_id, watcher, 1)
        await kit.until(lambda: engine.upstream.runs[0].closed)
        engine.upstream.open_errors.append(UpstreamError(Failure("crash", "no such luck")))
        assert await turn(engine, kit, session_id, watcher, 2) == "failed"
        assert watcher.seen[-1].params.event.error["kind"] == "claude_crashed"
        await kit.until(lambda: engine.streams.count == 0)
        assert len(engine.upstream.runs) == 1
