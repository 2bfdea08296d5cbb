"""Turns of the real CLI: answers in pieces (00.40), several turns, resuming, interrupting, ends."""

import asyncio
import os
import signal
import uuid

import pytest
from dragoman_protocol.content import ImageBlock, TextBlock
from dragoman_protocol.stream import AssistantText, Raw, TextDelta, Thinking, ThinkingDelta
from dragoman_sim import Gate, Reply, Rule, When
from dragoman_sim import Thinking as SimThinking
from dragomand.upstream.claude_code import run as run_module
from dragomand.upstream.interface import UpstreamError

WHO = Rule(When(text="who"), "You said first: {first_prompt}")
SLOW = Rule(When(text="slowly"), Reply(["one ", Gate("half"), "two"]))
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


async def test_a_turn_streams_its_answer_and_ends_with_it(talking, world):
    rules = [Rule(When(text="weather"), Reply(["It is ", "sunny 😀 and ", "warm."], piece_chars=5))]
    events = world.events()
    async with talking(rules) as talk:
        outcome = await talk.send("the weather?", events)
        record = await talk.sim.wait_for(1)
    assert record.from_claude_code
    assert record.used_key(world.key)
    assert outcome.status == "completed"
    assert outcome.failure is None
    assert outcome.text == "It is sunny 😀 and warm."
    deltas = events.of(TextDelta)
    assert len(deltas) > 3
    (whole,) = events.of(AssistantText)
    rebuilt = ""
    for delta in deltas:
        assert delta.item_id == whole.item_id
        assert delta.offset == len(rebuilt)
        rebuilt += delta.text
    assert rebuilt == whole.text == outcome.text
    assert set(map(type, events)) == {TextDelta, AssistantText}  # our own message is not repeated


async def test_the_outcome_has_the_accounts(talking):
    async with talking() as talk:
        outcome = await talk.send("hello")
    assert outcome.usage.input_tokens > 0
    assert outcome.usage.output_tokens > 0
    assert outcome.cost_usd == outcome.cost_total_usd > 0
    assert outcome.model
    assert outcome.stop_reason == "end_turn"
    assert outcome.duration_api_ms >= 0
    assert outcome.message_count == 2
    assert talk.run.version[0].isdigit()


async def test_two_turns_of_one_process_share_the_conversation(talking):
    async with talking([WHO]) as talk:
        one = await talk.send("I am the walrus")
        two = await talk.send("who?")
    assert two.text == "You said first: I am the walrus"
    assert two.cost_total_usd > one.cost_total_usd
    assert two.cost_usd == pytest.approx(two.cost_total_usd - one.cost_total_usd)
    assert two.message_count == 4


async def test_thinking_is_told_apart_from_the_answer(talking, world):
    events = world.events()
    async with talking([Rule(When(text="think"), Reply([SimThinking("Let me see."), "Seen."]))]) as talk:
        outcome = await talk.send("think", events)
    assert outcome.text == "Seen."
    (thought,), (answer,) = events.of(Thinking), events.of(AssistantText)
    assert thought.text == "Let me see."
    assert {delta.item_id for delta in events.of(ThinkingDelta)} == {thought.item_id}
    assert {delta.item_id for delta in events.of(TextDelta)} == {answer.item_id} != {thought.item_id}


async def test_blocks_are_sent_as_they_are(talking):
    picture = ImageBlock(source={"type": "base64", "media_type": "image/png", "data": PIXEL})
    async with talking() as talk:
        outcome = await talk.send([TextBlock(text="what is this?"), picture])
        record = await talk.sim.wait_for(1)
    assert outcome.status == "completed"
    assert PIXEL in str(record.body)


async def test_what_is_not_known_goes_through_byte_for_byte(talking, world):
    """A note that Claude Code itself writes into the conversation after an interrupt."""
    events = world.events()
    async with talking([SLOW]) as talk:
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        await talk.run.interrupt()
        await turn
    (note,) = [bytes(raw.frame) for raw in events.of(Raw)]
    assert note.startswith(b'{"type":"user"')
    assert b"[Request interrupted by user]" in note


# resuming


async def test_a_new_process_resumes_the_conversation(talking):
    async with talking([WHO]) as talk:
        one = await talk.send("I am the walrus")
        first = talk.run.upstream_session_id
        await talk.run.close()
        async with talking(sim=talk.sim, resume=first, resume_message_count=one.message_count) as again:
            two = await again.send("who?")
            assert again.run.upstream_session_id == first
    assert two.text == "You said first: I am the walrus"
    assert two.message_count == 4
    # Claude Code's total goes on where it was; the turn's share is its own.
    assert two.cost_usd == pytest.approx(two.cost_total_usd - one.cost_total_usd)


