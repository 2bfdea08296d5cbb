"""Arguments and environment, as tables."""

from pathlib import Path

import pytest
from dragomand.upstream.claude_code.command import (
    ApiSettings,
    build_arguments,
    build_environment,
    build_initialize,
)
from dragomand.upstream.interface import RunSpec

CWD = Path("/work/project")
BARE = RunSpec(session_id="s-1", cwd=CWD)
BASE = [
    "/bin/claude",
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    "--include-partial-messages",
    "--replay-user-messages",
    "--setting-sources=user",
    "--strict-mcp-config",
    "--permission-prompt-tool=stdio",
]


def test_the_arguments_of_a_new_session() -> None:
    assert build_arguments("/bin/claude", BARE) == [*BASE, "--session-id=s-1"]


@pytest.mark.parametrize(
    ("choice", "arguments"),
    [
        ({"resume": "r-1"}, ["--resume=r-1"]),
        ({"model": "opus"}, ["--session-id=s-1", "--model=opus"]),
        ({"fallback_model": "sonnet,haiku"}, ["--session-id=s-1", "--fallback-model=sonnet,haiku"]),
        ({"tools": ()}, ["--session-id=s-1", "--tools="]),
        ({"tools": ("Read", "Bash")}, ["--session-id=s-1", "--tools=Read,Bash"]),
        ({"allowed_tools": ()}, ["--session-id=s-1"]),
        ({"allowed_tools": ("Bash(ls *)", "Read")}, ["--session-id=s-1", "--allowed-tools=Bash(ls *),Read"]),
        ({"disallowed_tools": ("Write",)}, ["--session-id=s-1", "--disallowed-tools=Write"]),
        ({"permission_mode": "plan"}, ["--session-id=s-1", "--permission-mode=plan"]),
        ({"max_turns": 3}, ["--session-id=s-1", "--max-turns=3"]),
        ({"model": "--resume"}, ["--session-id=s-1", "--model=--resume"]),
        ({"system_prompt": "secret", "append_system_prompt": "more"}, ["--session-id=s-1"]),
    ],
)  # fmt: skip
def test_choices_become_arguments(choice: dict[str, object], arguments: list[str]) -> None:
    spec = RunSpec(**{"session_id": "s-1", "cwd": CWD, **choice})  # type: ignore[arg-type]
    assert build_arguments("/bin/claude", spec) == [*BASE, *arguments]


def test_the_environment_is_built_from_an_allow_list() -> None:
    base = {
        "HOME": "/home/me",
        "PATH": "/bin",
        "CLAUDE_CONFIG_DIR": "/home/me/.claude",
        "ANTHROPIC_API_KEY": "sk-ant-api03-secret",
        "ANTHROPIC_BASE_URL": "http://elsewhere",
        "CLAUDE_CODE_OAUTH_TOKEN": "secret",
        "CLAUDECODE": "1",
        "LD_PRELOAD": "trap.so",
        "DRAGOMAN_LOG__LEVEL": "debug",
        "SOMETHING": "else",
    }
    env = build_environment(base, BARE, ApiSettings(), with_key=True)
    assert env == {
        "HOME": "/home/me",
        "PATH": "/bin",
        "CLAUDE_CONFIG_DIR": "/home/me/.claude",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "API_TIMEOUT_MS": "600000",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "300000",
        "PWD": "/work/project",
    }


def test_the_specs_own_variables_win_over_the_base_and_not_over_ours() -> None:
    spec = RunSpec(
        session_id="s", cwd=CWD, env={"PATH": "/venv/bin:/bin", "TZ": "UTC", "DISABLE_AUTOUPDATER": "0"}
    )
    api = ApiSettings(base_url="http://127.0.0.1:1", max_retries=0, timeout_ms=5, idle_timeout_ms=6)
    env = build_environment({"PATH": "/bin"}, spec, api, with_key=False)
    assert env == {
        "PATH": "/venv/bin:/bin",
        "TZ": "UTC",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "API_TIMEOUT_MS": "5",
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": "6",
        "PWD": "/work/project",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
    }


def test_a_chosen_key_is_not_beaten_by_a_token() -> None:
    spec = RunSpec(session_id="s", cwd=CWD, env={"CLAUDE_CODE_OAUTH_TOKEN": "t"})
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in build_environment({}, spec, ApiSettings(), with_key=True)
    assert "CLAUDE_CODE_OAUTH_TOKEN" in build_environment({}, spec, ApiSettings(), with_key=False)


@pytest.mark.parametrize(
    ("choice", "request_"),
    [
        ({}, {}),
        ({"system_prompt": "be brief"}, {"systemPrompt": ["be brief"], "systemPromptSnapshot": False}),
        ({"append_system_prompt": "hi"}, {"appendSystemPrompt": "hi", "systemPromptSnapshot": False}),
        ({"system_prompt": ""}, {"systemPrompt": [""], "systemPromptSnapshot": False}),
    ],
)  # fmt: skip
def test_the_first_request(choice: dict[str, object], request_: dict[str, object]) -> None:
    spec = RunSpec(**{"session_id": "s-1", "cwd": CWD, **choice})  # type: ignore[arg-type]
    assert build_initialize(spec) == {"subtype": "initialize", "hooks": None, **request_}
