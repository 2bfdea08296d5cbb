"""Turns: the conversation is sent along, an interrupt breaks off, a cancelled turn leaves nothing."""

import asyncio
from typing import Any

import pytest
from dragoman_protocol.content import ImageBlock, TextBlock
from dragoman_protocol.stream import AssistantText, TextDelta
from dragoman_sim import Gate, Reply, Rule, Simulator, Tokens, When
from dragomand.upstream.interface import HistoryMessage, UpstreamError


async def test_an_answer(kit: Any) -> None:
    reply = Reply(["Hello ", "there"], usage=Tokens(7, 3, 2, 1))
    async with kit.talk([Rule(When(text="hi"), reply)], model="opus") as talk:
        events = kit.Events()
        outcome = await talk.send("hi", events)
        assert (outcome.status, outcome.text, outcome.stop_reason) == ("completed", "Hello there", "end_turn")
        assert (outcome.model, outcome.failure) == ("claude-opus-5-5", None)
        assert (outcome.usage.input_tokens, outcome.usage.output_tokens) == (7, 3)
        assert (outcome.usage.cache_creation_tokens, outcome.usage.cache_read_tokens) == (2, 1)
        assert outcome.cost_usd == pytest.approx((7 * 4 + 3 * 20 + 2 * 5 + 1 * 0.2) / 1e6)
        assert "".join(delta.text for delta in events.of(TextDelta)) == "Hello there"
        whole = [*events.of(AssistantText), *outcome.last_events]
        assert [item.text for item in whole] == ["Hello there"]
        assert talk.sim.messages[0].used_key(kit.KEY)
        assert not talk.sim.messages[0].from_claude_code
        assert (talk.run.upstream_session_id, talk.run.version) == (None, None)


async def test_each_turn_brings_the_ones_before(kit: Any) -> None:
    history = (HistoryMessage("user", "first"), HistoryMessage("assistant", "You said: first"))
    async with kit.talk(history=history) as talk:
        await talk.send("second")
        await talk.send([TextBlock(text="third"), ImageBlock(source={"type": "url", "url": "http://x/"})])
        contents = [message["content"] for message in talk.body()["messages"]]
        assert contents[:4] == ["first", "You said: first", "second", "You said: second"]
        assert contents[4][0] == {"type": "text", "text": "third"}


async def test_an_interrupt_keeps_what_was_said(kit: Any) -> None:
    rules = [Rule(When(text="slowly"), Reply(["half", Gate("g"), "never"])), Rule(When(text="on"), "On.")]
    async with kit.talk(rules) as talk:
        events = kit.Events()
        assert not await talk.run.interrupt()
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        assert await talk.run.interrupt()
        assert await talk.run.interrupt()
        outcome = await turn
        assert (outcome.status, outcome.failure) == ("interrupted", None)
        assert outcome.usage.input_tokens > 0
        assert await talk.sim.wait_ended(talk.sim.messages[0]) == "abandoned"
        assert (await talk.send("on")).text == "On."
        assert len(talk.body()["messages"]) == 1


async def test_a_cancelled_turn_breaks_its_call_off(kit: Any) -> None:
    async with kit.talk([Rule(When(text="slowly"), Reply(["half", Gate("g")]))]) as talk:
        events = kit.Events()
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert await talk.sim.wait_ended(talk.sim.messages[0]) == "abandoned"


async def test_closing_interrupts(kit: Any) -> None:
    async with kit.talk([Rule(When(text="slowly"), Reply(["half", Gate("g")]))]) as talk:
        events = kit.Events()
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        await talk.run.close()
        assert (await turn).status == "interrupted"


async def test_one_turn_at_a_time(kit: Any) -> None:
    async with kit.talk([Rule(When(text="slowly"), Reply(["half", Gate("g")]))]) as talk:
        turn = asyncio.create_task(talk.send("slowly"))
        await talk.sim.wait_for(1)
        with pytest.raises(RuntimeError, match="running"):
            await talk.run.send("hi", "m", kit.Events())
        await talk.run.interrupt()
        await turn


async def test_connections_are_used_again(kit: Any) -> None:
    async with kit.talk() as talk:
        for at in range(5):
            await talk.send(f"turn {at}")
        assert talk.api._http.open == 1


async def test_what_is_no_http_is_a_failure_of_the_protocol(kit: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"* OK IMAP4 ready\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with kit.api(url) as api:
            run = await api.open(kit.spec(), kit.nobody)
            outcome = await run.send("hi", "m", kit.Events())
    assert (outcome.failure.category, outcome.status) == ("protocol", "failed")
    assert "IMAP4" in outcome.failure.message


async def test_a_key_that_cannot_be_sent_is_not_sent(kit: Any) -> None:
    async with Simulator() as sim, kit.api(sim.url, key="sk-1\nx-other: y") as api:
        run = await api.open(kit.spec(), kit.nobody)
        outcome = await run.send("hi", "m", kit.Events())
        assert (outcome.failure.category, outcome.status) == ("auth", "failed")
        assert "sk-1" not in outcome.failure.message
        assert sim.messages == []


async def test_no_stream_is_no_answer(kit: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with kit.api(url) as api:
            run = await api.open(kit.spec(), kit.nobody)
            outcome = await run.send("hi", "m", kit.Events())
    assert (outcome.failure.category, outcome.status) == ("protocol", "failed")
    assert "text/html" in outcome.failure.message


async def test_no_file_was_changed(kit: Any) -> None:
    async with kit.talk() as talk:
        with pytest.raises(UpstreamError, match="changes no files") as caught:
            await talk.run.rewind_files("m", dry_run=True)
        assert caught.value.failure.category == "caller"
