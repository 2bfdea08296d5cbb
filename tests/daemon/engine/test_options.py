"""What a turn may choose, what the upstream is told, and what tells two submissions apart."""

from pathlib import Path
from typing import Any

import pytest
from dragoman_protocol.agent import AgentDefinition
from dragoman_protocol.content import TextBlock
from dragoman_protocol.query import (
    McpServer,
    QueryRunParams,
    SystemPromptPreset,
    ThinkingChoice,
    TurnOptions,
)
from dragomand.engine import options
from dragomand.engine.caller import Caller
from dragomand.engine.errors import EngineError
from dragomand.store.rows import SessionRow

ALLOWED = ["PATH", "LANG"]


def who(*scopes: str) -> Caller:
    return Caller(id="c", name="n", scopes=frozenset(scopes))


def refused(kind: str, chosen: TurnOptions, *scopes: str) -> EngineError:
    with pytest.raises(EngineError) as caught:
        options.check(chosen, who(*scopes), ALLOWED)
    assert caught.value.kind == kind
    return caught.value


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"model": "opus", "fallback_model": "haiku", "max_turns": 1},
        {"permission_mode": "acceptEdits", "tools": ["Read"], "allowed_tools": ["Bash(git *)"]},
        {"env": {"PATH": "/bin", "LANG": ""}, "tools": [], "disallowed_tools": ["Write"]},
        {"system_prompt": "- be brief", "append_system_prompt": "no\0matter"},
    ],
)
def test_what_anybody_may(chosen: dict[str, Any]) -> None:
    options.check(TurnOptions(**chosen), who("query", "tools"), ALLOWED)


def test_bypassing_permissions_needs_admin() -> None:
    error = refused(
        "scope_required", TurnOptions(permission_mode="bypassPermissions"), "query", "tools", "approve"
    )
    assert error.data == {"needed": "admin", "granted": ["approve", "query", "tools"]}
    assert "ask for it in `initialize`" in str(error)
    options.check(TurnOptions(permission_mode="bypassPermissions"), who("admin"), ALLOWED)


@pytest.mark.parametrize("chosen", [{"tools": ["Read"]}, {"allowed_tools": ["Read"]}])
def test_tools_need_their_scope(chosen: dict[str, Any]) -> None:
    assert refused("scope_required", TurnOptions(**chosen), "query").data["needed"] == "tools"


def test_without_the_scope_there_are_no_tools() -> None:
    options.check(TurnOptions(tools=[]), who("query"), ALLOWED)
    session = SessionRow(session_id="s", created_at=0, updated_at=0, epoch="e", cwd="/w")
    assert options.to_spec(TurnOptions(), who("query"), session, resume=None).tools == ()
    assert options.to_spec(TurnOptions(), who("tools"), session, resume=None).tools is None


@pytest.mark.parametrize(
    ("chosen", "path"),
    [
        ({"env": {"LD_PRELOAD": "/x"}}, "$.env.LD_PRELOAD"),
        ({"env": {"PATH": "a\0b"}}, "$.env.PATH"),
        ({"max_turns": 0}, "$.maxTurns"),
        ({"model": "op\0us"}, "$.model"),
        ({"fallback_model": "\0"}, "$.fallbackModel"),
        ({"fallback_model": ["a", "\0"]}, "$.fallbackModel[1]"),
        ({"agent": "\0"}, "$.agent"),
        ({"betas": ["\0"]}, "$.betas[0]"),
        ({"plugins": ["/\0"]}, "$.plugins[0]"),
        ({"add_dirs": ["/\0"]}, "$.addDirs[0]"),
        ({"skills": ["\0"]}, "$.skills[0]"),
        ({"setting_sources": ["project"]}, "$.settingSources"),
        ({"tools": ["Read", "W\0"]}, "$.tools[1]"),
        ({"allowed_tools": ["\0"]}, "$.allowedTools[0]"),
        ({"disallowed_tools": ["\0"]}, "$.disallowedTools[0]"),
    ],
)
def test_what_nobody_may(chosen: dict[str, Any], path: str) -> None:
    error = refused("invalid_params", TurnOptions(**chosen), "tools", "admin")
    assert error.data["path"] == path


def test_what_may_be_set_in_the_environment_is_listed() -> None:
    assert "claude.allowedEnv lists what is: PATH, LANG." in str(
        refused("invalid_params", TurnOptions(env={"X": ""}))
    )


