"""Which upstream answers, and the reason that is told."""

from typing import Any

import pytest
from dragoman_protocol.query import AnswerOptions, ApiOptions, McpServer, SystemPromptPreset, ThinkingChoice
from dragomand.engine.errors import EngineError
from dragomand.engine.upstream_choice import choose

AUTO = "claudeCode"
DIRECT = "messagesApi"
PRESET = SystemPromptPreset(preset="claude_code")


def decide(cwd: str | None = None, bound: str | None = None, has_key: bool = True, **chosen: Any) -> Any:
    return choose(AnswerOptions(**chosen), cwd=cwd, bound=bound, has_key=has_key)


@pytest.mark.parametrize(
    ("given", "upstream", "reason"),
    [
        ({"tools": []}, DIRECT, "no tools, no folder"),
        ({"tools": [], "model": "opus", "system_prompt": "x", "max_turns": 1}, DIRECT, "no tools"),
        ({"tools": [], "api": ApiOptions(max_tokens=9)}, DIRECT, "no tools"),
        ({}, AUTO, "tools may be used"),
        ({"tools": ["Read"]}, AUTO, "tools may be used"),
        ({"tools": [], "cwd": "/w"}, AUTO, "working directory"),
        ({"tools": [], "permission_mode": "plan"}, AUTO, "permissionMode"),
        ({"tools": [], "append_system_prompt": "x"}, AUTO, "appendSystemPrompt"),
        ({"tools": [], "system_prompt": PRESET}, AUTO, "systemPrompt.preset"),
        ({"tools": [], "mcp_servers": {"m": McpServer(command="c")}}, AUTO, "mcpServers"),
        ({"tools": [], "agent": "a"}, AUTO, "agent"),
        ({"tools": [], "thinking": ThinkingChoice(type="adaptive")}, DIRECT, "no tools"),
        ({"tools": [], "has_key": False}, AUTO, "needs an API key"),
        ({"upstream": "claudeCode", "tools": []}, AUTO, "asked for"),
        ({"upstream": "messagesApi"}, DIRECT, "asked for"),
        ({"upstream": "messagesApi", "cwd": "/w"}, DIRECT, "asked for"),
        ({"bound": "messages_api"}, DIRECT, "begun with messagesApi"),
        ({"bound": "claude_code", "tools": []}, AUTO, "begun with claudeCode"),
        ({"bound": "claude_code", "upstream": "claudeCode"}, AUTO, "begun with"),
        ({"bound": "", "tools": []}, DIRECT, "no tools"),
    ],
)
def test_the_choice(given: dict[str, Any], upstream: str, reason: str) -> None:
    choice = decide(**given)
    assert choice.wire == upstream
    assert reason in choice.reason


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"upstream": "messagesApi", "has_key": False}, "upstream_unavailable"),
        ({"bound": "messages_api", "has_key": False}, "upstream_unavailable"),
        ({"bound": "messages_api", "upstream": "claudeCode"}, "upstream_unavailable"),
        ({"bound": "claude_code", "upstream": "messagesApi"}, "upstream_unavailable"),
        ({"upstream": "messagesApi", "tools": ["Read"]}, "invalid_params"),
        ({"upstream": "messagesApi", "allowed_tools": ["Read"]}, "invalid_params"),
        ({"upstream": "messagesApi", "env": {"A": "b"}}, "invalid_params"),
        ({"upstream": "claudeCode", "api": ApiOptions()}, "invalid_params"),
        ({"api": ApiOptions()}, "invalid_params"),
    ],
)
def test_what_cannot_be_had(given: dict[str, Any], kind: str) -> None:
    with pytest.raises(EngineError) as caught:
        decide(**given)
    assert caught.value.kind == kind
    assert caught.value.data.get("next_step") or caught.value.data["path"].startswith("$.")


# -- by way of a cloud


def by_cloud(refused: EngineError | None = None, missing: str | None = None, **chosen: Any) -> Any:
    return choose(
        AnswerOptions(**chosen),
        cwd=None,
        bound=None,
        has_key=missing is None,
        provider="vertex",
        refusal=lambda: refused,
        missing=missing,
    )


@pytest.mark.parametrize("given", [{"tools": []}, {"upstream": "messagesApi"}])
def test_the_reason_names_the_cloud(given: dict[str, Any]) -> None:
    choice = by_cloud(**given)
    assert choice.wire == DIRECT
    assert choice.reason.endswith("; by way of Google Vertex AI")


@pytest.mark.parametrize("given", [{}, {"upstream": "claudeCode"}, {"tools": ["Read"]}])
def test_claude_code_is_refused_with_its_own_reason(given: dict[str, Any]) -> None:
    assert by_cloud(**given).wire == AUTO
    refusal = EngineError("upstream_unavailable", "not on a cloud")
    with pytest.raises(EngineError) as caught:
        by_cloud(refused=refusal, **given)
    assert caught.value is refusal


def test_without_the_clouds_library_it_is_named() -> None:
    assert "its library is missing" in by_cloud(missing="pip install it", tools=[]).reason
    with pytest.raises(EngineError, match="Google Vertex AI cannot be asked") as caught:
        by_cloud(missing="pip install it", upstream="messagesApi")
    assert caught.value.kind == "upstream_unavailable"
    assert caught.value.data["next_step"] == "pip install it"
