"""Everything that can go wrong, as classes: one for every kind of the protocol's registry, in families.

::

    DragomanError                        base of all
    ├── LocateError                      no daemon could be found, reached, started or trusted
    │   ├── NotRunningError              nobody listens (only with start=False)
    │   ├── BusyError                    a daemon listens and does not answer: frozen, or overrun
    │   ├── UntrustedError               a folder, socket or peer is not provably the user's own
    │   └── LaunchError                  the daemon did not start; the text is its own
    ├── RequestTimeoutError              no answer within `timeout_s` (also a built-in TimeoutError)
    ├── AnswerError                      the answer came and cannot be understood
    └── RequestError                     the request was answered with an error; an RpcError as well
        ├── RequestCancelledError        request_cancelled
        ├── ProtocolError                the message itself was wrong
        │   ├── ParseError               parse_error
        │   ├── InvalidRequestError      invalid_request
        │   ├── MethodNotFoundError      method_not_found
        │   ├── InvalidParamsError       invalid_params
        │   ├── AgentNotFoundError       agent_not_found
        │   ├── NotInitializedError      not_initialized
        │   ├── AlreadyInitializedError  already_initialized
        │   ├── MessageTooLargeError     message_too_large
        │   ├── BadFramingError          bad_framing
        │   └── TooComplexError          too_complex
        ├── DaemonError                  the daemon cannot serve it
        │   ├── InternalError            internal_error
        │   ├── OverloadedError          overloaded
        │   ├── DrainingError            draining
        │   ├── ConnectionClosedError    connection_closed
        │   └── TooManyClientsError      too_many_clients
        ├── AuthError                    who may, and who pays
        │   ├── ScopeRequiredError       scope_required
        │   ├── AuthRequiredError        auth_required
        │   └── AuthFailedError          auth_failed
        ├── LimitError                   not now, or not in that time
        │   ├── QueueFullError           queue_full
        │   ├── QueueTimeoutError        queue_timeout
        │   ├── DeadlineExceededError    deadline_exceeded
        │   ├── ThrottledError           throttled
        │   ├── QuotaExhaustedError      quota_exhausted
        │   ├── RateLimitedError         rate_limited
        │   ├── CircuitOpenError         circuit_open
        │   └── BudgetExhaustedError     budget_exhausted
        ├── UpstreamError                Claude's side failed
        │   ├── SchemaMismatchError      schema_mismatch
        │   ├── UpstreamOverloadedError  upstream_overloaded
        │   ├── UpstreamRejectedError    upstream_rejected
        │   ├── UpstreamUnavailableError upstream_unavailable
        │   ├── ClaudeNotFoundError      claude_not_found
        │   ├── ClaudeCrashedError       claude_crashed
        │   └── ClaudeProtocolError      claude_protocol
        ├── SessionError                 the session or its working directory
        │   ├── SessionNotFoundError     session_not_found
        │   ├── SessionBusyError         session_busy
        │   ├── SessionExistsError       session_exists
        │   ├── ResumeMismatchError      resume_mismatch
        │   ├── InvalidCwdError          invalid_cwd
        │   ├── MessageConflictError     message_conflict
        │   ├── StreamNotOpenError       stream_not_open
        │   └── TurnInterruptedError     turn_interrupted
        ├── StorageError                 the session database
        │   ├── StorageFullError         storage_full
        │   └── StorageFailedError       storage_failed
        └── ApprovalError                a permission
            ├── PermissionNotFoundError  permission_not_found
            └── AlreadyResolvedError     already_resolved

A `RequestError` has `kind` (stable, to branch on), `code`, `message` (for people), `data` (typed: see
`dragoman_protocol.errors`) and `retryable`. A kind that this version does not know is a plain `RequestError`
with the daemon's own code and text.
"""

from dragoman_protocol.errors import BY_CODE, RpcError

from dragoman import DragomanError as DragomanError
from dragoman.launch import LaunchError as LaunchError
from dragoman.locate import BusyError as BusyError
from dragoman.locate import LocateError as LocateError
from dragoman.locate import NotRunningError as NotRunningError
from dragoman.locate import UntrustedError as UntrustedError


class RequestTimeoutError(DragomanError, TimeoutError):
    """No answer came within `timeout_s`; the request was cancelled on the daemon."""


class AnswerError(DragomanError):
    """An answer came that cannot be understood: a daemon of another version, or a fault of it."""


class RequestError(DragomanError, RpcError):
    """The request was answered with an error."""

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged; the daemon's own word."""
        return self.data.retryable


class RequestCancelledError(RequestError):
    """The request was cancelled by this client; `data.text` is what had been said until then."""


class ProtocolError(RequestError):
    """The message itself was wrong."""


class ParseError(ProtocolError):
    """Not JSON, or not UTF-8."""


class InvalidRequestError(ProtocolError):
    """Not a JSON-RPC 2.0 request."""


class MethodNotFoundError(ProtocolError):
    """No such method; `data.nearest` is the one most like it."""


