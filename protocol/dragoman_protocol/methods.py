"""The one table of methods: everything that may be asked for or told, in either direction.

The server's routes, the clients' stubs, the JSON Schema, the OpenRPC document and `reference.md` all come
from here. A row names its parameters, result, the errors of its own, its lane and the scope it needs.

Lanes say how requests are ordered:

- `inline`: answered in the order of arrival, at once, by a plain function; nothing in it may wait.
- `session`: one after another for one `sessionId` of one connection, beside everything else.
- `free`: beside everything else, in a task of its own.
"""

from typing import Literal, NamedTuple

import msgspec

from . import (
    agent,
    auth,
    breaker,
    budget,
    gateway,
    lifecycle,
    limits,
    model,
    orchestrate,
    query,
    session,
    stats,
    stream,
)
from .values import Empty

Lane = Literal["inline", "session", "free"]
"""How requests of a method are ordered."""

Sender = Literal["client", "daemon"]
"""Who sends it."""

COMMON_ERRORS = ("invalid_request", "invalid_params", "internal_error", "request_cancelled", "overloaded",
                 "draining", "scope_required", "not_initialized")  # fmt: skip
"""Errors that any request may get."""


class Method(NamedTuple):
    """One row. `result` None: a notification."""

    name: str
    summary: str
    params: type[msgspec.Struct] = Empty
    result: type[msgspec.Struct] | None = Empty
    errors: tuple[str, ...] = ()
    """Kinds of its own, beside `COMMON_ERRORS`."""
    lane: Lane = "free"
    scope: lifecycle.Scope | None = None
    """Needed on the connection; None: none."""
    sender: Sender = "client"
    before_initialize: bool = False
    notifies: tuple[str, ...] = ()
    """What the daemon may send meanwhile."""
    since: str = "0.1"


_SESSION = ("session_not_found", "storage_failed")
_UPSTREAM = (
    "auth_required", "auth_failed", "throttled", "quota_exhausted", "upstream_overloaded",
    "upstream_rejected", "upstream_unavailable", "claude_not_found", "claude_crashed", "claude_protocol",
    "resume_mismatch",
)  # fmt: skip
_DIRECT = ("auth_required", "auth_failed", "throttled", "quota_exhausted", "upstream_overloaded",
           "upstream_rejected", "upstream_unavailable", "claude_protocol")  # fmt: skip
_TURN = (
    *_UPSTREAM, "queue_full", "queue_timeout", "deadline_exceeded", "invalid_cwd", "session_not_found",
    "session_busy", "session_exists", "message_conflict", "turn_interrupted", "storage_full",
    "storage_failed", "schema_mismatch", "agent_not_found", "circuit_open", "rate_limited",
    "budget_exhausted",
)  # fmt: skip

