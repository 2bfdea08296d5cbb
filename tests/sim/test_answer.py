"""Answers that wait, stall, are cut or are left: as a plain HTTP client meets them."""

from __future__ import annotations

import pytest
from dragoman_sim import (
    Cut,
    Gate,
    Pause,
    Pings,
    Reply,
    Rule,
    Simulator,
    Stall,
    Status,
    Thinking,
)

TEXT = "Some words that are long enough for several pieces."
REPLY = Reply([Thinking("a first block"), TEXT])


async def ask(http, fault, *, stream=True):
    async with Simulator([Rule(reply=REPLY, fault=fault)]) as sim:
        answer = await http.message(sim.url, "x", stream=stream)
        outcome = await sim.wait_ended(sim.messages[0])
    return answer, outcome


@pytest.mark.parametrize("stream", [True, False])
async def test_a_gate_holds_the_reply_until_it_is_opened(http, stream):
    async with Simulator([Rule(reply=Reply(["one ", Gate("half"), "two"]))]) as sim:
        under_way = await http.start(sim.url, "go", stream=stream)
        record = await sim.wait_for(1)
        await sim.gate("half").wait_arrived()
        if stream:
            assert (await under_way.head()).status == 200
            assert b"one " in await under_way.until(b"one ")
        assert record.outcome == "answering"
        await sim.gate("half").open()
        if stream:
            assert b"two" in await under_way.until(b"message_stop")
        else:
            assert (await under_way.response()).json()["content"][0]["text"] == "one two"
        assert await sim.wait_ended(record) == "answered"


async def test_delays_lie_between_deltas_and_before_the_head(http):
    reply = Reply(["abcd", Pause(1)], piece_chars=2, delay_ms=1, first_delay_ms=1)
    async with Simulator([Rule(reply=reply)]) as sim:
        under_way = await http.start(sim.url, "go")
        await under_way.head()
        parts = []
        while part := await under_way.chunk():
            parts.append(part)
        whole = await http.message(sim.url, "go", stream=False)
    assert len(parts) == 3  # a pause ends a chunk: up to "ab", up to "cd", the end
    assert b'"ab"' in parts[0]
    assert b'"cd"' in parts[1]
    assert whole.json()["content"][0]["text"] == "abcd"


async def test_a_client_that_goes_away_is_seen(http):
    async with Simulator([Rule(reply=Reply(["one", Gate("never")]))]) as sim:
        under_way = await http.start(sim.url, "go")
        record = await sim.wait_for(lambda record: record.prompt == "go")
        await sim.gate("never").wait_arrived()
        await under_way.close()
        assert await sim.wait_ended(record) == "abandoned"
        assert sim.gate("never").waiting == 0


async def test_the_end_of_the_simulator_ends_every_answer(http):
    async with Simulator([Rule(reply=Reply(["one", Gate("never")]))]) as sim:
        under_way = await http.start(sim.url, "go")
        idle = await http.connect(sim.url)
        await sim.gate("never").wait_arrived()
        record = sim.messages[0]
    assert record.outcome == "abandoned"
    assert (await under_way.response()).ended in ("cut", "reset")
    assert (await idle.response()).ended in ("cut", "reset")


async def test_a_status_may_come_late(http):
    async with Simulator([Rule(fault=Status(503, delay_ms=1))]) as sim:
        answer = await http.message(sim.url, "x")
        assert answer.status == 503
        assert await sim.wait_ended(sim.requests[0]) == "answered"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    ("at", "there", "not_there"),
    [
        ("before_headers", None, b"HTTP"),
        ("after_headers", b"", b"message_start"),
        ("before_block", b"message_start", b"content_block_start"),
        ("inside_block", b"content_block_delta", b"content_block_stop"),
        ("after_block", b"content_block_stop", b'"index":1'),
    ],
)
async def test_cuts(http, at, there, not_there, reset):
    answer, outcome = await ask(http, Cut(at, reset=reset))
    assert outcome == "cut"
    assert answer.ended in (("cut", "reset") if reset else ("cut",))  # a reset may overtake what was sent
    if there is None:
        assert (answer.status, answer.body) == (0, b"")
    elif not reset:
        assert answer.status == 200
        assert there in answer.body
    assert not_there not in answer.body


async def test_a_reset_is_one(http):
    """Read nothing until the reset is there, then everything that follows is that error."""
    async with Simulator([Rule(reply=REPLY, fault=Cut("before_headers", reset=True))]) as sim:
        assert (await http.message(sim.url, "x")).ended == "reset"


@pytest.mark.parametrize("at", ["inside_block", "after_headers", "before_headers"])
async def test_cuts_without_a_stream(http, at):
    answer, outcome = await ask(http, Cut(at), stream=False)
    assert (answer.ended, outcome) == ("cut", "cut")
    assert len(answer.body) == 0 if at != "inside_block" else len(answer.body) > 0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "at", ["before_headers", "after_headers", "before_block", "inside_block", "after_block"]
)
async def test_a_stall_lasts_until_the_client_has_enough(http, at, stream):
    async with Simulator([Rule(reply=REPLY, fault=Stall(at))]) as sim:
        under_way = await http.start(sim.url, "x", stream=stream)
        record = await sim.wait_for(1)
        if stream and at != "before_headers":
            await under_way.head()
        if stream and at == "inside_block":
            assert (await under_way.chunk()).count(b"event: content_block_delta") == 1
        assert record.outcome == "answering"
        await under_way.close()
        assert await sim.wait_ended(record) == "abandoned"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("at", ["before_headers", "after_headers", "inside_block"])
async def test_a_stall_may_pass(http, at, stream):
    answer, outcome = await ask(http, Stall(at, for_ms=1), stream=stream)
    assert (answer.ended, outcome) == ("whole", "answered")
    assert TEXT in (answer.text() if stream else answer.json()["content"][1]["text"])


async def test_pings_only(http):
    async with Simulator([Rule(reply=REPLY, fault=Pings(every_ms=1))]) as sim:
        under_way = await http.start(sim.url, "x")
        await under_way.head()
        assert b"message_start" in await under_way.chunk()
        assert {await under_way.chunk() for _ in range(3)} == {b'event: ping\ndata: {"type": "ping"}\n\n'}
        await under_way.close()
        assert await sim.wait_ended(sim.messages[0]) == "abandoned"


@pytest.mark.parametrize("stream", [True, False])
async def test_pings_may_pass(http, stream):
    answer, _ = await ask(http, Pings(every_ms=1, count=2), stream=stream)
    if stream:
        assert [name for name, _ in answer.events()].count("ping") == 2
        assert answer.text() == TEXT
    else:
        assert answer.json()["content"][1]["text"] == TEXT
