"""One request to run one turn."""

from typing import Any, Literal

from .agent import AgentDefinition, Effort
from .agent import PermissionMode as PermissionMode  # it was defined here, and is looked for here
from .content import Prompt
from .session import Usage
from .values import Params, Value

Upstream = Literal["auto", "claudeCode", "messagesApi"]
"""Who answers. `auto` is `claudeCode` in this version."""

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


class TurnOptions(Params):
    """What a turn may choose. Nothing chosen: Claude Code's own defaults."""

    model: str | None = None
    """An alias (`opus`, `sonnet`, `haiku`) or a full model name (00.3, 02.1)."""
    fallback_model: str | list[str] | None = None
    """Who answers when the model is overloaded or not available; several are tried in order (02.2)."""
    agent: str | None = None
    """Who answers: a name in `agents`, else one of the user's own agents, else a preset (02.30)."""
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
    verbatim_prompt: bool | None = None
    """The prompt is given as it is: no `@path` is replaced by a file, no `/command` is run."""
    env: dict[str, str] | None = None
    """Environment for Claude Code's tools: only names that the daemon's `claude.allowedEnv` lists."""


class QueryRunParams(TurnOptions, kw_only=True):
    """Run one turn and wait for its end."""

    prompt: Prompt
    cwd: str | None = None
    """Absolute path of an existing directory. A new session needs one; a resumed session keeps its own."""
    session_id: str | None = None
    """Continue this session. Absent: a new one."""
    message_id: str | None = None
    """The client's own id of this submission (a UUID is best): submitting it twice runs it once, and the
    second answer is the first one's (`replayed: true`)."""
    upstream: Upstream = "auto"
    priority: Priority = "interactive"
    timeout_ms: int | None = None
    """From arrival to answer; default `query.timeoutMs` (600 000). Waiting for a permission counts not."""
    queue_timeout_ms: int | None = None
    """Longest wait for admission; default `limits.queueTimeoutMs` (60 000), for `batch` none."""
    partial_result_token: str | int | None = None
    """Events of this turn arrive as `$/progress` with this token (LSP). Absent: only the result."""
    title: str | None = None
    tags: list[str] | None = None


class QueryRunResult(Value):
    """How the turn ended. A turn that failed is an error instead."""

    session_id: str
    turn_id: str
    text: str
    """The final answer."""
    upstream: Literal["claudeCode", "messagesApi"]
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
    start: Literal["warm", "cold"] | None = None
    """Whether the Claude Code process had been started before the query came."""
    replayed: bool = False
    """True when `messageId` had been run before and this is its stored answer."""
