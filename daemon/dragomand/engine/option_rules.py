"""Which options need a scope, because they run code or widen trust, and which values can be used."""

import os
from collections.abc import Iterator, Sequence

from dragoman_protocol.agent import AgentDefinition
from dragoman_protocol.query import McpServer, TurnOptions

from . import working_directory
from .agent_files import NAME
from .errors import EngineError

LEAST_TASK_BUDGET = 20_000
"""Fewest tokens of a task budget that the API takes."""
LEAST_BUDGET_USD = 0.000001
LEAST_THINKING = 1_024

Need = tuple[str, str]
"""A scope, and what it is needed for."""


def needs(options: TurnOptions) -> Iterator[Need]:
    """Yield every scope that these options need, with the reason."""
    if options.permission_mode == "bypassPermissions":
        yield "admin", "permissionMode `bypassPermissions`"
    if options.tools or options.allowed_tools:
        yield "tools", "running tools"
    for name, agent in (options.agents or {}).items():
        if agent.permission_mode == "bypassPermissions":
            yield "admin", f"permissionMode `bypassPermissions` in agents.{name}"
    if options.mcp_servers:
        yield "tools", "mcpServers"
    if options.skills:
        yield "tools", "skills"
    if options.settings:
        yield "admin", "settings, which can run code,"
    if options.plugins:
        yield "admin", "plugins, which can run code,"
    if options.sandbox:
        harmless = options.sandbox == {"enabled": True}
        yield ("tools", "a sandbox") if harmless else ("admin", "sandbox settings beyond `enabled: true`")


def check_values(options: TurnOptions, roots: Sequence[str]) -> None:
    """Raise `invalid_params` for a value that cannot be used; *roots* are those of working directories."""
    _check_numbers(options)
    for name, agent in (options.agents or {}).items():
        _check_agent(f"agents.{name}", name, agent)
    for name, server in (options.mcp_servers or {}).items():
        _check_server(name, server)
    for source in options.setting_sources or ():
        if source != "user":
            text = f"settingSources `{source}` is not available: the folder's own settings are not trusted."
            raise wrong("settingSources", text, "not trusted")
    for at, folder in enumerate(options.add_dirs or ()):
        _check_folder(f"addDirs[{at}]", folder, roots)
    for at, plugin in enumerate(options.plugins or ()):
        if not os.path.isabs(plugin) or not os.path.isdir(plugin):
            raise wrong(f"plugins[{at}]", f"plugins[{at}] is no absolute path of a folder: {plugin!r}.")
    if isinstance(options.system_prompt, str) or options.system_prompt is None:
        return
    if options.system_prompt.append is not None and options.append_system_prompt is not None:
        raise wrong("appendSystemPrompt", "systemPrompt.append and appendSystemPrompt exclude each other.")


def wrong(path: str, text: str, reason: str = "not usable") -> EngineError:
    """Return an `invalid_params` for the option at *path*."""
    return EngineError("invalid_params", text, path=f"$.{path}", reason=reason)


def at_least(path: str, least: float, value: float | None) -> None:
    """Raise `invalid_params` if *value* is below *least*; None is not chosen."""
    if value is not None and value < least:
        raise wrong(path, f"{path} must be {least} or more; got {value}.", "out of range")


def _check_numbers(options: TurnOptions) -> None:
    at_least("maxTurns", 1, options.max_turns)
    at_least("taskBudgetTokens", LEAST_TASK_BUDGET, options.task_budget_tokens)
    if options.max_budget_usd is not None and not LEAST_BUDGET_USD <= options.max_budget_usd < 1e9:
        text = f"maxBudgetUsd must be {LEAST_BUDGET_USD:f} or more, and less than 1e9."
        raise wrong("maxBudgetUsd", text, "out of range")
    thinking = options.thinking
    if thinking is not None and (thinking.type == "enabled") != (thinking.budget_tokens is not None):
        text = "thinking.budgetTokens is needed for the type `enabled`, and for no other."
        raise wrong("thinking.budgetTokens", text)
    if thinking is not None:
        at_least("thinking.budgetTokens", LEAST_THINKING, thinking.budget_tokens)


def _check_agent(path: str, name: str, agent: AgentDefinition) -> None:
    if not NAME.match(name):
        raise wrong(path, f"{name[:80]!r} cannot be an agent's name: letters, digits, - and _, at most 64.")
    at_least(f"{path}.maxTurns", 1, agent.max_turns)


def _check_server(name: str, server: McpServer) -> None:
    path = f"mcpServers.{name}"
    if not NAME.match(name):
        raise wrong(path, f"{name[:80]!r} cannot be a server's name: letters, digits, - and _, at most 64.")
    local, remote = (server.command, server.args, server.env), (server.url, server.headers)
    stdio = server.type == "stdio"
    needed, foreign = ("command", remote) if stdio else ("url", local)
    if not getattr(server, needed) or any(value is not None for value in foreign):
        says = "`command` (and `args`, `env`)" if stdio else "`url` (and `headers`)"
        raise wrong(path, f"{path} is of type `{server.type}`, so it has {says} and nothing else.")


def _check_folder(path: str, folder: str, roots: Sequence[str]) -> None:
    try:
        working_directory.check(folder, roots)
    except EngineError as refused:
        text = (refused.message or "").replace("cwd", path, 1)
        raise wrong(path, text, refused.data.get("reason", "not usable")) from None
