"""One request to run one turn."""

from typing import Any, Literal

from .agent import AgentDefinition, Effort
from .agent import PermissionMode as PermissionMode  # it was defined here, and is looked for here
from .content import Prompt
from .session import Usage
from .values import Params, Value

Upstream = Literal["auto", "claudeCode", "messagesApi"]
"""Who answers: Claude Code, or the Messages API directly, without tools or a folder. `auto` is `messagesApi`
for a query that asks for nothing else (`tools: []`, no `cwd`, no option of Claude Code's) while the daemon
holds an API key, else `claudeCode`; a session stays with what answered it first."""

AnsweredBy = Literal["claudeCode", "messagesApi"]
"""Who answered."""

Priority = Literal["interactive", "batch"]
"""The class a query waits in: a person is waiting, or a job."""


SettingSource = Literal["user", "project", "local"]
"""Where Claude Code reads settings: the user's own, or the working directory's (which can run code)."""


class SystemPromptPreset(Params):
    """Claude Code's own system prompt, with something added or left out."""

    preset: Literal["claude_code"]
    append: str | None = None
    exclude_dynamic_sections: bool | None = None
    """Leave out what differs from folder to folder, so that many sessions share one cached prompt."""


class McpServer(Params):
    """An MCP server for the turn. A `stdio` server is a program that runs as the user."""

    type: Literal["stdio", "http", "sse"] = "stdio"
    command: str | None = None
    """`stdio`: the program."""
    args: list[str] | None = None
    env: dict[str, str] | None = None
    """`stdio`: its environment, in addition to Claude Code's. Never on a command line."""
    url: str | None = None
    """`http`, `sse`."""
    headers: dict[str, str] | None = None
    """`http`, `sse`: e.g. `Authorization`. Never on a command line."""


class ThinkingChoice(Params):
    """How the model thinks before it answers."""

    type: Literal["adaptive", "enabled", "disabled"]
    budget_tokens: int | None = None
    """`enabled`: most tokens of thinking, 1 024 or more; models that decide for themselves ignore it."""
    display: Literal["summarized", "omitted"] | None = None


class ForkChoice(Params):
    """Begin a new session with the turns of another one, which is left as it is."""

    session_id: str
    """The original. It may be running: only turns that have ended are taken over."""
    at_turn_id: str | None = None
    """The last turn to take over; absent: all that have ended."""


class TurnOptions(Params):
    """What a turn may choose. Nothing chosen: Claude Code's own defaults."""

    model: str | None = None
    """An alias (`opus`, `sonnet`, `haiku`) or a full model name (00.3, 02.1)."""
    fallback_model: str | list[str] | None = None
    """Who answers when the model is overloaded or not available; several are tried in order (02.2)."""
    agent: str | None = None
    """Who answers: a name in `agents`, else one of the user's own agents, else a preset (02.30). The session
    keeps it for turns that name none; `""`: none any more."""
    agents: dict[str, AgentDefinition] | None = None
    """More agents by name, which the one who answers may ask (02.3)."""
    system_prompt: str | SystemPromptPreset | None = None
    append_system_prompt: str | None = None
    allowed_tools: list[str] | None = None
    """Tools that run without asking, in Claude Code's syntax, e.g. `Read`, `Bash(git *)`."""
    disallowed_tools: list[str] | None = None
    tools: list[str] | None = None
    """The built-in tools that exist at all; `[]` for none."""
    permission_mode: PermissionMode | None = None
    max_turns: int | None = None
    max_budget_usd: float | None = None
    """Stop when the turn's Claude Code process has cost more, by its own estimate."""
    task_budget_tokens: int | None = None
    """Tokens that the model is told it has for the task, so that it can pace itself; 20 000 or more."""
    thinking: ThinkingChoice | None = None
    effort: Effort | None = None
    mcp_servers: dict[str, McpServer] | None = None
    """By name. Needs the scope `tools`. A server that cannot be started fails the turn before it begins."""
    add_dirs: list[str] | None = None
    """More folders that tools may work in (02.6): absolute, like `cwd`."""
    skills: list[str] | Literal["all"] | None = None
    """The skills to use: `all`, some by name, or `[]` for none. Needs the scope `tools` unless empty."""
    settings: dict[str, Any] | None = None
    """Claude Code settings above all others (02.5). They can run code: needs the scope `admin`."""
    sandbox: dict[str, Any] | None = None
    """Claude Code's sandbox settings. `{"enabled": true}` needs the scope `tools`, anything else `admin`."""
    setting_sources: list[SettingSource] | None = None
    """Default `["user"]`; `[]` for none. The folder's own (`project`, `local`) are refused: not trusted."""
    plugins: list[str] | None = None
    """Folders of Claude Code plugins. They can run code: needs the scope `admin`."""
    betas: list[str] | None = None
    """Beta features of the API, by header value; only with an API key."""
    file_checkpointing: bool | None = None
    """Claude Code keeps copies of the files that it changes."""
    hook_events: bool | None = None
    """What the user's hooks (of settings and plugins) do arrives as `raw` events."""
    verbatim_prompt: bool | None = None
    """The prompt is given as it is: no `@path` is replaced by a file, no `/command` is run."""
    env: dict[str, str] | None = None
    """Environment for Claude Code's tools: only names that the daemon's `claude.allowedEnv` lists."""


