"""A `messageId` makes a submission exactly-once."""

import asyncio
from typing import Any

import msgspec
import pytest
from dragomand.upstream.interface import TurnOutcome


async def test_the_same_message_twice_at_once_runs_once(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        params = engine.params(message_id="m")
        first = asyncio.create_task(engine.queries.run(params, kit.caller()))
        await kit.soon(gate.reached)
        watcher, started = kit.Watcher(), []
        second = asyncio.create_task(
            engine.queries.run(params, kit.caller("other"), subscriber=watcher, started=started.append)
        )
        await kit.until(lambda: bool(started))
        gate.go.set()
        one, two = await first, await second
        assert (one.replayed, two.replayed) == (False, True)
        assert msgspec.structs.replace(two, replayed=False) == one
        assert started == [one.session_id]
        assert watcher.kinds == ["TextDelta", "AssistantText", "UsageReported", "TurnCompleted"]
        assert len(engine.upstream.prompts) == 1


@pytest.mark.parametrize("leaves", ["first", "second"])
async def test_one_of_two_who_wait_goes(kit: Any, leaves: str) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        params = engine.params(message_id="m")
        first = asyncio.create_task(engine.queries.run(params, kit.caller()))
        await kit.soon(gate.reached)
        joined: list[str] = []
        second = asyncio.create_task(engine.queries.run(params, kit.caller(), started=joined.append))
        await kit.until(lambda: bool(joined))
        going, staying = (first, second) if leaves == "first" else (second, first)
        going.cancel()
        error = await kit.ended(going)
        assert (error.kind, error.data["text"]) == ("request_cancelled", "half")
        assert engine.upstream.interrupts == 0
        gate.go.set()
        assert (await staying).text == "half and half"
        engine.check_idle()


async def test_both_who_wait_go(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        params = engine.params(message_id="m")
        first = asyncio.create_task(engine.queries.run(params, kit.caller()))
        await kit.soon(gate.reached)
        joined: list[str] = []
        second = asyncio.create_task(engine.queries.run(params, kit.caller(), started=joined.append))
        await kit.until(lambda: bool(joined))
        first.cancel()
        second.cancel()
        ends = [await kit.ended(first), await kit.ended(second)]
        assert [end.kind for end in ends] == ["request_cancelled", "request_cancelled"]
        assert engine.upstream.interrupts == 1
        engine.check_idle()


async def test_who_joins_early_hears_the_session_too(kit: Any) -> None:
    async with kit.engine() as engine:
        params, started = engine.params(message_id="m"), []
        ends = await asyncio.gather(
            *(engine.queries.run(params, kit.caller(), started=started.append) for _ in range(5))
        )
        assert len({end.turn_id for end in ends}) == 1
        assert sorted(end.replayed for end in ends) == [False, True, True, True, True]
        assert started == [ends[0].session_id] * 5
        assert len(engine.upstream.prompts) == 1


async def test_the_same_message_later_gets_the_stored_answer(kit: Any) -> None:
    async with kit.engine() as engine:
        params = engine.params(message_id="m")
        first = await engine.queries.run(params, kit.caller())
        started: list[str] = []
        later = engine.params(message_id="m", timeout_ms=5000, priority="batch")
        second = await engine.queries.run(later, kit.caller("other"), started=started.append)
        assert msgspec.structs.replace(second, replayed=False, start=first.start) == first
        assert second.replayed
        assert started == [first.session_id]
        assert len(engine.upstream.prompts) == 1


async def test_the_same_message_after_a_restart(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(message_id="m"), kit.caller())
    async with kit.engine() as engine:
        second = await engine.queries.run(engine.params(message_id="m"), kit.caller())
        assert (second.replayed, second.text, second.turn_id) == (True, "hello", first.turn_id)
        assert engine.upstream.prompts == []


async def test_an_answer_without_text(kit: Any) -> None:
    async with kit.engine() as engine:

        async def script(turn: Any) -> TurnOutcome:
            return TurnOutcome(status="completed", text="")

        engine.upstream.scripts.append(script)
        params = engine.params(message_id="m")
        assert (await engine.queries.run(params, kit.caller())).text == ""
        assert (await engine.queries.run(params, kit.caller())).text == ""


@pytest.mark.parametrize("when", ["running", "later"])
async def test_the_same_message_for_another_request(kit: Any, when: str) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(message_id="m"), kit.caller()))
        await kit.soon(gate.reached)
        if when == "later":
            gate.go.set()
            await first
        other = engine.queries.run(engine.params("something else", message_id="m"), kit.caller())
        error = await kit.refused("message_conflict", other)
        assert error.data == {"message_id": "m"}
        gate.go.set()
        await first


async def test_a_failure_is_an_answer_too(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(kit.failing("quota", "no more", resets_at=99.0, status=429))
        params = engine.params(message_id="m")
        first = await kit.refused("quota_exhausted", engine.queries.run(params, kit.caller()))
        second = await kit.refused("quota_exhausted", engine.queries.run(params, kit.caller()))
        assert str(second) == str(first) == "no more"
        for name in ("session_id", "turn_id", "resets_at", "status"):
            assert second.data[name] == first.data[name] is not None


async def test_a_cancelled_message_stays_cancelled(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        params = engine.params(message_id="m")
        work = asyncio.create_task(engine.queries.run(params, kit.caller()))
        await kit.soon(gate.reached)
        work.cancel()
        first = await kit.ended(work)
        second = await kit.refused("request_cancelled", engine.queries.run(params, kit.caller()))
        assert second.data["turn_id"] == first.data["turn_id"]


async def test_a_message_that_was_cut_off_by_the_end_of_the_daemon(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        work = asyncio.create_task(engine.queries.run(engine.params(message_id="m"), kit.caller()))
        await kit.soon(gate.reached)
        engine.tasks.cancel_scope.cancel()
        await kit.ended(work)
    async with kit.engine() as engine:
        error = await kit.refused(
            "turn_interrupted", engine.queries.run(engine.params(message_id="m"), kit.caller())
        )
        assert error.data["message_id"] == "m"


async def test_a_message_that_a_stream_took_in_the_same_instant(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(message_id="m"), kit.caller())
        whole = engine.store.turn_by_message

        async def not_yet(_message_id: str) -> None:
            engine.store.turn_by_message = whole

        engine.store.turn_by_message = not_yet
        error = await kit.refused(
            "message_conflict", engine.queries.run(engine.params(message_id="m"), kit.caller())
        )
        assert result.turn_id in str(error)
        engine.check_idle()


async def test_one_of_two_goes_while_they_wait_at_the_door(kit: Any) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        params, joined = engine.params(message_id="m"), []
        waiting = [
            asyncio.create_task(engine.queries.run(params, kit.caller(), started=joined.append))
            for _ in range(2)
        ]
        await kit.until(lambda: len(joined) == 2)
        waiting[0].cancel()
        error = await kit.ended(waiting[0])
        assert (error.kind, error.data) == ("request_cancelled", {"session_id": joined[0]})
        gate.go.set()
        assert (await waiting[1]).text == "hello"
        await first
