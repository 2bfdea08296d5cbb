"""What turns inherit: who answers, until another is named; and nothing else."""

from typing import Any

import msgspec
import pytest
from dragoman_protocol.agent import AgentDefinition
from dragoman_protocol.query import ForkChoice, McpServer, SystemPromptPreset, ThinkingChoice, TurnOptions
from dragoman_protocol.stream import StreamSendParams, TurnCompleted
from dragomand.engine.inheritance import Inheritance

OWN = AgentDefinition(description="d", prompt="p", tools=["Read"], model="haiku")


def after(*turns: TurnOptions) -> Inheritance:
    """What is inherited after these turns, each stored and read again."""
    kept = Inheritance()
    for turn in turns:
        stored = kept.after(turn).stored()
        kept = Inheritance() if stored is None else msgspec.json.decode(stored, type=Inheritance)
    return kept


def test_nothing_named_leaves_nothing() -> None:
    assert after(TurnOptions()).stored() is None
    assert after(TurnOptions()).given_to(TurnOptions(effort="low")) == TurnOptions(effort="low")


@pytest.mark.parametrize(
    "named",
    [
        TurnOptions(agent="a"),
        TurnOptions(agent="a", agents={"a": OWN}),
        TurnOptions(model="opus"),
        TurnOptions(system_prompt="s", append_system_prompt="+"),
        TurnOptions(system_prompt=SystemPromptPreset(preset="claude_code", append="x")),
        TurnOptions(agent="a", model="opus", append_system_prompt="+"),
    ],
)
def test_who_answers_stays(named: TurnOptions) -> None:
    for turns in ((named,), (named, TurnOptions()), (named, TurnOptions(), TurnOptions())):
        assert after(*turns).given_to(TurnOptions()) == named


def test_what_is_named_last_counts() -> None:
    kept = after(TurnOptions(model="opus", system_prompt="one"), TurnOptions(system_prompt="two"))
    assert kept.given_to(TurnOptions()) == TurnOptions(model="opus", system_prompt="two")
    preset = SystemPromptPreset(preset="claude_code")
    kept = after(TurnOptions(system_prompt="one"), TurnOptions(system_prompt=preset))
    assert kept.given_to(TurnOptions()) == TurnOptions(system_prompt=preset)
    kept = after(
        TurnOptions(model="opus", append_system_prompt="x"), TurnOptions(model="", append_system_prompt="")
    )
    assert kept == Inheritance()


@pytest.mark.parametrize("agent", ["", "b"])
def test_naming_an_agent_or_none_begins_anew(agent: str) -> None:
    named = TurnOptions(agent="a", agents={"a": OWN}, model="opus", system_prompt="s")
    kept = after(named, TurnOptions(agent=agent))
    assert kept.given_to(TurnOptions()) == TurnOptions(agent=agent or None)


def test_an_agent_that_is_sent_along_is_the_one() -> None:
    kept = after(TurnOptions(agent="a", agents={"a": OWN}))
    other = msgspec.structs.replace(OWN, prompt="q")
    assert kept.given_to(TurnOptions(agents={"a": other, "b": OWN})).agents == {"a": other, "b": OWN}
    assert kept.given_to(TurnOptions(agents={"b": OWN})).agents == {"a": OWN, "b": OWN}


def test_what_lets_run_or_spends_is_of_one_turn() -> None:
    named = TurnOptions(
        allowed_tools=["Bash"],
        tools=["Bash"],
        disallowed_tools=["Write"],
        permission_mode="acceptEdits",
        max_turns=2,
        max_budget_usd=1.0,
        mcp_servers={"m": McpServer(command="c", env={"TOKEN": "secret"})},
        settings={"hooks": {}},
        plugins=["/p"],
        add_dirs=["/d"],
        env={"A": "b"},
        thinking=ThinkingChoice(type="disabled"),
    )
    assert after(named).stored() is None


def test_what_a_newer_version_kept_of_it_is_left_out() -> None:
    kept = Inheritance(agent="a", definition={"description": "d", "prompt": "p", "mood": "good"})
    given = kept.given_to(TurnOptions()).agents
    assert given == {"a": AgentDefinition(description="d", prompt="p")}


