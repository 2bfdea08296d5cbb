"""What is shared, and how much of it is in use."""

import msgspec

from .session import Usage
from .values import Value


class CallCounts(Value):
    """API calls that went through the daemon, and what they took."""

    calls: int = 0
    failed: int = 0
    """Of them, those that were answered with an error, or cut off."""
    usage: Usage = Usage()


class ClientCounts(CallCounts, kw_only=True):
    """What one client's calls took."""

    client: str
    """Its connection's id; `gateway:<tokenId>` for a program that has a token of its own."""
    name: str = ""
    """How it calls itself."""


class TurnCounts(CallCounts, kw_only=True):
    """What one turn's calls took."""

    turn_id: str
    client: str


class CallUsage(Value):
    """What API calls took since the daemon began, counted from the answers as they went by."""

    total: CallCounts
    clients: list[ClientCounts] = msgspec.field(default_factory=list)
    """This connection's own; with `admin`, those of the newest 256 clients."""
    turns: list[TurnCounts] = msgspec.field(default_factory=list)
    """Of the newest 64 turns those of this connection; with `admin`, all."""


class RateWindow(Value):
    """One of the provider's own limits."""

    limit: int | None = None
    remaining: int | None = None
    reset_at: float | None = None
    """Unix seconds at which it is full again."""
    status: str | None = None
    """Of a subscription's window: `allowed`, `allowed_warning`, `rejected`, or a word not known today."""
    utilization: float | None = None
    """The share of a subscription's window that is used: 1 is all of it."""


class RateLimitSnapshot(Value):
    """What the provider said of its limits: in the headers of its answers, or through Claude Code.

    Of each limit the newest word, in the order in which the calls were sent.
    """

    seen_at: float
    """Unix seconds; of the newest word."""
    status: int | None = None
    """HTTP status of that answer, where it is known."""
    windows: dict[str, RateWindow] = msgspec.field(default_factory=dict)
    """By the provider's name for it: `requests`, `input-tokens`, `output-tokens`, `tokens`; of a subscription
    `five_hour`, `seven_day`, `seven_day_opus`, … or a name not known today."""
    retry_after_ms: int | None = None
    """The pause that was asked for last."""


class LimitsStateResult(Value):
    """The door's state (`limits/state`)."""

    running: int
    """Turns that run now."""
    queued: int
    """Turns that wait to be admitted."""
    max_running: int
    max_queued: int
    max_queued_per_client: int
    calls_running: int = 0
    """API calls that are being answered now, of those that go through the gateway."""
    calls_queued: int = 0
    """API calls that wait to be admitted."""
    max_calls: int = 0
    usage: CallUsage | None = None
    ratelimit: RateLimitSnapshot | None = None
    """Absent until an answer has said something."""
