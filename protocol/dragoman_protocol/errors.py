"""Every error that can travel: one registry of stable codes, each with a `kind` and typed data.

JSON-RPC's and LSP's reserved codes keep their meaning; ours are positive, from 1000 up, one hundred a family.
A code or kind is never reused or renamed. Programs branch on `data.kind`; people read `message`, which says
what was expected, what came and what to do next.
"""

import re
from typing import Any, NamedTuple

import msgspec

from .expected import hint_at
from .values import Value


class ErrorData(Value):
    """What every error carries."""

    kind: str
    retryable: bool
    """The same request may succeed later, unchanged."""
    retry_after_ms: int | None = None
    """Earliest sensible retry, where it is known."""


class FieldData(ErrorData):
    """Which field was wrong."""

    path: str | None = None
    """A JSON path, e.g. `$.prompt`."""
    reason: str | None = None


class MethodData(ErrorData):
    """Which method was meant."""

    method: str | None = None
    nearest: str | None = None
    """The known method most like it."""


class SizeData(ErrorData):
    """Which bound was exceeded."""

    limit: int | None = None
    actual: int | None = None


class ScopeData(ErrorData):
    """Which scope is needed."""

    needed: str | None = None
    granted: list[str] = msgspec.field(default_factory=list)


class QueueData(ErrorData):
    """How full the door is."""

    queued: int | None = None
    limit: int | None = None
    waited_ms: int | None = None


class SessionData(ErrorData):
    """Which session, and in which state."""

    session_id: str | None = None
    turn_id: str | None = None
    message_id: str | None = None


class TurnData(ErrorData):
    """Which turn ended so, and what it had said until then."""

    session_id: str | None = None
    turn_id: str | None = None
    text: str | None = None
    status: int | None = None
    """HTTP status of the model's provider, where there was one."""
    resets_at: float | None = None
    """Unix seconds at which what is used up returns, where somebody said so."""
    window: str | None = None
    """Which limit of a subscription is used up (`five_hour`, `seven_day`, …), where it is one."""
    detail: str | None = None


class BudgetData(ErrorData):
    """Which cap was reached. Money in US dollars, estimated."""

    scope: str | None = None
    key: str | None = None
    limit_usd: float | None = None
    spent_usd: float | None = None
    reserved_usd: float | None = None
    remaining_usd: float | None = None
    needed_usd: float | None = None
    resets_at: float | None = None


class SchemaData(TurnData):
    """Where the last answer does not fit the schema; `text` is that answer."""

    path: str | None = None
    attempts: int | None = None


class PathData(ErrorData):
    """Which path was refused, and why."""

    path: str | None = None
    reason: str | None = None


class StepData(ErrorData):
    """What to do next."""

    next_step: str | None = None


class InternalData(ErrorData):
    """Where to look in the daemon's log."""

    request_id: str | None = None
    log: str | None = None


class PermissionData(ErrorData):
    """Which permission, and who resolved it."""

    permission_id: str | None = None
    by: str | None = None


class AgentData(ErrorData):
    """Which agent was meant."""

    agent: str | None = None
    nearest: str | None = None
    """The known agent most like it."""


class ErrorKind(NamedTuple):
    """One row of the registry."""

    code: int
    kind: str
    meaning: str
    """Default message, and the row's documentation."""
    data: type[ErrorData] = ErrorData
    retryable: bool = False