async def test_a_session_keeps_its_agent(kit: Any) -> None:
    async with kit.engine() as engine:
        run = engine.queries.run
        first = await run(engine.params(agent="style_checker"), kit.caller())
        session_id = first.session_id
        await run(engine.params(session_id=session_id), kit.caller())
        told = (await engine.sessions.get(session_id)).session
        one, two = (made.spec for made in engine.upstream.runs)
        assert (told.agent, one.agent, two.agent) == ("style_checker",) * 3
        assert (two.agents, two.model, two.max_turns) == (one.agents, one.model, one.max_turns)
        # Another one, and then none.
        await run(engine.params(session_id=session_id, agent="refactorer", model="haiku"), kit.caller())
        await run(engine.params(session_id=session_id), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.agent, spec.model) == ("refactorer", "haiku")
        assert (await engine.sessions.get(session_id)).session.model == "haiku"
        await run(engine.params(session_id=session_id, agent=""), kit.caller())
        await run(engine.params(session_id=session_id), kit.caller())
        specs = [made.spec for made in engine.upstream.runs[-2:]]
        assert [(spec.agent, spec.agents, spec.model) for spec in specs] == [(None, {}, None)] * 2
        told = (await engine.sessions.get(session_id)).session
        assert (told.agent, told.model) == (None, None)


async def test_a_stream_goes_on_with_the_sessions_agent(kit: Any) -> None:
    async with kit.engine() as engine:
        params = engine.params(agent="mine", agents={"mine": OWN})
        session_id = (await engine.queries.run(params, kit.caller())).session_id
        await engine.streams.open(engine.opening(session_id=session_id), kit.caller())
        assert engine.upstream.runs[-1].spec.agent == "mine"
        assert engine.upstream.runs[-1].spec.agents["mine"]["prompt"] == "p"
        await engine.streams.close(session_id)
        # Said to the stream, it holds for the session.
        await engine.streams.open(engine.opening(session_id=session_id, agent=""), kit.caller())
        await engine.streams.close(session_id)
        await engine.queries.run(engine.params(session_id=session_id), kit.caller())
        assert engine.upstream.runs[-1].spec.agent is None


async def test_a_new_streams_session_keeps_its_agent(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, channel = await engine.streams.open(engine.opening(agent="architect"), kit.caller())
        watcher = kit.Watcher()
        channel.subscribe(watcher)
        await engine.streams.send(StreamSendParams(session_id=session_id, prompt="x"), kit.caller())
        await watcher.sees(TurnCompleted)
        await engine.streams.close(session_id)
        assert (await engine.sessions.get(session_id)).session.agent == "architect"


async def test_an_agent_that_is_gone_is_named(kit: Any) -> None:
    async with kit.engine() as engine:
        folder = kit.folder / "agents"
        folder.mkdir()
        file = folder / "own.md"
        file.write_text("---\nname: own\ndescription: d\n---\nYou are it.\n")
        file.chmod(0o600)
        session_id = (await engine.queries.run(engine.params(agent="own"), kit.caller())).session_id
        file.write_text("---\nname: own\ndescription: d\n---\nYou are it, as changed.\n")
        await engine.queries.run(engine.params(session_id=session_id), kit.caller())
        assert engine.upstream.runs[-1].spec.agents["own"]["prompt"] == "You are it, as changed."
        file.unlink()
        again = engine.queries.run(engine.params(session_id=session_id), kit.caller())
        error = await kit.refused("agent_not_found", again)
        assert error.data["agent"] == "own"


async def test_what_is_inherited_must_be_allowed_too(kit: Any) -> None:
    able = kit.caller(scopes="query tools admin")
    bold = AgentDefinition(description="d", prompt="p", permission_mode="bypassPermissions")
    async with kit.engine() as engine:
        params = engine.params(agent="bold", agents={"bold": bold})
        session_id = (await engine.queries.run(params, able)).session_id
        await engine.queries.run(engine.params(session_id=session_id), able)
        assert engine.upstream.runs[-1].spec.permission_mode == "bypassPermissions"
        fork = ForkChoice(session_id=session_id)
        for params in (engine.params(session_id=session_id), engine.params(fork=fork)):
            await kit.refused("scope_required", engine.queries.run(params, kit.caller("other")))
        assert (await engine.sessions.get(session_id)).session.turn_count == 2
        engine.check_idle()