@pytest.mark.parametrize(("name", "least"), [("timeout_ms", 1), ("queue_timeout_ms", 0)])
def test_times(name: str, least: int) -> None:
    options.check_times(QueryRunParams(prompt="", **{name: None}))  # type: ignore[arg-type]
    options.check_times(QueryRunParams(prompt="", **{name: least}))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=f"must be {least} or more; got {least - 1}") as caught:
        options.check_times(QueryRunParams(prompt="", **{name: least - 1}))  # type: ignore[arg-type]
    assert caught.value.kind == "invalid_params"


def test_the_upstream_is_told_everything() -> None:
    chosen = TurnOptions(
        model="opus",
        fallback_model="haiku",
        system_prompt="sp",
        append_system_prompt="asp",
        allowed_tools=["Read"],
        disallowed_tools=["Write"],
        tools=["Read", "Write"],
        permission_mode="plan",
        max_turns=3,
        env={"LANG": "C"},
        agent="a",
        agents={"a": AgentDefinition(description="d", prompt="p", tools=["Read", "Bash"], max_turns=1)},
        max_budget_usd=0.5,
        task_budget_tokens=30_000,
        thinking=ThinkingChoice(type="adaptive"),
        effort="high",
        mcp_servers={
            "m": McpServer(command="c", env={"A": "1"}),
            "h": McpServer(type="http", url="u"),
        },
        add_dirs=["/"],
        skills=["one"],
        settings={"x": 1},
        sandbox={"enabled": True},
        setting_sources=[],
        plugins=["/p"],
        betas=["b"],
        file_checkpointing=True,
        verbatim_prompt=True,
        hook_events=True,
    )
    session = SessionRow(
        session_id="s", created_at=0, updated_at=0, epoch="e", cwd="/w", claude_message_count=4
    )
    spec = options.to_spec(chosen, who("tools"), session, resume="claude-id")
    assert {name: getattr(spec, name) for name in spec.__slots__} == {
        "session_id": "s",
        "client": "c",
        "cwd": Path("/w"),
        "resume": "claude-id",
        "resume_message_count": 4,
        "resume_holds": None,
        "fork": False,
        "model": "opus",
        "fallback_model": "haiku",
        "system_prompt": "sp",
        "append_system_prompt": "asp",
        "allowed_tools": ("Read", "Skill(one)"),
        "disallowed_tools": ("Write",),
        "tools": ("Read", "Write"),
        "permission_mode": "plan",
        "max_turns": 3,
        "env": {"LANG": "C"},
        "api": None,
        "output_schema": None,
        "history": (),
        "deltas_wanted": spec.deltas_wanted,
        "admit_call": None,
        "agent": "a",
        "agents": {"a": {"description": "d", "prompt": "p", "tools": ["Read"]}},
        "exclude_dynamic_sections": False,
        "max_budget_usd": 0.5,
        "task_budget_tokens": 30_000,
        "thinking": ThinkingChoice(type="adaptive"),
        "effort": "high",
        "mcp_servers": {"m": {"command": "c", "env": {"A": "1"}}, "h": {"type": "http", "url": "u"}},
        "add_dirs": (Path("/"),),
        "skills": ("one",),
        "settings": {"x": 1, "sandbox": {"enabled": True}},
        "setting_sources": (),
        "plugins": ("/p",),
        "betas": ("b",),
        "file_checkpointing": True,
        "verbatim_prompt": True,
        "hook_events": True,
    }
    assert spec.deltas_wanted()
    assert options.to_spec(chosen, who("tools"), session, resume=None).resume_message_count is None


@pytest.mark.parametrize(
    ("chosen", "instruction", "told"),
    [
        (None, None, None),
        ("mine", None, "mine"),
        (None, "JSON", "JSON"),
        ("mine", "JSON", "mine\n\nJSON"),
    ],
)
def test_an_instruction_is_added_to_the_system_prompt(
    chosen: str | None, instruction: str | None, told: str | None
) -> None:
    session = SessionRow(session_id="s", created_at=0, updated_at=0, epoch="e", cwd="/w")
    given = TurnOptions(append_system_prompt=chosen)
    spec = options.to_spec(given, who("tools"), session, resume=None, instruction=instruction)
    assert spec.append_system_prompt == told


TOOLS = ["Read", "Bash(git *)", "Grep", "mcp__m__t"]
SESSION = SessionRow(session_id="s", created_at=0, updated_at=0, epoch="e", cwd="/w")


