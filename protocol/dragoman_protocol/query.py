"""One request to run one turn."""

from typing import Literal

from .content import Prompt
from .session import Usage
from .values import Params, Value

Upstream = Literal["auto", "claudeCode", "messagesApi"]
"""Who answers. `auto` is `claudeCode` in this version."""

PermissionMode = Literal["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"]
"""Claude Code's permission modes. `bypassPermissions` needs the `admin` scope."""

Priority = Literal["interactive", "batch"]
"""The class a query waits in: a person is waiting, or a job."""


class TurnOptions(Params):
    """What a turn may choose. Nothing chosen: Claude Code's own defaults."""

    model: str | None = None
    """An alias (`opus`, `sonnet`, `haiku`) or a full model name (00.3, 02.1)."""
    fallback_model: str | None = None
    system_prompt: str | None = None
    append_system_prompt: str | None = None
    allowed_tools: list[str] | None = None
    """Tools that run without asking, in Claude Code's syntax, e.g. `Read`, `Bash(git *)`."""
    disallowed_tools: list[str] | None = None
    tools: list[str] | None = None
    """The built-in tools that exist at all; `[]` for none."""
    permission_mode: PermissionMode | None = None
    max_turns: int | None = None
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
