"""The library of agents, and who answers a turn (02.17 to 02.22, 02.30)."""

import os
from pathlib import Path
from typing import Any

import pytest
from dragoman_protocol.agent import AgentDefinition
from dragoman_protocol.orchestrate import OrchestrateItem, OrchestrateParallelParams
from dragoman_protocol.query import TurnOptions
from dragoman_protocol.stream import StreamSendParams
from dragomand.engine import agents as module
from dragomand.engine.agents import Agents
from dragomand.engine.errors import EngineError

PRESETS = Path(module.__file__).parents[1] / "agents"
GROUPS = {
    "security": {"security_reviewer", "crypto_auditor"},
    "code_quality": {"style_checker", "performance_optimizer", "refactorer"},
    "testing": {"test_generator", "test_reviewer"},
    "documentation": {"doc_generator", "api_documenter"},
    "debugging": {"debugger", "log_analyst"},
    "planning": {"architect", "migration_planner"},
}
FOCUS = {
    "security_reviewer": ["OWASP", "SQL injection", "XSS", "CSRF"],
    "crypto_auditor": ["NIST", "FIPS"],
    "refactorer": ["DRY", "SOLID"],
    "test_generator": ["AAA", "arrange, act, assert"],
    "test_reviewer": ["AAA"],
    "performance_optimizer": ["complexity", "profile"],
}


