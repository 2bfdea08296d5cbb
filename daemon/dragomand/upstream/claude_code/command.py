"""How Claude Code is started: its arguments, its whole environment, and the first thing that is said to it.

Pure: values in, values out. What a person wrote (system prompts) never goes into the arguments, which every
user of the machine can read, but into the first control request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dragomand.process.children import Command
from dragomand.upstream.claude_code.unix_socket import SOCKET_VARIABLE
from dragomand.upstream.interface import ApiAccess, RunSpec

KEY_VARIABLE = "CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"
"""Names the file descriptor from which Claude Code reads the API key, once, at its start."""

INHERITED = (
    "HOME",
    "PATH",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "CLAUDE_CONFIG_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
"""What of the base environment reaches Claude Code: where things are, how to speak, how to get out."""

_FIXED_ARGUMENTS = (
    "-p",
    "--input-format=stream-json",
    "--output-format=stream-json",
    "--verbose",
    "--include-partial-messages",
    "--replay-user-messages",
    "--strict-mcp-config",
    "--permission-prompt-tool=stdio",
)

RETRIES_BEFORE_FALLBACK = 3
"""Claude Code turns to the fallback model at the third refusal for overload; with fewer retries, never."""

SETTING_SOURCES = ("user",)
"""The working directory's own settings, hooks and MCP servers would run as code, with the key in reach."""

_FIXED_ENVIRONMENT = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How Claude Code talks to its API."""

    base_url: str | None = None
    """`ANTHROPIC_BASE_URL`; None: Anthropic's own."""
    max_retries: int = 1
    """How often Claude Code repeats a failed call itself."""
    timeout_ms: int = 600_000
    """How long one call may take."""
    idle_timeout_ms: int = 300_000
    """How long an answer's stream may be silent."""


def build_arguments(executable: str, spec: RunSpec, *, awaits_claim: bool = False) -> list[str]:
    """Return the command line. Values are bound with `=`, so that none can be taken for another option.

    *awaits_claim*: the process is to belong to no folder until it is told one.
    """
    sources = SETTING_SOURCES if spec.setting_sources is None else spec.setting_sources
    fixed = [*_FIXED_ARGUMENTS, f"--setting-sources={','.join(sources)}"]
    session = ["--await-claim"] if awaits_claim else _session(spec)
    return [executable, *fixed, *session, *_choices(spec), *_repeated(spec)]


def build_environment(
    base: Mapping[str, str], spec: RunSpec, api: ApiSettings, *, with_key: bool
) -> dict[str, str]:
    """Return the whole environment: what is allowed of *base*, then the spec's own, then ours, which wins.

    The key itself is never in it. *with_key* says that it goes by file descriptor.
    """
    env = {name: base[name] for name in INHERITED if name in base}
    env |= spec.env
    env |= _FIXED_ENVIRONMENT
    if spec.file_checkpointing:
        env["CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING"] = "true"
    retries = max(api.max_retries, RETRIES_BEFORE_FALLBACK) if spec.fallback_model else api.max_retries
    env["CLAUDE_CODE_MAX_RETRIES"] = str(retries)
    env["API_TIMEOUT_MS"] = str(api.timeout_ms)
    env["CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS"] = str(api.idle_timeout_ms)
    env["PWD"] = str(spec.cwd)
    if api.base_url:
        env["ANTHROPIC_BASE_URL"] = api.base_url
    if with_key:
        # A login of Claude Code's own must not win over the key that was chosen.
        env.pop("CLAUDE_CODE_OAUTH_TOKEN", None)
    return env


def through_gateway(command: Command, access: ApiAccess) -> Command:
    """Return *command* with its API calls sent to the gateway; its token goes where the key would.

    The gateway repeats what may be repeated, so Claude Code does not, unless it needs that to fall back.
    """
    env = {**command.env, "ANTHROPIC_BASE_URL": access.base_url}
    if not any(argument.startswith("--fallback-model") for argument in command.argv):
        env["CLAUDE_CODE_MAX_RETRIES"] = "0"
    if access.unix_socket is None:
        # Whatever proxy there is, it is not for the way to ourselves.
        for name in ("NO_PROXY", "no_proxy"):
            env[name] = ",".join(filter(None, (env.get(name), "127.0.0.1")))
    else:
        env[SOCKET_VARIABLE] = access.unix_socket
    return replace(command, env=env, secrets={KEY_VARIABLE: access.token.encode()})