def spec_of(*scopes: str, **chosen: Any) -> Any:
    return options.to_spec(TurnOptions(**chosen), who(*scopes), SESSION, resume=None)


def test_several_fallbacks_become_one_argument() -> None:
    assert spec_of("tools", fallback_model=["haiku", "sonnet"]).fallback_model == "haiku,sonnet"
    assert spec_of("tools", fallback_model=[]).fallback_model is None


def test_the_preset_prompt_may_be_added_to() -> None:
    prompt = SystemPromptPreset(preset="claude_code", append="more", exclude_dynamic_sections=True)
    spec = spec_of("tools", system_prompt=prompt)
    assert (spec.append_system_prompt, spec.exclude_dynamic_sections) == ("more", True)
    assert spec.system_prompt is None
    spec = spec_of("tools", system_prompt=SystemPromptPreset(preset="claude_code"), append_system_prompt="b")
    assert (spec.append_system_prompt, spec.exclude_dynamic_sections) == ("b", False)


def test_all_skills_are_used_without_asking() -> None:
    spec = spec_of("tools", skills="all", allowed_tools=["Read"])
    assert (spec.skills, spec.allowed_tools) == (None, ("Read", "Skill"))
    assert (spec_of("tools", skills=[]).skills, spec_of("tools", skills=[]).allowed_tools) == ((), None)


def test_no_agent_has_a_tool_that_the_turn_does_not_have() -> None:
    """Claude Code gives an agent that answers some of its tools whatever `--tools` says."""
    agents = {
        "some": AgentDefinition(description="d", prompt="p", tools=TOOLS),
        "all": AgentDefinition(description="d", prompt="p"),
    }

    def tools(*scopes: str, **chosen: Any) -> dict[str, Any]:
        found = spec_of(*scopes, agent="some", agents=agents, **chosen).agents
        return {name: agent.get("tools") for name, agent in found.items()}

    assert tools("tools") == {"some": TOOLS, "all": None}
    assert tools("tools", tools=["Bash", "Write"]) == {"some": ["Bash(git *)", "mcp__m__t"], "all": None}
    assert tools("query") == {"some": [], "all": []}


def test_what_the_agent_says_of_the_turn_is_left_out_of_its_definition() -> None:
    full = AgentDefinition(
        description="d", prompt="p", model="opus", max_turns=3, effort="low", permission_mode="plan",
        disallowed_tools=["Write"], background=True, skills=["s"], examples=["Do it"],
    )  # fmt: skip
    found = spec_of("tools", agent="a", agents={"a": full, "b": full}).agents
    described = {"description": "d\n\nExamples:\n- Do it", "prompt": "p", "model": "opus", "skills": ["s"]}
    assert found["a"] == described
    assert found["b"] == {
        **described, "maxTurns": 3, "effort": "low", "permissionMode": "plan", "disallowedTools": ["Write"],
        "background": True,
    }  # fmt: skip


BASE = QueryRunParams(prompt="hi", cwd="/w", message_id="m")


@pytest.mark.parametrize(
    "same",
    [
        {"message_id": "n"},
        {"timeout_ms": 5},
        {"queue_timeout_ms": 5},
        {"partial_result_token": 7},
        {"priority": "batch"},
        {"model": None},
    ],
)
def test_how_it_is_waited_for_is_not_part_of_what_is_asked(same: dict[str, Any]) -> None:
    other = QueryRunParams(**{"prompt": "hi", "cwd": "/w", **same})
    assert options.digest(other) == options.digest(BASE)


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "ho"},
        {"prompt": [TextBlock(text="hi")]},
        {"cwd": "/v"},
        {"session_id": "s"},
        {"upstream": "claudeCode"},
        {"model": "opus"},
        {"env": {"PATH": "/"}},
        {"tools": []},
        {"title": "t"},
        {"tags": ["t"]},
    ],
)
def test_what_is_asked_is(other: dict[str, Any]) -> None:
    assert options.digest(QueryRunParams(**{"prompt": "hi", "cwd": "/w", **other})) != options.digest(BASE)


def test_digests_are_stored_so_they_stay() -> None:
    """What an older version stored is compared with what this one computes."""
    asked = QueryRunParams(prompt=[TextBlock(text="hi")], cwd="/w", model="opus", env={"B": "2", "A": "1"})
    assert options.digest(asked) == "1a1c0b36deed0bdb0d6f78b269a1a1606919536a3e3b1de1e827bcedf36db190"