class InvalidParamsError(ProtocolError):
    """The parameters do not fit; `data.path` names the field."""


class AgentNotFoundError(ProtocolError):
    """No such agent; `data.nearest` is the one most like it."""


class NotInitializedError(ProtocolError):
    """A request before `initialize`."""


class AlreadyInitializedError(ProtocolError):
    """A second `initialize`."""


class MessageTooLargeError(ProtocolError):
    """More bytes than `data.limit`."""


class BadFramingError(ProtocolError):
    """Bytes that are no messages; the connection is closed."""


class TooComplexError(ProtocolError):
    """Nested too deeply, or too many parts."""


class DaemonError(RequestError):
    """The daemon cannot serve it."""


class InternalError(DaemonError):
    """Something unexpected in the daemon; `data.request_id` is in its log."""


class OverloadedError(DaemonError):
    """Too many requests wait on this connection."""


class DrainingError(DaemonError):
    """The daemon is stopping; connect again and retry."""


class ConnectionClosedError(DaemonError):
    """The connection ended before the answer came. Whether the turn ran is told by the same `message_id`."""


class TooManyClientsError(DaemonError):
    """The daemon has as many connections as it may have."""


class AuthError(RequestError):
    """Who may, and who pays."""


class ScopeRequiredError(AuthError):
    """This connection lacks `data.needed`: name it in `connect(scopes=…)`."""


class AuthRequiredError(AuthError):
    """No credential; `data.next_step` says what to do."""


class AuthFailedError(AuthError):
    """Claude's provider refused the credential."""


class LimitError(RequestError):
    """Not now, or not in that time."""


class QueueFullError(LimitError):
    """Too many turns wait already."""


class QueueTimeoutError(LimitError):
    """Not admitted before its deadline."""


class DeadlineExceededError(LimitError):
    """The turn did not end in time and was stopped; `data.text` is what it had said."""


class ThrottledError(LimitError):
    """Claude's provider asks for a pause."""


class QuotaExhaustedError(LimitError):
    """The account's usage limit is reached; `data.resets_at` says until when, where it is known."""


class RateLimitedError(LimitError):
    """A limit of calls or tokens a minute would not let the turn begin before its deadline."""


class CircuitOpenError(LimitError):
    """Claude's provider failed too often lately, so it is left alone; `data.retry_after_ms` says how long."""


class BudgetExhaustedError(LimitError):
    """A budget is spent; `data.scope` says which, `data.resets_at` until when, where it begins anew."""


class UpstreamError(RequestError):
    """Claude's side failed."""


class SchemaMismatchError(UpstreamError):
    """No answer fitted the `output_schema`; `data.path` says where, `data.text` is the last one."""


class UpstreamOverloadedError(UpstreamError):
    """Claude's provider is overloaded or unreachable."""


class UpstreamRejectedError(UpstreamError):
    """Claude's provider rejected the request itself."""


class UpstreamUnavailableError(UpstreamError):
    """This way to reach Claude is not available."""


class ClaudeNotFoundError(UpstreamError):
    """No Claude Code executable."""


class ClaudeCrashedError(UpstreamError):
    """Claude Code ended unexpectedly."""


class ClaudeProtocolError(UpstreamError):
    """Claude Code said something that cannot be understood."""


class SessionError(RequestError):
    """The session or its working directory."""


class SessionNotFoundError(SessionError):
    """No such session, or not one that this connection may see."""


class SessionBusyError(SessionError):
    """A turn of this session is running already."""


class SessionExistsError(SessionError):
    """There is a session with the chosen id already."""


class ResumeMismatchError(SessionError):
    """Claude Code opened another conversation than was asked for."""


class InvalidCwdError(SessionError):
    """The working directory cannot be used; `data.reason` says why."""


class MessageConflictError(SessionError):
    """The `message_id` was used for another request."""


class StreamNotOpenError(SessionError):
    """The session has no open stream."""


class TurnInterruptedError(SessionError):
    """The turn was cut off by the end of the daemon."""


class StorageError(RequestError):
    """The session database."""


class StorageFullError(StorageError):
    """The disk is full; reading and cancelling still work."""


class StorageFailedError(StorageError):
    """The database could not be used."""


class ApprovalError(RequestError):
    """A permission."""


class PermissionNotFoundError(ApprovalError):
    """No such pending permission."""


class AlreadyResolvedError(ApprovalError):
    """Decided already; `data.by` says by whom."""


def class_of(kind: str) -> type[RequestError]:
    """Return the class for a kind of the registry; `RequestError` itself for one without a class."""
    name = "".join(part.capitalize() for part in kind.split("_"))
    name = name if name.endswith("Error") else name + "Error"
    found = globals().get(name)
    return found if isinstance(found, type) and issubclass(found, RequestError) else RequestError


def from_rpc(error: RpcError) -> RequestError:
    """Return *error*, as it came over the wire, as an instance of its own class."""
    cls = class_of(error.kind) if error.code in BY_CODE else RequestError
    raised = cls(error.kind, error.message)
    raised.code, raised.data = error.code, error.data
    return raised
