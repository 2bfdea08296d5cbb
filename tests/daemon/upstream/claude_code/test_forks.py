"""Forks of conversations, made by the real CLI: where they begin, what they cost, and that they are whole."""

import asyncio
import json
import uuid

import pytest
from dragoman_protocol.stream import TextDelta, ToolResult
from dragoman_sim import Gate, Reply, Rule, When
from dragoman_sim import ToolUse as Call
from dragomand.upstream.interface import UpstreamError

LAST = Rule(When(text="last"), "{prompt}")
SLOW = Rule(When(text="slowly"), Reply(["one ", Gate("half"), "two"]))


def said(record):
    """Return the plain texts of a request's messages, without what Claude Code adds of itself."""
    texts = []
    for message in record.json()["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        told = [part["text"] for part in parts if part["type"] == "text"]
        texts += [text for text in told if not text.startswith(("<system-reminder>", "# Environment"))]
    return texts


def fork_of(outcome, run):
    """Return the spec's fields for a fork at a turn's end."""
    return {
        "resume": run.upstream_session_id,
        "resume_message_count": outcome.message_count,
        "resume_holds": outcome.leaf_id,
        "fork": True,
        "session_id": str(uuid.uuid4()),
    }


async def test_a_fork_begins_at_any_turn_while_the_original_goes_on(talking):
    async with talking() as talk:
        one = await talk.send("first")
        two = await talk.send("second")
        assert one.leaf_id != two.leaf_id
        async with talking(sim=talk.sim, **fork_of(one, talk.run)) as fork:
            answer = await fork.send("another way")
            assert said(talk.sim.messages[-1]) == ["first", "You said: first", "another way"]
            assert fork.run.upstream_session_id != talk.run.upstream_session_id
            assert (answer.status, answer.message_count) == ("completed", 4)
            # The original has not noticed.
            three = await talk.send("third")
            assert three.message_count == 6
            assert said(talk.sim.messages[-1])[-3:] == ["second", "You said: second", "third"]
            own, first = fork.run.upstream_session_id, talk.run.upstream_session_id
        # Both are resumed like any other.
        async with talking(sim=talk.sim, resume=own, resume_message_count=4) as again:
            assert (await again.send("and on")).message_count == 6
        await talk.run.close()
        async with talking(sim=talk.sim, resume=first, resume_message_count=6) as again:
            assert (await again.send("and on")).message_count == 8


async def test_a_fork_of_a_fork_may_begin_at_a_turn_that_was_taken_over(talking):
    async with talking() as talk:
        one = await talk.send("first")
        two = await talk.send("second")
        await talk.run.close()
        async with talking(sim=talk.sim, **fork_of(two, talk.run)) as fork:
            await fork.send("third")
            at_one = {**fork_of(one, fork.run)}
        async with talking(sim=talk.sim, **at_one) as again:
            await again.send("elsewhere")
            assert said(talk.sim.messages[-1]) == ["first", "You said: first", "elsewhere"]


@pytest.mark.parametrize("ended", [True, False], ids=["its process has ended", "its process runs"])
async def test_what_the_original_cost_is_not_counted_again(talking, ended):
    async with talking() as talk:
        one = await talk.send("first")
        two = await talk.send("second")
        if ended:
            await talk.run.close()
        async with talking(sim=talk.sim, **fork_of(two, talk.run)) as fork:
            three = await fork.send("third")
            four = await fork.send("fourth")
            own = fork.run.upstream_session_id
        async with talking(sim=talk.sim, resume=own, resume_message_count=four.message_count) as again:
            five = await again.send("fifth")
    costs = [turn.cost_usd for turn in (one, two, three, four, five)]
    assert None not in costs
    # Each turn is one call of nearly the same length, so none of them may have another one's cost in it.
    assert max(costs) < 1.5 * min(costs), costs


async def test_a_turn_with_tools_ends_after_them(talking, world):
    rules = [Rule(When(text="look"), [Reply([Call("Bash", {"command": "echo seen"})]), "It is there."])]
    events = world.events()
    async with talking(rules, ask=world.allow) as talk:
        one = await talk.send("look", events)
        assert [result.is_error for result in events.of(ToolResult)] == [False]
        await talk.send("later")
        async with talking(sim=talk.sim, **fork_of(one, talk.run)) as fork:
            await fork.send("so?")
            body = talk.sim.messages[-1].json()["messages"]
            assert "seen" in json.dumps(body)
            assert "later" not in json.dumps(body)
            assert said(talk.sim.messages[-1])[-2:] == ["It is there.", "so?"]


async def test_a_turn_that_was_stopped_or_failed_can_be_forked_at(talking, world):
    events = world.events()
    broken = Rule(When(text="break"), "x", fault="too_large")
    async with talking([SLOW, broken]) as talk:
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        await talk.run.interrupt()
        stopped = await turn
        failed = await talk.send("break")
        assert (stopped.status, failed.status) == ("interrupted", "failed")
        talk.sim.use([])  # what is not answered yet is part of the next question
        for outcome, last in ((stopped, "slowly"), (failed, "break")):
            async with talking(sim=talk.sim, **fork_of(outcome, talk.run)) as fork:
                assert (await fork.send("go on")).status == "completed"
                asked = said(talk.sim.messages[-1])
                assert any(last in text for text in asked)
                assert ("break" in " ".join(asked)) is (last == "break")


async def test_without_a_message_all_of_it_is_taken(talking):
    async with talking() as talk:
        one = await talk.send("first")
        whole = {**fork_of(one, talk.run), "resume_holds": None}
        async with talking(sim=talk.sim, **whole) as fork:
            await fork.send("second")
            assert said(talk.sim.messages[-1]) == ["first", "You said: first", "second"]
        # ... which is only right as long as it is the same.
        await talk.send("more")
        with pytest.raises(UpstreamError) as caught:
            async with talking(sim=talk.sim, **{**whole, "session_id": str(uuid.uuid4())}):
                pass
    assert caught.value.failure.category == "mismatch"
    assert "has gone on since its fork" in caught.value.failure.message


async def test_a_message_that_is_not_there_is_a_mismatch(talking):
    async with talking() as talk:
        one = await talk.send("first")
        for fork in (True, False):
            missing = {**fork_of(one, talk.run), "resume_holds": str(uuid.uuid4()), "fork": fork}
            with pytest.raises(UpstreamError) as caught:
                async with talking(sim=talk.sim, **missing):
                    pass
            assert caught.value.failure.category == "mismatch"
            assert "does not have the message" in caught.value.failure.message


async def test_a_copy_that_is_not_whole_fails_the_turn(talking):
    async with talking() as talk:
        one = await talk.send("first")
        async with talking(sim=talk.sim, **fork_of(one, talk.run)) as fork:
            fork.run._transcript._holds = "another"  # as if Claude Code had not copied it
            outcome = await fork.send("second")
    assert (outcome.status, outcome.failure.category) == ("failed", "mismatch")
    assert outcome.message_count is None
