"""Turns of the real CLI."""

import asyncio

from dragoman_protocol.stream import AssistantText, TextDelta, ToolResult, ToolUse
from dragoman_sim import Gate, Reply, Rule, ToolUse as SimToolUse, When

ECHO = Rule(When(text="first"), "You said first: {first_prompt}")


async def test_a_turn_streams_its_answer_and_ends_with_it(talking, world):
    rules = [Rule(When(text="weather"), Reply(["It is ", "sunny 😀 and ", "warm."], piece_chars=5))]
    events = world.events()
    async with talking(rules) as talk:
        outcome = await talk.send("the weather?", events)
        record = await talk.sim.wait_for(1)
    assert outcome.status == "completed"
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
    assert set(map(type, events)) == {TextDelta, AssistantText}
    assert record.from_claude_code
    assert record.used_key(world.key)
    assert outcome.failure is None
    assert outcome.usage.output_tokens > 0
    assert outcome.cost_usd is not None
    assert outcome.cost_usd == outcome.cost_total_usd > 0
    assert outcome.model
    assert talk.run.version
    assert outcome.message_count == 2


async def test_two_turns_of_one_process_share_the_conversation(talking):
    async with talking([Rule(When(text="who"), "You said first: {first_prompt}")]) as talk:
        one = await talk.send("I am the walrus")
        two = await talk.send("who?")
    assert "You said first: I am the walrus" in two.text
    assert two.cost_total_usd > one.cost_total_usd
    assert abs(two.cost_usd - (two.cost_total_usd - one.cost_total_usd)) < 1e-9
    assert two.message_count == 4


async def test_interrupt_in_the_middle_of_an_answer(talking, world):
    rules = [Rule(When(text="slowly"), Reply(["one ", Gate("half"), "two"]))]
    events = world.events()
    async with talking(rules) as talk:
        assert not await talk.run.interrupt()
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        assert await talk.run.interrupt()
        outcome = await turn
        assert outcome.status == "interrupted"
        assert outcome.failure is None
        assert (await talk.send("go on")).status == "completed"


async def test_a_tool_runs_when_it_is_allowed(talking, world):
    rules = [Rule(When(text="edit"), [Reply([SimToolUse("Write", {"file_path": "{cwd}/a.txt", "content": "hi"})]), "Done."])]
    events = world.events()
    asked = []

    async def ask(question):
        asked.append(question)
        return await world.allow(question)

    async with talking(rules, ask=ask) as talk:
        outcome = await talk.send("edit it", events)
    assert outcome.text == "Done."
    assert (world.cwd / "a.txt").read_text() == "hi"
    (question,) = asked
    assert question.tool_name == "Write"
    assert question.input["content"] == "hi"
    (use,), (result,) = events.of(ToolUse), events.of(ToolResult)
    assert use.name == "Write"
    assert use.item_id == question.tool_use_id == result.tool_use_id
    assert not result.is_error
