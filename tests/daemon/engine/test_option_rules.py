"""Which options need which scope, and which values are refused."""

from pathlib import Path
from typing import Any

import pytest
from dragoman_protocol.agent import AgentDefinition
from dragoman_protocol.query import McpServer, SystemPromptPreset, ThinkingChoice, TurnOptions
from dragomand.engine.errors import EngineError
from dragomand.engine.option_rules import check_values, needs

AGENT = AgentDefinition(description="d", prompt="p")
BYPASSING = AgentDefinition(description="d", prompt="p", permission_mode="bypassPermissions")
NO_TURNS = AgentDefinition(description="d", prompt="p", max_turns=0)
THINKING = {
    "no": ThinkingChoice(type="adaptive", budget_tokens=2000),
    "few": ThinkingChoice(type="enabled", budget_tokens=5),
}
PRESET = SystemPromptPreset(preset="claude_code", append="a")
STDIO = McpServer(command="server", args=["-x"], env={"TOKEN": "t"})
HTTP = McpServer(type="http", url="https://h", headers={"Authorization": "t"})


@pytest.mark.parametrize(
    ("chosen", "scopes"),
    [
        ({}, []),
        ({"model": "opus", "fallback_model": ["a", "b"], "max_turns": 1, "agent": "a"}, []),
        ({"agents": {"a": AGENT}, "add_dirs": ["/"], "setting_sources": [], "skills": []}, []),
        ({"betas": ["b"], "thinking": ThinkingChoice(type="adaptive"), "effort": "low"}, []),
        ({"settings": {}, "sandbox": {}, "plugins": [], "mcp_servers": {}}, []),
        ({"mcp_servers": {"m": STDIO}}, ["tools"]),
        ({"skills": "all"}, ["tools"]),
        ({"skills": ["one"]}, ["tools"]),
        ({"sandbox": {"enabled": True}}, ["tools"]),
        ({"sandbox": {"enabled": False}}, ["admin"]),
        ({"sandbox": {"enabled": True, "excludedCommands": ["git"]}}, ["admin"]),
        ({"settings": {"model": "opus"}}, ["admin"]),
        ({"plugins": ["/p"]}, ["admin"]),
        ({"permission_mode": "bypassPermissions"}, ["admin"]),
        ({"agents": {"a": BYPASSING}}, ["admin"]),
    ],
)
def test_what_needs_which_scope(chosen: dict[str, Any], scopes: list[str]) -> None:
    assert [scope for scope, _ in needs(TurnOptions(**chosen))] == scopes


def test_values_that_are_fine(tmp_path: Path) -> None:
    check_values(
        TurnOptions(
            agents={"a-b_1": AGENT},
            mcp_servers={"stdio": STDIO, "http": HTTP},
            setting_sources=["user"],
            add_dirs=[str(tmp_path)],
            plugins=[str(tmp_path)],
            system_prompt=SystemPromptPreset(preset="claude_code", append="more"),
            thinking=ThinkingChoice(type="enabled", budget_tokens=1024),
            max_budget_usd=0.01,
            task_budget_tokens=20_000,
        ),
        [str(tmp_path)],
    )


@pytest.mark.parametrize(
    ("chosen", "path", "says"),
    [
        ({"max_turns": 0}, "maxTurns", "must be 1 or more; got 0"),
        ({"task_budget_tokens": 5}, "taskBudgetTokens", "must be 20000 or more"),
        ({"max_budget_usd": 0}, "maxBudgetUsd", "must be 0.000001 or more"),
        ({"max_budget_usd": float("nan")}, "maxBudgetUsd", "or more"),
        ({"max_budget_usd": float("inf")}, "maxBudgetUsd", "less than"),
        ({"thinking": ThinkingChoice(type="enabled")}, "thinking.budgetTokens", "needed"),
        ({"thinking": THINKING["no"]}, "thinking.budgetTokens", "no other"),
        ({"thinking": THINKING["few"]}, "thinking.budgetTokens", "1024 or more"),
        ({"agents": {"--x": AGENT}}, "agents.--x", "cannot be an agent's name"),
        ({"agents": {"a": NO_TURNS}}, "agents.a.maxTurns", "1"),
        ({"mcp_servers": {"a b": STDIO}}, "mcpServers.a b", "cannot be a server's name"),
        ({"mcp_servers": {"m": McpServer()}}, "mcpServers.m", "has `command`"),
        ({"mcp_servers": {"m": McpServer(command="c", url="u")}}, "mcpServers.m", "nothing else"),
        ({"mcp_servers": {"m": McpServer(type="sse")}}, "mcpServers.m", "has `url`"),
        ({"mcp_servers": {"m": McpServer(type="http", url="u", env={})}}, "mcpServers.m", "nothing else"),
        ({"setting_sources": ["user", "project"]}, "settingSources", "not trusted"),
        ({"setting_sources": ["local"]}, "settingSources", "not trusted"),
        ({"add_dirs": ["relative"]}, "addDirs[0]", "addDirs[0] 'relative' cannot be used"),
        ({"add_dirs": ["/nowhere/at/all"]}, "addDirs[0]", "there is no such directory"),
        ({"plugins": ["relative"]}, "plugins[0]", "no absolute path of a folder"),
        ({"plugins": ["/nowhere/at/all"]}, "plugins[0]", "no absolute path of a folder"),
        (
            {"system_prompt": PRESET, "append_system_prompt": "b"},
            "appendSystemPrompt",
            "exclude each other",
        ),
    ],
)  # fmt: skip
def test_values_that_are_not(chosen: dict[str, Any], path: str, says: str) -> None:
    with pytest.raises(EngineError) as caught:
        check_values(TurnOptions(**chosen), [])
    assert caught.value.kind == "invalid_params"
    assert caught.value.data["path"] == f"$.{path}"
    assert says in str(caught.value)


def test_added_folders_lie_in_the_roots(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"outside session\.roots") as caught:
        check_values(TurnOptions(add_dirs=[str(tmp_path)]), [str(tmp_path / "sub")])
    assert (caught.value.kind, caught.value.data["reason"]) == ("invalid_params", "outside_roots")