def build_initialize(spec: RunSpec) -> dict[str, Any]:
    """Return the first control request."""
    request: dict[str, Any] = {"subtype": "initialize", "hooks": None}
    if spec.system_prompt is not None:
        request["systemPrompt"] = [spec.system_prompt]
    if spec.append_system_prompt is not None:
        request["appendSystemPrompt"] = spec.append_system_prompt
    if len(request) > 2 or spec.agent is not None:
        # Otherwise a resumed conversation keeps the prompt that it began with, and says nothing.
        request["systemPromptSnapshot"] = False
    if spec.exclude_dynamic_sections:
        request["excludeDynamicSections"] = True
    if spec.agents:
        request["agents"] = spec.agents
    if spec.skills is not None:
        request["skills"] = list(spec.skills)
    return request


def early(spec: RunSpec, *, rehearsed: bool = False) -> RunSpec:
    """Return *spec* without what may be chosen late: how a process is started ahead of it.

    One that is *rehearsed* knows its model and its permission mode.
    """
    mode = spec.permission_mode
    return replace(
        spec,
        session_id="",
        resume=None,
        resume_message_count=None,
        resume_holds=None,
        fork=False,
        model=spec.model if rehearsed else None,
        client=None,
        settings={},
        mcp_servers={},
        # Claude Code can be put into this one only at its start.
        permission_mode=mode if rehearsed or mode == "bypassPermissions" else None,
    )


def may_be_ahead(spec: RunSpec) -> bool:
    """Whether a process for *spec* may be started ahead: not if it reads code that may change meanwhile."""
    return spec.resume is None and spec.setting_sources is None and not spec.plugins and not spec.add_dirs


def is_plain(spec: RunSpec) -> bool:
    """Whether nothing of a start comes from its client that could make Claude Code crash by itself."""
    own = (spec.env, spec.settings, spec.setting_sources, spec.plugins, spec.mcp_servers, spec.betas)
    return spec.resume is None and not any(own)


def may_be_anywhere(spec: RunSpec) -> bool:
    """Whether it may be started before its folder is known."""
    return spec.agent is None and not spec.agents and spec.skills is None


def late_choices(spec: RunSpec, started: RunSpec) -> list[dict[str, Any]]:
    """Return the control requests that make up for what `early` left out of a process that was *started*."""
    requests: list[dict[str, Any]] = []
    if spec.model != started.model and spec.model is not None:
        requests.append({"subtype": "set_model", "model": spec.model})
    if spec.permission_mode not in (None, "bypassPermissions", started.permission_mode):
        requests.append({"subtype": "set_permission_mode", "mode": spec.permission_mode})
    return requests


def build_preparations(spec: RunSpec) -> list[dict[str, Any]]:
    """Return the control requests between the first one and the first turn: what may hold secrets."""
    requests: list[dict[str, Any]] = []
    if spec.settings:
        requests.append({"subtype": "apply_flag_settings", "settings": spec.settings})
    if spec.mcp_servers:
        requests.append({"subtype": "mcp_set_servers", "servers": spec.mcp_servers})
    return requests


def _session(spec: RunSpec) -> list[str]:
    if not spec.resume:
        return [f"--session-id={spec.session_id}"]
    if not spec.fork:
        return [f"--resume={spec.resume}"]
    until = [] if spec.resume_holds is None else [f"--resume-session-at={spec.resume_holds}"]
    return [f"--resume={spec.resume}", "--fork-session", f"--session-id={spec.session_id}", *until]


def _choices(spec: RunSpec) -> list[str]:
    chosen: list[tuple[str, str | None]] = [
        ("--model", spec.model),
        ("--fallback-model", spec.fallback_model),
        ("--agent", spec.agent),
        ("--tools", _joined(spec.tools)),
        ("--allowed-tools", _joined(spec.allowed_tools) or None),
        ("--disallowed-tools", _joined(spec.disallowed_tools) or None),
        ("--permission-mode", spec.permission_mode),
        ("--max-turns", _number(spec.max_turns)),
        ("--max-budget-usd", _number(spec.max_budget_usd)),
        ("--task-budget", _number(spec.task_budget_tokens)),
        ("--effort", spec.effort),
        ("--betas", _joined(spec.betas) or None),
        *_thinking(spec),
    ]
    return [f"{option}={value}" for option, value in chosen if value is not None]


def _joined(names: tuple[str, ...] | None) -> str | None:
    return None if names is None else ",".join(names)


def _thinking(spec: RunSpec) -> list[tuple[str, str | None]]:
    thinking = spec.thinking
    if thinking is None:
        return []
    how = ("--max-thinking-tokens", str(thinking.budget_tokens))
    if thinking.budget_tokens is None:
        how = ("--thinking", thinking.type)
    return [how, ("--thinking-display", thinking.display)]


def _repeated(spec: RunSpec) -> list[str]:
    folders = [f"--add-dir={folder}" for folder in spec.add_dirs]
    told = ["--include-hook-events"] if spec.hook_events else []
    return [*told, *folders, *(f"--plugin-dir={folder}" for folder in spec.plugins)]


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:f}" if isinstance(value, float) else str(value)
