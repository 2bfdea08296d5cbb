"""What a query may be asked with: the keyword arguments of `query` and `stream`, in every client.

The builders put options together; each returns new ones and leaves what it was given as it is:

    from dragoman.options import with_agents, with_opus

    options = with_agents(with_opus(), {"reviewer": reviewer})
    claude.query("Review the last commit", **options, agent="reviewer")
"""

import os
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, overload

from dragoman_protocol.agent import AgentDefinition, Effort
from dragoman_protocol.content import Prompt
from dragoman_protocol.model import BY_ALIAS
from dragoman_protocol.query import (
    ApiOptions,
    ForkChoice,
    McpServer,
    PermissionMode,
    Priority,
    QueryRunParams,
    SettingSource,
    SystemPromptPreset,
    ThinkingChoice,
    Upstream,
)

LONGEST_S = 1e9
"""The longest span, in seconds, that may be given: thirty years. (An infinite one is said by giving none.)"""


class QueryOptions(TypedDict, total=False):
    """Every key may be left out; the comments say what happens then.

    The fields of `query/run` (see `dragoman_protocol.query.QueryRunParams`) with two changes for Python:
    spans are in seconds, and `cwd` may be any path.
    """

    cwd: str | os.PathLike[str] | None  # the process's own; a continued session's; None: none
    session_id: str  # a new session
    fork: ForkChoice | str  # begin with the turns of another session: its id, or with the turn to stop at
    new_session_id: str  # the new session's id, a UUID; the daemon makes one
    message_id: str  # submitting the same id twice runs it once
    upstream: Upstream  # "auto"; "messagesApi" needs no cwd
    api: ApiOptions  # what only the Messages API understands
    output_schema: dict[str, Any]  # a JSON Schema that the answer has to fit; `output` makes it of a type
    output_attempts: int  # 3
    priority: Priority  # "interactive"
    timeout_s: float  # the daemon's `query.timeoutMs` (600 s); waiting for a permission counts not
    queue_timeout_s: float  # the daemon's `limits.queueTimeoutMs` (60 s)
    title: str  # the first line of the prompt
    tags: list[str]
    model: str  # the session's, else Claude Code's own; an alias (`opus`, `sonnet`, `haiku`) or a full name
    fallback_model: str | list[str]
    agent: str  # who answers: of `agents`, of the user's own, or a preset; the session's; "": none any more
    agents: dict[str, AgentDefinition]
    system_prompt: str | SystemPromptPreset
    append_system_prompt: str
    allowed_tools: list[str]  # run without asking, in Claude Code's syntax: `Read`, `Bash(git *)`
    disallowed_tools: list[str]
    tools: list[str]  # the built-in tools that exist at all
    permission_mode: PermissionMode
    max_turns: int
    max_budget_usd: float
    task_budget_tokens: int
    thinking: ThinkingChoice
    effort: Effort
    mcp_servers: dict[str, McpServer]
    add_dirs: list[str]
    skills: list[str] | Literal["all"]
    settings: dict[str, Any]  # needs the scope `admin`, as `plugins` and most of `sandbox` do
    sandbox: dict[str, Any]
    setting_sources: list[SettingSource]
    plugins: list[str]
    betas: list[str]
    file_checkpointing: bool
    hook_events: bool
    verbatim_prompt: bool
    env: dict[str, str]


def query_params(prompt: Prompt, options: QueryOptions, token: int | None = None) -> QueryRunParams:
    """Put the parameters of `query/run` together; *token* asks for the turn's events.

    An unknown option is a `TypeError`, as for any function; a span that is no number of seconds, infinite
    for instance, a `ValueError`.
    """
    fields: dict[str, object] = dict(options)
    for seconds, milliseconds in (("timeout_s", "timeout_ms"), ("queue_timeout_s", "queue_timeout_ms")):
        span = fields.pop(seconds, None)
        if span is not None:
            fields[milliseconds] = _milliseconds(seconds, float(str(span)))
    fork = options.get("fork")
    if isinstance(fork, str):
        fields["fork"] = ForkChoice(session_id=fork)
    cwd = options.get("cwd")
    stored = options.get("session_id") or fork
    if cwd is not None:
        fields["cwd"] = os.path.abspath(cwd)
    elif "cwd" not in options and not stored and options.get("upstream") != "messagesApi":
        fields["cwd"] = os.getcwd()
    return QueryRunParams(prompt=prompt, partial_result_token=token, **fields)  # type: ignore[arg-type]  # by name


def _milliseconds(name: str, seconds: float) -> int:
    if not -LONGEST_S <= seconds <= LONGEST_S:
        raise ValueError(f"{name} must be a number of seconds up to {LONGEST_S:.0f}, got {seconds}")
    return max(1, round(seconds * 1000))


def with_opus(options: QueryOptions | None = None) -> QueryOptions:
    """Return *options* with the preset for complex work: opus, falling back to sonnet, 10 rounds (02.8)."""
    return _with_preset("opus", options)


def with_sonnet(options: QueryOptions | None = None) -> QueryOptions:
    """Return *options* with the preset for everyday work: sonnet, 5 rounds (02.9)."""
    return _with_preset("sonnet", options)


def with_haiku(options: QueryOptions | None = None) -> QueryOptions:
    """Return *options* with the preset for quick answers: haiku, 3 rounds (02.10)."""
    return _with_preset("haiku", options)


def with_model(options: QueryOptions, name: str, fallback: str | list[str] | None = None) -> QueryOptions:
    """Return *options* with the model *name* (alias or full name), and who answers when it cannot (02.11).

    Without *fallback* there is none: that of another model would surprise.
    """
    changed: QueryOptions = {**options, "model": name}
    changed.pop("fallback_model", None)
    if fallback is not None:
        changed["fallback_model"] = fallback
    return changed


def with_agent(options: QueryOptions, name: str, definition: AgentDefinition) -> QueryOptions:
    """Return *options* with one more agent; one of the same name is replaced (02.12)."""
    return with_agents(options, {name: definition})


@overload
def with_agents(options: Mapping[str, AgentDefinition], /) -> QueryOptions: ...
@overload
def with_agents(options: QueryOptions, agents: Mapping[str, AgentDefinition], /) -> QueryOptions: ...
def with_agents(options: Any, agents: Mapping[str, AgentDefinition] | None = None, /) -> QueryOptions:
    """Return new options with these agents, or *options* with them added, new ones winning (02.13)."""
    if agents is None:
        return {"agents": dict(options)}
    known: QueryOptions = options
    return {**known, "agents": {**known.get("agents", {}), **agents}}


def _with_preset(alias: str, options: QueryOptions | None) -> QueryOptions:
    preset = BY_ALIAS[alias]
    changed = with_model(options or {}, preset.alias, preset.fallback_model)
    if preset.max_turns is not None:
        changed["max_turns"] = preset.max_turns
    return changed
