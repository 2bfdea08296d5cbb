"""Every option of a turn, on the real CLI: what reaches the API, and which tools there are (02.1 to 02.7)."""

import json
import sys
from pathlib import Path

import pytest
from dragoman_protocol.query import ThinkingChoice
from dragoman_protocol.stream import ToolResult
from dragoman_sim import Reply, Rule, Status, When
from dragoman_sim import ToolUse as Call
from dragomand.upstream.interface import UpstreamError

REVIEWER = {
    "description": "Reviews",
    "prompt": "You are the reviewer.",
    "tools": ["Read", "Bash"],
    "model": "haiku",
}

SERVER = """
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    result = {}
    if asked["method"] == "initialize":
        version = asked["params"]["protocolVersion"]
        info = {"name": "t", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
    elif asked["method"] == "tools/list":
        result = {"tools": [{"name": "greet", "description": "greets", "inputSchema": {"type": "object"}}]}
    elif asked["method"] == "tools/call":
        result = {"content": [{"type": "text", "text": "hello " + os.environ["WHO"]}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def system_of(body):
    return "\n".join(part["text"] for part in body["system"])


def tools_of(body):
    return {tool["name"] for tool in body.get("tools", [])} - {"DeferredToolPlaceholder"}


def arguments_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def asked(talking, **spec):
    """Return the first request that reaches the API for a turn with these options."""
    async with talking(**spec) as talk:
        await talk.send("hello")
        return talk.sim.messages[0].json()


@pytest.mark.parametrize(
    ("alias", "name"), [("opus", "claude-opus-"), ("sonnet", "claude-sonnet-"), ("haiku", "claude-haiku-")]
)
async def test_the_model_is_the_one_that_was_chosen(talking, alias, name):
    """00.3, 02.1, 02.25."""
    async with talking(model=alias) as talk:
        outcome = await talk.send("hello")
        assert talk.sim.messages[0].json()["model"].startswith(name)
        assert outcome.model.startswith(name)


async def test_the_table_of_models_says_what_claude_code_takes_an_alias_for(talking):
    from dragoman_protocol.model import MODELS

    for row in MODELS:
        body = await asked(talking, model=row.alias)
        assert body["model"] == row.model


@pytest.mark.parametrize("fault", [Status(529, "overloaded_error"), Status(404, "not_found_error")])
async def test_another_model_answers_when_the_first_cannot(talking, fault):
    """02.2, 02.27."""
    rules = [Rule(When(model="opus"), fault=fault), Rule(When(model="haiku"), "Gladly.")]
    async with talking(rules, model="opus", fallback_model="haiku,sonnet") as talk:
        outcome = await talk.send("hello")
        assert (outcome.status, outcome.text) == ("completed", "Gladly.")
        models = [record.json()["model"] for record in talk.sim.messages]
    assert "opus" in models[0]
    assert "haiku" in models[-1]


async def test_an_agent_answers(talking):
    """02.3, 02.26, 02.30: its prompt, its tools, its model."""
    body = await asked(
        talking, agent="reviewer", agents={"reviewer": REVIEWER}, append_system_prompt="Be kind."
    )
    assert "You are the reviewer.\n\nBe kind." in system_of(body)
    assert tools_of(body) == {"Read", "Bash"}
    assert body["model"].startswith("claude-haiku-")


async def test_an_agent_can_be_asked_by_another(talking, world):
    call = Call("Agent", {"subagent_type": "reviewer", "description": "look", "prompt": "Review it."})
    rules = [
        Rule(When(text="Review it."), "Looks good."),
        Rule(When(text="ask the reviewer"), [Reply([call]), "It was reviewed."]),
    ]
    async with talking(
        rules, ask=world.allow, agents={"reviewer": {**REVIEWER, "background": False}}
    ) as talk:
        outcome = await talk.send("ask the reviewer")
        assert outcome.text == "It was reviewed."
        bodies = [record.json() for record in talk.sim.messages]
    of_reviewer = [body for body in bodies if "You are the reviewer." in system_of(body)]
    assert of_reviewer
    assert all(body["model"].startswith("claude-haiku-") for body in of_reviewer)


async def test_an_agent_without_tools_has_none(talking):
    """What a client without the scope `tools` gets, whatever the agent would bring."""
    for definition in ({**REVIEWER, "tools": []}, {"description": "d", "prompt": "p"}):
        body = await asked(talking, agent="r", agents={"r": definition}, tools=())
        assert tools_of(body) == set()


async def test_another_agent_may_go_on_with_a_session(talking, world):
    async with talking(agent="reviewer", agents={"reviewer": REVIEWER}) as talk:
        await talk.send("hello")
        session = talk.run.upstream_session_id
    other = {"description": "Writes", "prompt": "You are the writer."}
    body = await asked(talking, resume=session, agent="writer", agents={"writer": other})
    assert "You are the writer." in system_of(body)
    assert "You are the reviewer." not in system_of(body)


async def test_servers_are_there_before_the_first_word(talking, world):
    (world.root / "server.py").write_text(SERVER)
    command = {"command": sys.executable, "args": [f"{world.root}/server.py"], "env": {"WHO": "the secret"}}
    rules = [Rule(When(text="greet"), [Reply([Call("mcp__local__greet", {})]), "Greeted."])]
    events = world.events()
    async with talking(rules, ask=world.allow, mcp_servers={"local": command}, tools=()) as talk:
        for pid in (talk.run._child.pid, world.cli_pid(talk)):
            assert b"the secret" not in arguments_of(pid)
        outcome = await talk.send("greet", events)
        assert outcome.text == "Greeted."
        assert tools_of(talk.sim.messages[0].json()) == {"mcp__local__greet"}
    (result,) = events.of(ToolResult)
    assert "hello the secret" in json.dumps(result.content)


async def test_a_server_that_cannot_be_started_fails_the_start(talking, world):
    with pytest.raises(UpstreamError, match=r"MCP servers could not be started\. broken: ") as caught:
        await world.upstream().open(
            world.spec(mcp_servers={"broken": {"command": "/nowhere/at/all"}}), world.deny
        )
    assert caught.value.failure.category == "caller"
    assert world.survivors() == []


async def test_settings_hold_and_are_in_no_argument(talking, world):
    """02.5."""
    rules = [Rule(When(text="env"), [Reply([Call("Bash", {"command": "echo $MARK"})]), "Over."])]
    settings = {
        "model": "haiku",
        "env": {"MARK": "from-settings"},
        "permissions": {"allow": ["Bash(echo *)"]},
    }
    events = world.events()
    async with talking(rules, ask=world.allow, chosen_settings=settings) as talk:
        assert b"from-settings" not in arguments_of(world.cli_pid(talk))
        await talk.send("env", events)
        assert talk.sim.messages[0].json()["model"].startswith("claude-haiku-")
    assert "from-settings" in json.dumps([result.content for result in events.of(ToolResult)])


async def test_the_sandbox_is_one_of_the_settings(talking):
    async with talking(chosen_settings={"sandbox": {"enabled": True}}) as talk:
        told = await talk.run._control.request({"subtype": "get_settings"}, 20)
    assert told["effective"] == {"sandbox": {"enabled": True}}


async def test_settings_that_are_wrong_fail_the_start(world):
    with pytest.raises(UpstreamError, match=r"invalid settings.*model") as caught:
        await world.upstream().open(world.spec(settings={"model": 7}), world.deny)
    assert caught.value.failure.category == "caller"
    assert world.survivors() == []


async def test_thinking_effort_budget_and_betas_reach_the_api(talking):
    choice = ThinkingChoice(type="enabled", budget_tokens=2000, display="summarized")
    async with talking(model="claude-sonnet-4-5", thinking=choice, betas=("context-1m-2025-08-07",)) as talk:
        await talk.send("hello")
        record = talk.sim.messages[0]
        assert record.json()["thinking"] == {
            "type": "enabled",
            "budget_tokens": 2000,
            "display": "summarized",
        }
        assert "context-1m-2025-08-07" in record.headers["anthropic-beta"]
    off = ThinkingChoice(type="disabled")
    body = await asked(talking, model="claude-sonnet-4-5", thinking=off, task_budget_tokens=20_000)
    assert body["thinking"] == {"type": "disabled"}
    assert body["output_config"]["task_budget"] == {"type": "tokens", "total": 20_000}
    body = await asked(talking, effort="max")
    assert body["output_config"]["effort"] == "max"


async def test_a_turn_ends_at_its_budget(talking):
    async with talking(max_budget_usd=0.000001) as talk:
        outcome = await talk.send("hello")
    assert (outcome.status, outcome.failure.category) == ("failed", "caller")
    assert "budget" in outcome.failure.message


async def test_an_added_folder_may_be_worked_in(talking, world):
    """02.6: without it, Claude Code asks before it reads outside of the working directory."""
    other = world.root / "other"
    other.mkdir()
    (other / "note.txt").write_text("the note")
    rules = [Rule(When(text="read"), [Reply([Call("Read", {"file_path": f"{other}/note.txt"})]), "Over."])]
    for folders, expected in (((), False), ((other,), True)):
        events = world.events()
        async with talking(rules, add_dirs=folders) as talk:
            await talk.send("read", events)
        assert ("the note" in json.dumps([result.content for result in events.of(ToolResult)])) is expected


async def test_plugins_and_skills(talking, world):
    plugin = world.root / "plug"
    for name in ("sing", "dance"):
        (plugin / "skills" / name).mkdir(parents=True)
        text = f"---\nname: {name}\ndescription: how to {name} loudly\n---\n\nDo {name}.\n"
        (plugin / "skills" / name / "SKILL.md").write_text(text)
    (plugin / ".claude-plugin").mkdir()
    (plugin / ".claude-plugin" / "plugin.json").write_text(
        '{"name": "plug", "version": "1.0.0", "description": "d"}'
    )
    for skills, seen in ((None, {"sing", "dance"}), (("plug:sing",), {"sing"}), ((), set())):
        async with talking(plugins=(str(plugin),), skills=skills) as talk:
            await talk.send("hello")
            body = talk.sim.messages[0].body.decode()
        assert {name for name in ("sing", "dance") if f"how to {name} loudly" in body} == seen


async def test_the_users_own_settings_can_be_left_out(talking, world):
    (world.config / "settings.json").write_text('{"model": "haiku"}')
    assert (await asked(talking))["model"].startswith("claude-haiku-")
    assert not (await asked(talking, setting_sources=()))["model"].startswith("claude-haiku-")


async def test_a_verbatim_prompt_brings_no_file_along(talking, world):
    (world.cwd / "note.txt").write_text("the contents of the note")
    for verbatim in (False, True):
        async with talking(verbatim_prompt=verbatim) as talk:
            await talk.send("what is in @note.txt")
            assert (b"the contents of the note" in talk.sim.messages[0].body) is not verbatim


async def test_copies_of_changed_files_are_kept(talking, world):
    (world.cwd / "note.txt").write_text("before")
    path = str(world.cwd / "note.txt")
    rules = [
        Rule(When(text="write"), [
            Reply([Call("Read", {"file_path": path})]),
            Reply([Call("Write", {"file_path": path, "content": "after"})]),
            "Over.",
        ])
    ]  # fmt: skip
    async with talking(rules, ask=world.allow, file_checkpointing=True) as talk:
        await talk.send("write")
    assert (world.cwd / "note.txt").read_text() == "after"
    kept = [file for file in (world.config / "file-history").rglob("*") if file.is_file()]
    assert "before" in [file.read_text() for file in kept]


async def test_a_preset_prompt_without_what_differs(talking):
    whole = await asked(talking)
    same = await asked(talking, exclude_dynamic_sections=True)
    assert len(system_of(same)) < len(system_of(whole))
    assert len(str(same["messages"])) > len(str(whole["messages"]))  # it is said there instead


def test_nothing_chosen_adds_no_argument(world):
    """02.7."""
    from dragomand.upstream.claude_code.command import build_arguments

    plain = build_arguments("claude", world.spec(session_id="s"))
    assert [argument for argument in plain if "None" in argument or argument.endswith("=")] == []
    assert plain[-2:] == ["--setting-sources=user", "--session-id=s"]
