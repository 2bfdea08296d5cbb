"""Questions of the real CLI: whether a tool may run."""

import asyncio
import contextlib
import json

from dragoman_protocol.stream import ToolResult, ToolUse
from dragoman_sim import Reply, Rule, When
from dragoman_sim import ToolUse as Call
from dragomand.upstream.interface import PermissionAnswer

WRITE = Rule(
    When(text="edit"), [Reply([Call("Write", {"file_path": "{cwd}/a.txt", "content": "hi"})]), "It is over."]
)


async def test_a_tool_runs_when_it_is_allowed(talking, world):
    events = world.events()
    asked = []

    async def ask(question):
        asked.append(question)
        return await world.allow(question)

    async with talking([WRITE], ask=ask) as talk:
        outcome = await talk.send("edit it", events)
    assert outcome.text == "It is over."
    assert (world.cwd / "a.txt").read_text() == "hi"
    (question,) = asked
    assert question.tool_name == "Write"
    assert question.input["content"] == "hi"
    (use,), (result,) = events.of(ToolUse), events.of(ToolResult)
    assert use.name == "Write"
    assert use.item_id == question.tool_use_id == result.tool_use_id
    assert result.item_id != use.item_id
    assert not result.is_error


async def test_a_tool_that_is_denied_does_not_run_and_the_model_hears_why(talking, world):
    events = world.events()

    async def ask(_):
        return PermissionAnswer(allow=False, message="Not on a Sunday.")

    async with talking([WRITE], ask=ask) as talk:
        outcome = await talk.send("edit it", events)
    assert outcome.status == "completed"
    assert not (world.cwd / "a.txt").exists()
    (result,) = events.of(ToolResult)
    assert result.is_error
    assert "Not on a Sunday." in json.dumps(result.content)


async def test_a_denial_may_stop_the_turn(talking, world):
    async def ask(_):
        return PermissionAnswer(allow=False, interrupt=True)

    async with talking([WRITE], ask=ask) as talk:
        outcome = await talk.send("edit it")
        assert len(talk.sim.messages) == 1
    assert (outcome.status, outcome.failure) == ("interrupted", None)
    assert not (world.cwd / "a.txt").exists()


async def test_an_answer_may_change_the_input(talking, world):
    async def ask(question):
        return PermissionAnswer(allow=True, updated_input={**question.input, "content": "ho"})

    async with talking([WRITE], ask=ask) as talk:
        await talk.send("edit it")
    assert (world.cwd / "a.txt").read_text() == "ho"


async def test_who_cannot_be_asked_does_not_allow(talking, world):
    async def ask(_):
        raise RuntimeError("nobody is there")

    async with talking([WRITE], ask=ask) as talk:
        outcome = await talk.send("edit it")
    assert outcome.status == "completed"
    assert not (world.cwd / "a.txt").exists()


async def test_an_interrupt_withdraws_the_question(talking, world):
    asked, withdrawn = asyncio.Event(), asyncio.Event()

    async def ask(_):
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            withdrawn.set()

    async with talking([WRITE], ask=ask) as talk, asyncio.timeout(60):
        turn = asyncio.create_task(talk.send("edit it"))
        await asked.wait()
        await talk.run.interrupt()
        assert (await turn).status == "interrupted"
        await withdrawn.wait()
    assert not (world.cwd / "a.txt").exists()


async def test_closing_withdraws_the_question(talking, world):
    asked, withdrawn = asyncio.Event(), asyncio.Event()

    async def ask(_):
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        withdrawn.set()
        return PermissionAnswer(allow=True)

    async with talking([WRITE], ask=ask) as talk, asyncio.timeout(60):
        turn = asyncio.create_task(talk.send("edit it"))
        await asked.wait()
        await talk.run.close()
        assert withdrawn.is_set()
        await turn
    assert not (world.cwd / "a.txt").exists()


async def test_tools_that_are_allowed_by_name_are_not_asked_for(talking, world):
    asked = []
    call = Call("Bash", {"command": "touch made-by-bash"})
    rules = [Rule(When(text="make"), [Reply([call]), "Made."])]

    async def ask(question):
        asked.append(question)
        return PermissionAnswer(allow=False)

    async with talking(rules, ask=ask, allowed_tools=("Bash(touch *)", "Read")) as talk:
        await talk.send("make it")
    assert not asked
    assert (world.cwd / "made-by-bash").exists()
