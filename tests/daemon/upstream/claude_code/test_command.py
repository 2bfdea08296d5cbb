"""Arguments and environment, as tables."""

from dataclasses import replace
from pathlib import Path

import pytest
from dragoman_protocol.query import ThinkingChoice
from dragomand.process.children import Command
from dragomand.upstream.claude_code.command import (
    KEY_VARIABLE,
    ApiSettings,
    build_arguments,
    build_environment,
    build_initialize,
    build_preparations,
    through_gateway,
)
from dragomand.upstream.interface import ApiAccess, RunSpec

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
    "--strict-mcp-config",
    "--permission-prompt-tool=stdio",
    "--setting-sources=user",
]


def test_the_arguments_of_a_new_session() -> None:
    assert build_arguments("/bin/claude", BARE) == [*BASE, "--session-id=s-1"]


@pytest.mark.parametrize(
    ("choice", "arguments"),
    [
        ({"resume": "r-1"}, ["--resume=r-1"]),
        ({"resume": "r-1", "resume_holds": "m-1"}, ["--resume=r-1"]),
        ({"resume": "r-1", "fork": True}, ["--resume=r-1", "--fork-session", "--session-id=s-1"]),
        ({"resume": "r-1", "fork": True, "resume_holds": "m-1"},
         ["--resume=r-1", "--fork-session", "--session-id=s-1", "--resume-session-at=m-1"]),
        ({"hook_events": True}, ["--session-id=s-1", "--include-hook-events"]),
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
        ({"agent": "reviewer"}, ["--session-id=s-1", "--agent=reviewer"]),
        ({"max_budget_usd": 0.25}, ["--session-id=s-1", "--max-budget-usd=0.250000"]),
        ({"max_budget_usd": 5}, ["--session-id=s-1", "--max-budget-usd=5"]),
        ({"task_budget_tokens": 20_000}, ["--session-id=s-1", "--task-budget=20000"]),
        ({"effort": "max"}, ["--session-id=s-1", "--effort=max"]),
        ({"betas": ("a-1", "b-2")}, ["--session-id=s-1", "--betas=a-1,b-2"]),
        ({"thinking": ThinkingChoice(type="disabled")}, ["--session-id=s-1", "--thinking=disabled"]),
        ({"thinking": ThinkingChoice(type="adaptive", display="omitted")},
         ["--session-id=s-1", "--thinking=adaptive", "--thinking-display=omitted"]),
        ({"thinking": ThinkingChoice(type="enabled", budget_tokens=2000)},
         ["--session-id=s-1", "--max-thinking-tokens=2000"]),
        ({"add_dirs": (Path("/a"), Path("/b c"))}, ["--session-id=s-1", "--add-dir=/a", "--add-dir=/b c"]),
        ({"plugins": ("/p", "/q")}, ["--session-id=s-1", "--plugin-dir=/p", "--plugin-dir=/q"]),
        ({"settings": {"env": {"A": "secret"}}}, ["--session-id=s-1"]),
        ({"mcp_servers": {"m": {"command": "secret"}}}, ["--session-id=s-1"]),
        ({"agents": {"a": {"prompt": "secret"}}, "skills": ("secret",)}, ["--session-id=s-1"]),
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
        ({"agent": "a", "agents": {"a": {"prompt": "p"}}},
         {"systemPromptSnapshot": False, "agents": {"a": {"prompt": "p"}}}),
        ({"exclude_dynamic_sections": True}, {"excludeDynamicSections": True}),
        ({"skills": ()}, {"skills": []}),
        ({"skills": ("a", "b:c")}, {"skills": ["a", "b:c"]}),
        ({"system_prompt": ""}, {"systemPrompt": [""], "systemPromptSnapshot": False}),
    ],
)  # fmt: skip
def test_the_first_request(choice: dict[str, object], request_: dict[str, object]) -> None:
    spec = RunSpec(**{"session_id": "s-1", "cwd": CWD, **choice})  # type: ignore[arg-type]
    assert build_initialize(spec) == {"subtype": "initialize", "hooks": None, **request_}


COMMAND = Command(
    argv=["/bin/claude"],
    env={"ANTHROPIC_BASE_URL": "https://api.example", "NO_PROXY": "intra", "A": "b"},
    cwd="/work",
    secrets={KEY_VARIABLE: b"the key"},
    open_files=7,
)


def test_calls_through_the_gateway() -> None:
    access = ApiAccess("g", "http://dragoman.invalid", "/run/g.sock", "the token", lambda: None)
    command = through_gateway(COMMAND, access)
    assert command.env == {
        "ANTHROPIC_BASE_URL": "http://dragoman.invalid",
        "ANTHROPIC_UNIX_SOCKET": "/run/g.sock",
        "NO_PROXY": "intra",
        "A": "b",
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    assert command.secrets == {KEY_VARIABLE: b"the token"}
    assert (command.argv, command.cwd, command.open_files) == (["/bin/claude"], "/work", 7)


def test_a_fallback_model_needs_claude_codes_own_retries() -> None:
    """02.2: at the third refusal it turns to the other model, so the gateway does not take them from it."""
    access = ApiAccess("g", "http://127.0.0.1:4000", None, "the token", lambda: None)
    command = replace(COMMAND, argv=["/bin/claude", "--fallback-model=haiku"])
    assert "CLAUDE_CODE_MAX_RETRIES" not in through_gateway(command, access).env


def test_calls_through_the_gateways_port() -> None:
    access = ApiAccess("g", "http://127.0.0.1:4000", None, "the token", lambda: None)
    env = through_gateway(COMMAND, access).env
    assert env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:4000"
    assert "ANTHROPIC_UNIX_SOCKET" not in env
    assert (env["NO_PROXY"], env["no_proxy"]) == ("intra,127.0.0.1", "127.0.0.1")


def test_sources_of_settings_are_the_users_own_unless_there_are_to_be_none() -> None:
    spec = RunSpec(session_id="s-1", cwd=CWD, setting_sources=())
    assert "--setting-sources=" in build_arguments("/bin/claude", spec)
    assert "--setting-sources=user" not in build_arguments("/bin/claude", spec)


def test_what_may_hold_secrets_is_told_before_the_first_turn() -> None:
    assert build_preparations(BARE) == []
    spec = RunSpec(
        session_id="s", cwd=CWD, settings={"model": "opus"}, mcp_servers={"m": {"url": "https://x"}}
    )
    assert build_preparations(spec) == [
        {"subtype": "apply_flag_settings", "settings": {"model": "opus"}},
        {"subtype": "mcp_set_servers", "servers": {"m": {"url": "https://x"}}},
    ]


@pytest.mark.parametrize(("retries", "given"), [(0, "3"), (1, "3"), (5, "5")])
def test_a_fallback_has_the_retries_that_lead_to_it(retries: int, given: str) -> None:
    spec = RunSpec(session_id="s", cwd=CWD, fallback_model="haiku")
    env = build_environment({}, spec, ApiSettings(max_retries=retries), with_key=True)
    assert env["CLAUDE_CODE_MAX_RETRIES"] == given


def test_checkpoints_are_switched_on_by_the_environment() -> None:
    name = "CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING"
    spec = RunSpec(session_id="s", cwd=CWD, file_checkpointing=True)
    assert build_environment({}, spec, ApiSettings(), with_key=True)[name] == "true"
    assert name not in build_environment({name: "true"}, BARE, ApiSettings(), with_key=True)