_ROWS = (
    ErrorKind(-32700, "parse_error", "The message is not valid JSON text in UTF-8.", FieldData),
    ErrorKind(-32600, "invalid_request", "The message is not a JSON-RPC 2.0 request.", FieldData),
    ErrorKind(-32601, "method_not_found", "There is no such method.", MethodData),
    ErrorKind(-32602, "invalid_params", "The parameters do not fit the method.", FieldData),
    ErrorKind(-32603, "internal_error", "Something unexpected went wrong in the daemon.", InternalData),
    ErrorKind(-32002, "not_initialized", "The connection must be opened with `initialize` first."),
    ErrorKind(-32800, "request_cancelled", "The request was cancelled by its client.", TurnData),
    ErrorKind(1000, "overloaded", "Too many requests wait on this connection; send fewer at a time.",
              SizeData, True),
    ErrorKind(1001, "draining", "The daemon is stopping; connect again and retry.", ErrorData, True),
    ErrorKind(1002, "message_too_large", "The message is larger than this connection may send.", SizeData),
    ErrorKind(1003, "bad_framing", "The bytes are not framed as messages; the connection is closed.",
              FieldData),
    ErrorKind(1004, "scope_required", "This connection lacks a scope; ask for it in `initialize`.",
              ScopeData),
    ErrorKind(1005, "too_complex", "The message is nested too deeply or has too many parts.", SizeData),
    ErrorKind(1006, "connection_closed", "The connection closed before the answer came.", ErrorData, True),
    ErrorKind(1007, "already_initialized", "`initialize` may be sent only once on a connection."),
    ErrorKind(1008, "too_many_clients", "The daemon has as many connections as it may have.", SizeData, True),
    ErrorKind(1100, "auth_required", "No credential for Claude is available.", StepData),
    ErrorKind(1101, "auth_failed", "Claude's provider refused the credential.", TurnData),
    ErrorKind(1200, "queue_full", "Too many turns wait already.", QueueData, True),
    ErrorKind(1201, "queue_timeout", "The turn was not admitted before its deadline.", QueueData, True),
    ErrorKind(1202, "deadline_exceeded", "The turn did not end before its deadline and was stopped.",
              TurnData),
    ErrorKind(1203, "throttled", "Claude's provider asks for a pause (429).", TurnData, True),
    ErrorKind(1204, "quota_exhausted", "The account's usage limit is reached.", TurnData, True),
    ErrorKind(1205, "upstream_overloaded", "Claude's provider is overloaded or unreachable.", TurnData, True),
    ErrorKind(1206, "upstream_rejected", "Claude's provider rejected the request itself.", TurnData),
    ErrorKind(1207, "schema_mismatch", "No attempt to answer fitted the `outputSchema`.",
              SchemaData),
    ErrorKind(1208, "circuit_open", "Circuit breaker open, service degraded.", TurnData, True),
    ErrorKind(1209, "rate_limited", "Rate limit exceeded: the turn could not begin before its deadline.",
              QueueData, True),
    ErrorKind(1210, "budget_exhausted", "The budget is spent.", BudgetData),
    ErrorKind(1300, "session_not_found", "There is no such session.", SessionData),
    ErrorKind(1301, "session_busy", "A turn of this session is running already.", SessionData, True),
    ErrorKind(1302, "resume_mismatch", "Claude Code opened another conversation than was asked for.",
              TurnData),
    ErrorKind(1303, "invalid_cwd", "The working directory cannot be used.", PathData),
    ErrorKind(1304, "message_conflict", "This `messageId` was used for another request.", SessionData),
    ErrorKind(1305, "stream_not_open", "The session has no open stream; call `stream/open`.", SessionData),
    ErrorKind(1306, "turn_interrupted", "The turn was cut off by the end of the daemon and has no answer.",
              SessionData),
    ErrorKind(1307, "session_exists", "There is a session with this id already; choose another one.",
              SessionData),
    ErrorKind(1310, "agent_not_found", "There is no such agent; `agent/list` lists those there are.",
              AgentData),
    ErrorKind(1400, "claude_not_found", "The Claude Code executable was not found.", TurnData),
    ErrorKind(1401, "claude_crashed", "Claude Code ended unexpectedly.", TurnData, True),
    ErrorKind(1402, "claude_protocol", "Claude Code said something that cannot be understood.", TurnData),
    ErrorKind(1403, "upstream_unavailable", "This way to reach Claude is not available.", StepData),
    ErrorKind(1500, "storage_full", "The disk is full; free some space and try again. Reading still works.",
              ErrorData, True),
    ErrorKind(1501, "storage_failed", "The session database could not be used.", PathData),
    ErrorKind(1600, "permission_not_found", "There is no such pending permission.", PermissionData),
    ErrorKind(1601, "already_resolved", "The permission was decided already.", PermissionData),
)  # fmt: skip

BY_KIND: dict[str, ErrorKind] = {row.kind: row for row in _ROWS}
"""The registry by kind."""

BY_CODE: dict[int, ErrorKind] = {row.code: row for row in _ROWS}
"""The registry by code."""


class RpcError(Exception):
    """An error that travels. Raised by handlers, and by clients for an error response.

    *kind* is a row of the registry; *message* replaces its default text; *data* are fields of its data type.
    `retryable` is the row's unless given.
    """

    def __init__(self, kind: str, message: str | None = None, **data: Any) -> None:
        """Make an error of *kind*; an unknown kind (`KeyError`) or field (`TypeError`) is found here."""
        row = BY_KIND[kind]
        super().__init__(message or row.meaning)
        self.code = row.code
        self.kind = kind
        self.message: str = message or row.meaning
        self.data: ErrorData = row.data(kind=kind, **{"retryable": row.retryable, **data})

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged."""
        return self.data.retryable

    def body(self) -> "ErrorBody":
        """Return the `error` member of a response. Never raises: what cannot be written is replaced."""
        try:
            _encode(self.message)
            return ErrorBody(code=self.code, message=self.message, data=msgspec.Raw(_encode(self.data)))
        except (UnicodeEncodeError, TypeError):
            # A path that is not UTF-8, or a value that is not JSON: the request must get its answer anyway.
            plain = ErrorData(kind=self.kind, retryable=self.retryable)
            message = self.message.encode("utf-8", "backslashreplace").decode()
            return ErrorBody(code=self.code, message=message, data=msgspec.Raw(_encode(plain)))


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """The `error` member of a response, with its data still undecoded."""

    code: int
    message: str
    data: msgspec.Raw = msgspec.Raw()


_encode = msgspec.json.Encoder().encode


def from_body(body: ErrorBody) -> RpcError:
    """Turn a received `error` member into an exception, keeping the peer's code and message.

    Of an unknown code (a newer peer's) `kind` and `retryable` are kept too if its data has them, else it is
    an `internal_error`. Data that does not fit the registry is ignored.
    """
    row = BY_CODE.get(body.code)
    error = RpcError(row.kind if row else "internal_error", body.message)
    error.code = body.code
    try:
        error.data = msgspec.json.decode(body.data, type=row.data if row else ErrorData)
    except msgspec.MsgspecError:
        return error
    if row is None:
        error.kind = error.data.kind
    return error


_FIELD = re.compile("(?:missing required|contains unknown) field `([^`]*)`")


def invalid_params(exc: Exception, kind: type | None = None) -> RpcError:
    """Turn a decoding error of parameters into `invalid_params` with the path of the field.

    With the type that was expected, *kind*, the text also says which words or field may be meant.
    """
    reason, _, path = str(exc).partition(" - at `")
    path = path.rstrip("`") or "$"
    hint = "" if kind is None else hint_at(kind, path, reason)
    named = _FIELD.search(reason)
    if named:
        path = f"{path}.{named[1]}"
    text = f"{reason}; {hint}" if hint else reason
    text += "" if text.endswith("?") else "."
    return RpcError("invalid_params", f"Invalid parameters at {path}: {text}", path=path, reason=reason)