_ROWS = (
    # -- the connection
    Method("initialize", "Open the connection: who calls, which scopes it asks for, what it can answer.",
           lifecycle.InitializeParams, lifecycle.InitializeResult,
           ("already_initialized", "too_many_clients"), lane="inline", before_initialize=True),
    Method("initialized", "The client is ready. Optional.", Empty, None),
    Method("shutdown",
           "Finish: running requests are cancelled and answered; nothing new is accepted but `exit`.", Empty,
           Empty, before_initialize=False),
    Method("exit", "Close the connection. The shared daemon goes on.", Empty, None, before_initialize=True),
    Method("$/cancelRequest", "Cancel a request. It still gets its one response.", lifecycle.CancelParams,
           None),
    Method("$/setTrace", "Change the trace level.", lifecycle.SetTraceParams, None),
    # -- auth
    Method("auth/status", "Which credential the daemon holds, from memory.", Empty, auth.AuthStatusResult,
           lane="inline"),
    # -- query
    Method("query/run",
           "Run one turn and wait for its end; with a `partialResultToken` its events arrive meanwhile.",
           query.QueryRunParams, query.QueryRunResult, _TURN, scope="query", notifies=("$/progress",)),
    Method("query/countTokens", "Count a prompt's tokens with the provider, without asking the model.",
           query.CountTokensParams, query.CountTokensResult,
           (*_DIRECT, *_SESSION), scope="query"),
    # -- orchestrate
    Method("orchestrate/parallel", "Run independent queries side by side and return every outcome.",
           orchestrate.OrchestrateParallelParams, orchestrate.OrchestrateParallelResult,
           ("auth_required", "invalid_cwd"), scope="query", notifies=("$/progress",)),
    # -- session
    Method("session/list",
           "Stored sessions, newest first: this connection's own, with `read-all-sessions` everybody's.",
           session.SessionListParams, session.SessionListResult, ("storage_failed",), scope="query"),
    Method("session/get", "One session with its turns.", session.SessionGetParams, session.SessionGetResult,
           _SESSION, scope="query"),
    Method("session/messages", "The items of a session, oldest first.", session.SessionMessagesParams,
           session.SessionMessagesResult, _SESSION, scope="query"),
    Method("session/fork",
           "Copy a session up to a turn into a new one, which can go on from there; the original stays.",
           session.SessionForkParams, session.SessionForkResult,
           (*_SESSION, "session_exists", "storage_full"), scope="query"),
    Method("session/delete", "Delete a session and everything in it, for good.", session.SessionDeleteParams,
           session.SessionDeleteResult, (*_SESSION, "session_busy", "storage_full"), scope="query"),
    # -- stream
    Method("stream/open",
           "Open a session whose Claude Code process stays alive between turns, and attach to it.",
           stream.StreamOpenParams, stream.StreamOpenResult, _TURN, lane="session", scope="query",
           notifies=("stream/event",)),
    Method("stream/send",
           "Send a message to an open session; answered when the turn is accepted, not at its end.",
           stream.StreamSendParams, stream.StreamSendResult, (*_TURN, "stream_not_open"), lane="session",
           scope="query"),
    Method("stream/attach", "Subscribe to a session's events, replayed from a cursor and then live.",
           stream.StreamAttachParams, stream.StreamAttachResult, _SESSION, lane="session", scope="query",
           notifies=("stream/event", "stream/dropped")),
    Method("stream/detach", "Stop receiving a session's events.", stream.StreamDetachParams, Empty,
           lane="session", scope="query"),
    Method("stream/interrupt", "Stop the running turn of a session; it still ends with `turnCompleted`.",
           stream.StreamInterruptParams, stream.StreamInterruptResult, ("session_not_found",), scope="query"),
    Method("stream/rewindFiles",
           "Put files back as they were when a turn began; for streams opened with `fileCheckpointing`.",
           stream.StreamRewindFilesParams, stream.StreamRewindFilesResult,
           (*_UPSTREAM, "stream_not_open", "session_busy", "storage_failed"), lane="session", scope="tools"),
    Method("stream/close", "End the session's process; the session stays and can be continued.",
           stream.StreamCloseParams, Empty, ("stream_not_open",), lane="session", scope="query"),
    # -- agents, models
    Method("agent/list", "The agents of the library: presets, and the user's own files.",
           agent.AgentListParams, agent.AgentListResult, scope="query"),
    Method("agent/get", "One agent of the library with its whole definition.", agent.AgentGetParams,
           agent.AgentGetResult, ("agent_not_found",), scope="query"),
    Method("model/list", "The models that have aliases, and what their presets choose.", Empty,
           model.ModelListResult, lane="inline"),
    # -- permissions, limits, the daemon
    Method("permission/respond", "Decide a pending permission, from any connection that may approve.",
           lifecycle.PermissionRespondParams, lifecycle.PermissionRespondResult,
           ("permission_not_found", "already_resolved"), lane="inline", scope="approve"),
    Method("limits/state", "How many turns and API calls run and wait, how many may, what the calls took.",
           Empty, limits.LimitsStateResult, lane="inline"),
    Method("limits/get", "The limits that hold now, and which of them were set at run time.", Empty,
           limits.LimitsGetResult, lane="inline"),
    Method("limits/set", "Change limits at once and for good; null goes back to the settings file.",
           limits.LimitsSetParams, limits.LimitsGetResult, ("storage_full", "storage_failed"), scope="admin"),
    Method("limits/explain", "Why each of what waits does, who holds the places, when it is expected to run.",
           limits.LimitsExplainParams, limits.LimitsExplainResult, lane="inline"),
    Method("breaker/state", "The breakers: which provider is left alone, until when, and why.", Empty,
           breaker.BreakerStateResult, lane="inline"),
    Method("breaker/reset", "Close breakers, so that the next call tries at once.",
           breaker.BreakerResetParams, breaker.BreakerResetResult, lane="inline", scope="admin"),
    Method("budget/get", "The caps on spending and what is left of them.", budget.BudgetGetParams,
           budget.BudgetGetResult, ("storage_failed",), scope="query"),
    Method("budget/set", "Set, change or end a cap; it is kept over restarts.", budget.BudgetSetParams,
           budget.BudgetSetResult, ("storage_full", "storage_failed"), scope="admin"),
    Method("stats/get", "What was asked and what it took, by client, model and project.",
           stats.StatsGetParams, stats.StatsGetResult, ("storage_failed",), scope="query"),
    Method("stats/reset", "Begin to count anew.", Empty, stats.StatsResetResult,
           ("storage_full", "storage_failed"), scope="admin"),
    # -- the gateway
    Method("gateway/token",
           "Give another local program a token for the gateway: it shares the limits and needs no key.",
           gateway.GatewayTokenParams, gateway.GatewayTokenResult, ("upstream_unavailable", "queue_full"),
           scope="admin"),
    Method("gateway/tokens", "The tokens that are valid, and what was asked with each.", Empty,
           gateway.GatewayTokensResult, lane="inline", scope="admin"),
    Method("gateway/revoke", "End a token; what is under way with it is cut off.",
           gateway.GatewayRevokeParams, gateway.GatewayRevokeResult, lane="inline", scope="admin"),
    Method("daemon/status", "The daemon as it is.", Empty, lifecycle.DaemonStatusResult, lane="inline"),
    Method("daemon/pool", "The Claude Code processes that were started ahead, and how often that was of use.",
           Empty, lifecycle.DaemonPoolResult, lane="inline", scope="admin"),
    Method("daemon/stop", "Stop the daemon: running turns get the grace, then are cancelled.",
           lifecycle.DaemonStopParams, lifecycle.DaemonStopResult, lane="inline", scope="admin"),
    # -- from the daemon
    Method("permission/request", "May this tool run? No answer in time is a denial.",
           lifecycle.PermissionRequestParams, lifecycle.PermissionDecision, sender="daemon"),
    Method("budget/raise", "May more be spent? Asked of a client that said `budget` in its capabilities.",
           budget.BudgetRaiseParams, budget.BudgetRaiseResult, sender="daemon"),
    Method("limits/waiting", "A turn of this connection waits, or waits for another reason now.",
           limits.LimitsWaitingParams, None, sender="daemon"),
    Method("limits/parked", "The account's quota is used up, or free again.", limits.LimitsParkedParams, None,
           sender="daemon"),
    Method("breaker/changed", "A breaker opened, tries out or closed.", breaker.BreakerChangedParams, None,
           sender="daemon"),
    Method("budget/warning", "Four fifths of a cap are spent.", budget.BudgetWarningParams, None,
           sender="daemon"),
    Method("budget/exhausted", "A cap is reached.", budget.BudgetExhaustedParams, None, sender="daemon"),
    Method("$/progress", "An event of the request that brought this token.", lifecycle.ProgressParams, None,
           sender="daemon"),
    Method("$/logTrace", "What happens on this connection, if it asked for a trace.",
           lifecycle.LogTraceParams, None, sender="daemon"),
    Method("stream/event", "One event of a session this connection is attached to.", stream.StreamEventParams,
           None, sender="daemon"),
    Method("stream/dropped",
           "This connection reads too slowly and is no longer attached; attach again from the cursor.",
           stream.StreamDroppedParams, None, sender="daemon"),
)  # fmt: skip

METHODS: dict[str, Method] = {row.name: row for row in _ROWS}
"""The table by name."""