class ApiOptions(Params):
    """What only a query of the Messages API may choose."""

    max_tokens: int | None = None
    """Longest answer; default `direct.maxTokens`."""
    cache: Literal["system", "conversation"] | None = None
    """Keep the system prompt, or everything up to the prompt's end, in the API's prompt cache."""
    cache_ttl: Literal["5m", "1h"] | None = None
    """How long it is kept; default `5m`."""
    temperature: float | None = None
    stop_sequences: list[str] | None = None


class AnswerOptions(TurnOptions, kw_only=True):
    """Who answers one turn of its own, and in which form."""

    upstream: Upstream = "auto"
    api: ApiOptions | None = None
    """Chooses nothing by itself: with `upstream: auto` it is refused where Claude Code answers."""
    output_schema: dict[str, Any] | None = None
    """A JSON Schema: the answer is JSON that fits it, `structured` in the result (00.54, 00.55)."""
    output_attempts: int | None = None
    """How often the model may try, 1 to 10 (default 3): after an answer that does not fit it is told why."""


class QueryRunParams(AnswerOptions, kw_only=True):
    """Run one turn and wait for its end."""

    prompt: Prompt
    cwd: str | None = None
    """Absolute path of an existing directory. A new session of Claude Code's needs one; a resumed session
    keeps its own."""
    session_id: str | None = None
    """Continue this session. Absent: a new one."""
    fork: ForkChoice | None = None
    """The new session begins with the turns of another one; not together with `sessionId`."""
    new_session_id: str | None = None
    """The new session's id, a UUID that no session has (02.4); absent: the daemon makes one."""
    message_id: str | None = None
    """The client's own id of this submission (a UUID is best): submitting it twice runs it once, and the
    second answer is the first one's (`replayed: true`)."""
    priority: Priority = "interactive"
    timeout_ms: int | None = None
    """From arrival to answer; default `query.timeoutMs` (600 000). Waiting for a permission counts not."""
    queue_timeout_ms: int | None = None
    """Longest wait for admission; default `limits.queueTimeoutMs` (60 000), for `batch` none."""
    partial_result_token: str | int | None = None
    """Events of this turn arrive as `$/progress` with this token (LSP). Absent: only the result."""
    title: str | None = None
    tags: list[str] | None = None


class OutputAttempt(Value):
    """One try to answer in the form that was asked for."""

    usage: Usage = Usage()
    cost_usd: float | None = None
    error: str | None = None
    """What did not fit; absent for the one that did."""
    path: str | None = None
    """Where, as a JSON path: `$.people[0].age`."""


class StructuredAnswer(Value):
    """An answer that fits the `outputSchema`."""

    value: Any
    attempts: list[OutputAttempt]
    """In order; the result's `usage` and `costUsd` are their sums."""


class QueryRunResult(Value):
    """How the turn ended. A turn that failed is an error instead."""

    session_id: str
    turn_id: str
    text: str
    """The final answer."""
    upstream: AnsweredBy
    model: str | None = None
    stop_reason: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    """This turn's estimated cost; absent when unknown."""
    duration_ms: int = 0
    """From admission to the end of the turn."""
    queued_ms: int = 0
    """From arrival to admission."""
    claude_session_id: str | None = None
    """Absent for an answer of the Messages API."""
    upstream_reason: str | None = None
    """Why this upstream answered, in words."""
    structured: StructuredAnswer | None = None
    """With an `outputSchema`: the value."""
    start: Literal["warm", "cold"] | None = None
    """Whether the Claude Code process had been started before the query came."""
    replayed: bool = False
    """True when `messageId` had been run before and this is its stored answer."""


class CountTokensParams(Params):
    """Count what a prompt would take, without asking the model (`messagesApi` only: it needs an API key)."""

    prompt: Prompt
    model: str | None = None
    """Default: the session's, else `direct.model`."""
    system_prompt: str | None = None
    """Default: the session's."""
    session_id: str | None = None
    """Count it as the next turn of this session of the Messages API."""


class CountTokensResult(Value):
    """What the provider counted."""

    input_tokens: int
    model: str