async def test_a_conversation_that_is_not_there_is_a_mismatch(talking):
    with pytest.raises(UpstreamError) as caught:
        async with talking(resume=str(uuid.uuid4())):
            pass
    assert caught.value.failure.category == "mismatch"


async def test_a_conversation_that_lost_messages_is_a_mismatch(talking):
    async with talking() as talk:
        outcome = await talk.send("hello")
        resume = talk.run.upstream_session_id
    with pytest.raises(UpstreamError) as caught:
        async with talking(resume=resume, resume_message_count=outcome.message_count + 1):
            pass
    assert caught.value.failure.category == "mismatch"
    assert "2 messages; 3 were expected" in caught.value.failure.message


async def test_a_session_id_that_is_taken_is_a_failure(talking):
    async with talking() as talk:
        await talk.send("hello")
        taken = talk.run.upstream_session_id
    with pytest.raises(UpstreamError) as caught:
        async with talking(session_id=taken):
            pass
    assert caught.value.failure.category == "crash"
    assert "already in use" in caught.value.failure.detail


# stopping


async def test_an_interrupt_ends_the_turn_and_not_the_process(talking, world):
    events = world.events()
    async with talking([SLOW]) as talk:
        assert not await talk.run.interrupt()
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        assert await talk.run.interrupt()
        assert await talk.run.interrupt()
        outcome = await turn
        assert (outcome.status, outcome.text, outcome.failure) == ("interrupted", "one ", None)
        assert (await talk.send("go on")).status == "completed"
        assert not await talk.run.interrupt()


async def test_an_interrupt_right_after_sending_ends_the_turn(talking):
    async with talking([SLOW]) as talk:
        turn = asyncio.create_task(talk.send("slowly"))
        await asyncio.sleep(0)  # the message is written; Claude Code has not read it yet
        assert await talk.run.interrupt()
        assert (await turn).status == "interrupted"
        talk.sim.use([])  # what was not answered may be said again with the next message
        assert (await talk.send("go on")).status == "completed"


async def test_an_interrupt_that_is_not_heard_ends_the_process(talking, world, monkeypatch):
    monkeypatch.setattr(run_module, "INTERRUPT_S", 0.1)
    events = world.events()
    async with talking([SLOW]) as talk:
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        os.kill(world.cli_pid(talk), signal.SIGSTOP)
        assert await talk.run.interrupt()
        assert (await turn).status == "interrupted"
        await talk.run.close()
    assert world.survivors() == []


async def test_cancelling_send_ends_the_process(talking, world):
    events = world.events()
    async with talking([SLOW]) as talk:
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        await talk.run.close()
        assert world.survivors() == []
        outcome = await talk.send("more?")
    assert (outcome.status, outcome.failure.category) == ("failed", "crash")


async def test_one_turn_at_a_time(talking, world):
    events = world.events()
    async with talking([SLOW]) as talk:
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        with pytest.raises(RuntimeError):
            await talk.send("me too")
        await talk.sim.gate("half").open()
        assert (await turn).text == "one two"


async def test_a_killed_cli_is_a_crash(talking, world):
    events = world.events()
    async with talking([SLOW]) as talk:
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        os.kill(world.cli_pid(talk), signal.SIGKILL)
        outcome = await turn
    assert (outcome.status, outcome.failure.category) == ("failed", "crash")
    assert "status 137" in outcome.failure.message
    assert world.survivors() == []


async def test_closing_ends_the_process_in_time_even_if_it_does_not_listen(talking, world):
    async with talking() as talk:
        await talk.send("hello")
        os.kill(world.cli_pid(talk), signal.SIGSTOP)
        async with asyncio.timeout(15):  # the ladder takes 6 s at most; the rest is for a busy machine
            await talk.run.close()
    assert world.survivors() == []


async def test_closing_in_the_middle_of_a_turn_interrupts_it(talking, world):
    events = world.events()
    async with talking([SLOW]) as talk:
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        await talk.run.close()
        assert (await turn).status == "interrupted"
    assert world.survivors() == []


async def test_closing_the_upstream_closes_every_run(talking, world):
    async with talking() as one, talking(sim=one.sim):
        for upstream in world.upstreams:
            await upstream.close()
        assert world.survivors() == []


async def test_a_sink_that_fails_raises_from_send(talking):
    def broken(_event):
        raise ValueError("a sink of ours")

    async with talking() as talk:
        with pytest.raises(ValueError, match="a sink of ours"):
            await talk.send("hello", broken)
