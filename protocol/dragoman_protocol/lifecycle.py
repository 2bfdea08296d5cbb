"""A connection's and the daemon's beginning and end, cancellation, progress, permissions."""

from typing import Any, Literal

import msgspec

from .values import Params, Value

Scope = Literal["query", "tools", "approve", "auth", "read-all-sessions", "admin"]
"""What a connection may do. `query`, `tools`, `approve` are given; the others must be asked for."""

DEFAULT_SCOPES: tuple[Scope, ...] = ("query", "tools", "approve")
"""Granted when `initialize` names no scopes."""

TraceValue = Literal["off", "messages", "verbose"]
"""LSP's trace levels."""


class ClientInfo(Value):
    """How the client calls itself: a label, never an identity."""

    name: str
    version: str | None = None


class InitializeParams(Value):
    """Opens a connection. LSP's own fields (`processId`, `rootUri`, …) are accepted and ignored."""

    client_info: ClientInfo | None = None
    scopes: list[Scope] | None = None
    """Absent: `query`, `tools`, `approve`."""
    capabilities: dict[str, Any] = msgspec.field(default_factory=dict)
    """`{"permissions": true}`: this client answers `permission/request`; `{"budget": true}`: `budget/raise`;
    `{"limits": true}`: it is told `limits/*`, `breaker/*` and `budget/*`."""
    trace: TraceValue = "off"


class ServerInfo(Value):
    """Who answers."""

    name: str
    version: str


class ServerCapabilities(Value):
    """What this daemon can do beyond the protocol's version; tags, not versions."""

    methods: list[str]
    features: list[str] = msgspec.field(default_factory=list)


class InitializeResult(Value):
    """The connection is open."""

    server_info: ServerInfo
    protocol_version: int
    capabilities: ServerCapabilities
    scopes: list[Scope]
    """What was granted."""
    connection_id: str
    limits: dict[str, int] = msgspec.field(default_factory=dict)
    """`maxMessageBytes`, `maxRunningRequests`, `maxWaitingBytes`."""


class CancelParams(Value):
    """Which request to cancel. It still gets its one response."""

    id: int | str


class ProgressParams(Value):
    """Progress of the request that brought this token."""

    token: int | str
    value: msgspec.Raw


class SetTraceParams(Value):
    """The new trace level."""

    value: TraceValue


class LogTraceParams(Value):
    """A line of trace."""

    message: str
    verbose: str | None = None


class DaemonStatusResult(Value):
    """The daemon as it is."""

    pid: int
    version: str
    socket: str
    started_at: float
    uptime_ms: int
    state: Literal["running", "draining"]
    connections: int
    running: int
    queued: int
    sessions_open: int
    claude_version: str | None = None
    """Known once Claude Code has run."""
    memory_bytes: int | None = None


class SpareProcess(Value):
    """A Claude Code process that was started ahead and that nobody uses yet."""

    key: str
    """What cannot be changed later, as the beginning of a digest: equal keys, equal processes."""
    state: Literal["starting", "ready"]
    age_ms: int
    cwd: str | None = None
    """Absent: of no folder, to be bound to that of whoever asks first."""
    memory_bytes: int | None = None
    rehearsed: bool = False
    """It has gone through a turn that was taken back, so its first one is as fast as a later one."""


class DaemonPoolResult(Value):
    """What is kept warm, and how often it was of use since the daemon's start."""

    max_spare: int
    spares: list[SpareProcess] = msgspec.field(default_factory=list)
    keys: int = 0
    """How many kinds of processes were asked for lately."""
    warm: int = 0
    """Conversations that found a process waiting."""
    cold: int = 0
    kept: int = 0
    """Processes that wait for the next conversation of the client they have worked for (`pool.reuse`)."""
    ended: dict[str, int] = msgspec.field(default_factory=dict)
    """Spares that were never used, by the reason of their end: `expired`, `evicted`, `pressure`, `outdated`
    (executable, user settings or credential have changed), `died`, `failed`."""
    held_back: Literal["memory", "starts", "crashes"] | None = None
    """Why fewer wait than are wanted: too little memory is free or allowed, others are starting, or processes
    of this kind crash at their start."""


class DaemonStopParams(Params):
    """How to stop."""

    grace_ms: int | None = None
    """How long running turns may finish; default `daemon.graceMs` (5 000)."""


class DaemonStopResult(Value):
    """The daemon will stop."""

    stopping: bool
    running: int
    """Turns that get the grace."""


class PermissionRequestParams(Value):
    """May this tool run? Sent by the daemon to the client that started the turn."""

    permission_id: str
    session_id: str
    turn_id: str
    tool_name: str
    input: dict[str, Any]
    tool_use_id: str | None = None
    reason: str | None = None
    """Why Claude Code asks, where it says so."""
    expires_at: float = 0.0
    """Unix seconds; without an answer by then the tool is denied."""


class PermissionDecision(Value):
    """A person's word."""

    decision: Literal["allow", "deny"]
    message: str | None = None
    """Told to the model on `deny`."""
    updated_input: dict[str, Any] | None = None
    """On `allow`: run the tool with this input instead."""


class PermissionRespondParams(Params):
    """The same word, later or from another connection that may approve."""

    permission_id: str
    decision: Literal["allow", "deny"]
    message: str | None = None
    updated_input: dict[str, Any] | None = None


class PermissionRespondResult(Value):
    """Accepted: this was the first answer."""

    decision: Literal["allow", "deny"]
