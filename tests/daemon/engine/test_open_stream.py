"""A stream's process sleeps, wakes with its conversation, and is replaced when it has grown."""

from typing import Any

import anyio
import pytest
from dragoman_protocol.stream import ProcessStarted, StreamSendParams, TurnCompleted
from dragomand.engine import open_stream
from dragomand.upstream.interface import Failure, TurnOutcome, UpstreamError


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


def replacements(watcher: Any) -> list[Any]:
    """Return what was told of processes that took the place of others."""
    return [each.params.event for each in watcher.seen if isinstance(each.params.event, ProcessStarted)]


async def test_a_process_that_died_between_turns_is_replaced_and_said_so(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        assert await turn(engine, kit, session_id, watcher, 1) == "completed"
        engine.upstream.runs[0].alive = False
        assert await turn(engine, kit, session_id, watcher, 2) == "completed"
        first, second = engine.upstream.runs
        assert (first.closed, second.closed) == (True, False)
        assert second.spec.resume == first.upstream_session_id
        (told,) = replacements(watcher)
        assert (told.reason, told.start) == ("died", "cold")
        assert told.claude_session_id == second.upstream_session_id
        assert await turn(engine, kit, session_id, watcher, 3) == "completed"
        assert len(engine.upstream.runs) == 2, "it is used further"
        assert len(replacements(watcher)) == 1
        await engine.streams.close(session_id)
        await engine.check_whole(session_id)


@pytest.mark.parametrize("after", ["slept", "recycled", "pressure"])
async def test_why_there_is_another_process(kit: Any, after: str) -> None:
    figures = {"slept": {"sleep_s": 0.01}, "recycled": {"recycle_turns": 1}, "pressure": {}}
    async with kit.engine(**figures[after]) as engine:
        session_id, watcher = await opened(engine, kit)
        await turn(engine, kit, session_id, watcher, 1)
        if after == "pressure":
            engine.streams.rest()
        await kit.until(lambda: engine.upstream.runs[0].closed)
        await turn(engine, kit, session_id, watcher, 2)
        assert [told.reason for told in replacements(watcher)] == [after]
        await engine.streams.close(session_id)


async def test_one_that_dies_again_and_again_is_not_replaced_at_once(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        for times in (1, 2, 3):
            assert await turn(engine, kit, session_id, watcher, times) == "completed"
            engine.upstream.runs[-1].alive = False
        assert await turn(engine, kit, session_id, watcher, 4) == "failed"
        error = watcher.seen[-1].params.event.error
        assert error["kind"] == "claude_crashed"
        assert 9_000 < error["retryAfterMs"] <= 10_000
        assert len(engine.upstream.runs) == 3
        assert engine.streams.count == 1, "the stream stays open for later"
        now = anyio.current_time() + 11
        monkeypatch.setattr(open_stream.anyio, "current_time", lambda: now)
        assert await turn(engine, kit, session_id, watcher, 5) == "completed"
        monkeypatch.undo()
        await engine.streams.close(session_id)
        await engine.check_whole(session_id)


async def test_one_that_had_lived_long_did_not_die_of_its_start(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_stream, "LIVED_S", 0.0)
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        for times in range(1, 6):
            assert await turn(engine, kit, session_id, watcher, times) == "completed"
            engine.upstream.runs[-1].alive = False
        assert len(engine.upstream.runs) == 5
        await engine.streams.close(session_id)


async def test_a_message_that_was_never_sent_is_sent_to_the_next_process(kit: Any) -> None:
    async def unsent(turn: Any) -> TurnOutcome:
        turn.run.alive = False
        return TurnOutcome(status="failed", failure=Failure("crash", "it had died", unsent=True))

    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        await turn(engine, kit, session_id, watcher, 1)
        engine.upstream.scripts.append(unsent)
        assert await turn(engine, kit, session_id, watcher, 2) == "completed"
        assert [told.reason for told in replacements(watcher)] == ["died"]
        # Once: what fails the same way again is told.
        engine.upstream.scripts += [unsent, unsent]
        assert await turn(engine, kit, session_id, watcher, 3) == "failed"
        assert len(engine.upstream.prompts) == 5
        await kit.until(lambda: engine.streams.count == 0)


async def test_a_message_that_was_never_sent_and_no_process_for_it(kit: Any) -> None:
    async def unsent(turn: Any) -> TurnOutcome:
        turn.run.alive = False
        engine.upstream.open_errors.append(UpstreamError(Failure("missing", "gone")))
        return TurnOutcome(status="failed", failure=Failure("crash", "it had died", unsent=True))

    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        engine.upstream.scripts.append(unsent)
        assert await turn(engine, kit, session_id, watcher, 1) == "failed"
        assert watcher.seen[-1].params.event.error["kind"] == "claude_not_found"
        await engine.streams.close(session_id)