def own(folder: Path, name: str, /, text: str = "", **fields: str) -> None:
    folder.mkdir(exist_ok=True)
    head = "".join(f"{key}: {value}\n" for key, value in {"description": f"my {name}", **fields}.items())
    (folder / f"{name}.md").write_text(text or f"---\n{head}---\nYou are {name}.\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "agents"


@pytest.fixture
def library(folder: Path) -> Agents:
    return Agents(PRESETS, folder)


async def test_the_presets_come_in_groups(library: Agents) -> None:
    listed = await library.list()
    assert len(listed.data) >= 12
    assert listed.problems == []
    found: dict[str, set[str]] = {}
    for info in listed.data:
        assert (info.source, info.path) == ("preset", None)
        assert info.tools
        found.setdefault(info.group or "", set()).add(info.name)
    assert found == GROUPS
    for group, names in GROUPS.items():
        assert {info.name for info in (await library.list(group)).data} == names


@pytest.mark.parametrize("name", sorted(FOCUS))
async def test_prompts_say_what_to_look_for(library: Agents, name: str) -> None:
    prompt = (await library.get(name)).definition.prompt
    assert [word for word in FOCUS[name] if word.lower() not in prompt.lower()] == []


async def test_every_preset_says_when_to_use_it_and_how_to_work(library: Agents) -> None:
    for info in (await library.list()).data:
        found = await library.get(info.name)
        assert "Use it" in info.description
        assert 500 < len(found.definition.prompt) < 3000
        assert found.definition.model in ("opus", "sonnet", "haiku")


async def test_the_users_own_are_read_when_they_are_asked_for(library: Agents, folder: Path) -> None:
    assert (await library.list()).folder == str(folder)
    own(folder, "mine", tools="Read")
    listed = (await library.list()).data
    assert (listed[-1].name, listed[-1].source, listed[-1].path) == ("mine", "user", f"{folder}/mine.md")
    assert (await library.get("mine")).definition == AgentDefinition(
        description="my mine", prompt="You are mine.", tools=["Read"]
    )


async def test_the_users_own_wins_over_a_preset_and_the_later_file_over_the_earlier(
    library: Agents, folder: Path
) -> None:
    own(folder, "a", name="debugger")
    own(folder, "b", name="debugger", description="the later")
    listed = [info for info in (await library.list()).data if info.name == "debugger"]
    assert [(info.source, info.description) for info in listed] == [("user", "the later")]


async def test_bad_files_are_told_and_harm_nothing(library: Agents, folder: Path) -> None:
    own(folder, "good")
    own(folder, "bad", text="no front matter")
    (folder / "readme.txt").write_text("not looked at")
    listed = await library.list()
    assert listed.data[-1].name == "good"
    assert [(Path(each.path).name, each.reason) for each in listed.problems] == [
        ("bad.md", "it does not begin with front matter (a line `---`)")
    ]
    with pytest.raises(EngineError, match="There is a file of that name that cannot be used"):
        await library.get("bad")


async def test_a_folder_that_is_none_and_one_that_is_too_full(
    library: Agents, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(os.open(folder, os.O_CREAT))
    (problem,) = (await library.list()).problems
    assert "cannot be read" in problem.reason
    os.unlink(folder)
    for name in "abc":
        own(folder, name)
    monkeypatch.setattr(module, "MAX_FILES", 2)
    listed = await library.list()
    assert [info.name for info in listed.data if info.source == "user"] == ["a", "b"]
    assert [each.reason for each in listed.problems] == ["it has 3 agents; the first 2 are read"]


async def test_a_preset_that_is_broken_is_our_mistake(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "a.md").write_text("nothing")
    with pytest.raises(ValueError, match="front matter"):
        await Agents(tmp_path, tmp_path / "none").list()


async def test_an_unknown_name_is_told_with_the_nearest(library: Agents) -> None:
    with pytest.raises(EngineError, match="Did you mean `security_reviewer`") as caught:
        await library.get("security-reviewer")
    assert caught.value.kind == "agent_not_found"
    assert caught.value.data == {"agent": "security-reviewer", "nearest": "security_reviewer"}
    with pytest.raises(EngineError, match="`agent/list` lists"):
        await library.answering(TurnOptions(agent="x" * 500))


async def test_without_an_agent_nothing_changes(library: Agents) -> None:
    options = TurnOptions(model="opus")
    assert await library.answering(options) is options


async def test_an_agent_decides_what_the_turn_leaves_open(library: Agents, folder: Path) -> None:
    own(folder, "mine", model="haiku", maxTurns="3", effort="low", permissionMode="plan",
        disallowedTools="Write")  # fmt: skip
    answering = await library.answering(TurnOptions(agent="mine", disallowed_tools=["Bash"]))
    assert (answering.model, answering.max_turns, answering.effort) == ("haiku", 3, "low")
    assert (answering.permission_mode, answering.disallowed_tools) == ("plan", ["Bash", "Write"])
    assert list(answering.agents or {}) == ["mine"]
    chosen: dict[str, Any] = {"model": "opus", "max_turns": 9, "effort": "max", "permission_mode": "dontAsk"}
    answering = await library.answering(TurnOptions(agent="mine", **chosen))
    assert {name: getattr(answering, name) for name in chosen} == chosen


async def test_one_that_is_given_wins_over_the_library(library: Agents) -> None:
    given = AgentDefinition(description="d", prompt="p", model="inherit")
    other = AgentDefinition(description="o", prompt="p")
    options = TurnOptions(agent="debugger", agents={"debugger": given, "other": other})
    answering = await library.answering(options)
    assert answering.agents == {"debugger": given, "other": other}
    assert answering.model is None
    assert answering.disallowed_tools is None
    options = TurnOptions(agent="architect", agents={"other": other})
    assert set((await library.answering(options)).agents or {}) == {"architect", "other"}
    assert options.agents == {"other": other}


async def test_a_turn_runs_with_its_agent(kit: Any) -> None:
    async with kit.engine() as engine:
        await kit.refused("agent_not_found", engine.queries.run(engine.params(agent="nobody"), kit.caller()))
        await kit.refused(
            "agent_not_found", engine.streams.open(engine.opening(agent="nobody"), kit.caller())
        )
        await engine.queries.run(engine.params(agent="debugger"), kit.caller())
        session, _ = await engine.streams.open(engine.opening(agent="architect"), kit.caller())
        await engine.streams.close(session)
        first, second = (run.spec for run in engine.upstream.runs)
    assert (first.agent, first.model, list(first.agents)) == ("debugger", "opus", ["debugger"])
    assert (second.agent, second.agents["architect"]["tools"]) == ("architect", ["Read", "Grep", "Glob"])


async def test_items_of_a_plan_may_each_have_their_own(kit: Any) -> None:
    async with kit.engine() as engine:
        items = [OrchestrateItem(prompt="1", agent="debugger"), OrchestrateItem(prompt="2", agent="nobody")]
        params = OrchestrateParallelParams(items=items, cwd=str(engine.cwd))
        done = await engine.orchestrations.parallel(
            params, kit.caller(), started=lambda _: None, outcome=lambda _: None
        )
        first, second = done.data
        assert first.result is not None
        assert second.error is not None
        assert second.error["kind"] == "agent_not_found"
        assert [run.spec.agent for run in engine.upstream.runs] == ["debugger"]


async def test_what_needs_a_scope_needs_it_whoever_brings_it(kit: Any) -> None:
    """A file of the user's own, and a stream that somebody else opened, widen nobody's scopes."""
    async with kit.engine() as engine:
        own(kit.folder / "agents", "reckless", permissionMode="bypassPermissions")
        weak, strong = kit.caller(), kit.caller("client-2", scopes="query tools approve admin")
        run = engine.queries.run(engine.params(agent="reckless"), weak)
        assert (await kit.refused("scope_required", run)).data["needed"] == "admin"
        session, _ = await engine.streams.open(engine.opening(agent="reckless"), strong)
        sending = engine.streams.send(StreamSendParams(session_id=session, prompt="hi"), weak)
        assert (await kit.refused("scope_required", sending)).data["needed"] == "admin"
        await engine.streams.close(session)


async def test_what_was_asked_is_what_a_message_id_stands_for(kit: Any) -> None:
    """Not what the agent's file says: it may change between two submissions."""
    async with kit.engine() as engine:
        own(kit.folder / "agents", "mine")
        params = engine.params(agent="mine", message_id="m-1")
        first = await engine.queries.run(params, kit.caller())
        own(kit.folder / "agents", "mine", model="opus")
        second = await engine.queries.run(params, kit.caller())
        assert (second.turn_id, second.replayed) == (first.turn_id, True)
