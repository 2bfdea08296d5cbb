"""Other local programs that share the daemon's limits: tokens for its gateway to the Messages API."""

import msgspec

from .limits import CallCounts
from .values import Params, Value


class GatewayTokenParams(Params):
    """For whom a token is."""

    name: str = "unnamed"
    """A label, shown in `gateway/tokens` and `limits/state`."""
    tcp: bool = False
    """Reachable over a port of 127.0.0.1 too, for programs that cannot use a unix socket."""


class GatewayTokenResult(Value):
    """A new token and how to reach the gateway with it. The token is not shown again."""

    token_id: str
    token: str
    """`ANTHROPIC_AUTH_TOKEN`; worth something only to this daemon's gateway, until it ends or revokes it."""
    base_url: str
    """`ANTHROPIC_BASE_URL`. Without `tcp` its host is only a name: nothing listens there."""
    unix_socket: str | None = None
    """`ANTHROPIC_UNIX_SOCKET`; absent with `tcp`."""
    name: str = "unnamed"


class IssuedToken(Value):
    """A token that is valid, without its secret."""

    token_id: str
    name: str
    created_at: float
    """Unix seconds."""
    tcp: bool
    counts: CallCounts
    """What was asked with it so far."""


class GatewayTokensResult(Value):
    """Every valid token, oldest first; those of Claude Code's own runs are not among them."""

    data: list[IssuedToken] = msgspec.field(default_factory=list)


class GatewayRevokeParams(Params):
    """Which token ends."""

    token_id: str


class GatewayRevokeResult(Value):
    """What became of it."""

    revoked: bool
    """Whether it was valid until now; its calls were cut off."""
