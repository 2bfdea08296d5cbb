"""What is shared, and how much of it is in use."""

from typing import Literal

import msgspec

from .breaker import BreakerInfo
from .budget import BudgetState
from .query import Priority
from .session import Usage
from .values import Params, Value

WaitReason = Literal[
    "concurrency", "rate", "throttled", "quota", "auth", "breaker", "memory", "reserved"
]
"""Why something waits: all places are taken · a rate (`limits.queriesPerMinute`, …) is used up · the
provider asked for a pause · the account's quota is used up until its window resets (it is *parked*) · the
credential was refused · the breaker tries out whether the provider is back · too little memory for one more
process · the free place is kept for people."""

SettingValue = int | float | str | bool | None
"""A setting's value on the wire."""


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


class Bucket(Value):
    """One rate and how much of it may be used at this moment."""

    name: str
    """`queriesPerMinute`, `queriesPerHour`; `requests`, `inputTokens`, `outputTokens` of a model pool."""
    source: Literal["settings", "provider"]
    """Whose bound it is."""
    level: float
    """What may be used at once; below zero: debt that has to be paid off first."""
    capacity: float
    per_second: float
    """How fast it fills."""


class ModelPool(Value):
    """What is known of one credential's limits for one family of models."""

    credential: str
    """Which credential, by a name that reveals nothing of it: `apiKey`, `claudeLogin`, …"""
    models: str
    """The family: `opus`, `sonnet`, `haiku`, or a name as it was asked for."""
    running: int = 0
    """Calls that are being answered."""
    waiting: int = 0
    ceiling: float = 0
    """How many calls may be under way at once at present; it follows what the provider bears."""
    buckets: list[Bucket] = msgspec.field(default_factory=list)
    paused_until: float | None = None
    """Unix seconds; the provider's `retry-after`."""
    ignored: int = 0
    """Figures of the provider's that could not be true, and were passed over."""
    breaker: BreakerInfo | None = None


class QuotaWindow(Value):
    """One of the account's usage windows, as the provider names it."""

    name: str
    """`five_hour`, `seven_day`, …"""
    status: str
    """`allowed`, `allowed_warning`, `rejected`, or the provider's newer word."""
    resets_at: float | None = None
    """Unix seconds."""
    utilization: float | None = None
    """Share used, 0 to 1 (or more), as the provider says."""
    exhausted_at: float | None = None
    """Forecast, Unix seconds: when it is used up at the present pace. Absent: not before its reset, or
    unknown."""
    seen_at: float = 0.0
    """Unix seconds."""


class LimitsStateResult(Value):
    """The door's state (`limits/state`)."""

    running: int
    """Turns that run now."""
    queued: int
    """Turns that wait to be admitted, parked ones included."""
    max_running: int
    max_queued: int
    max_queued_per_client: int
    calls_running: int = 0
    """API calls that are being answered now: the daemon's own, and those that go through the gateway."""
    calls_queued: int = 0
    """API calls that wait to be admitted."""
    max_calls: int = 0
    usage: CallUsage | None = None
    ratelimit: RateLimitSnapshot | None = None
    """Absent until an answer has said something."""
    parked: int = 0
    """Of those that wait, turns and calls that wait for a quota window to reset."""
    parked_until: float | None = None
    """Unix seconds at which they go on by themselves. While a quota is used up it is told though nothing
    waits yet: what comes and needs that quota is parked until then."""
    waiting_for_auth: bool = False
    """The credential was refused: nothing is sent before it is replaced or verified."""
    buckets: list[Bucket] = msgspec.field(default_factory=list)
    """The rates of turns."""
    pools: list[ModelPool] = msgspec.field(default_factory=list)
    windows: list[QuotaWindow] = msgspec.field(default_factory=list)
    budget: list[BudgetState] = msgspec.field(default_factory=list)
    """Those that have a limit."""
    retry_budget: float = 0.0
    """How many retries are left at this moment, of all clients together."""
    human_active: bool = False
    """Whether a person was active lately, so that a place is kept for people."""


class ClientShare(Params):
    """How much of what is shared a client gets, by the name it gives itself."""

    weight: float | None = None
    """Default 1; with 2 it gets twice as much as one with 1 while both wait. 0.01 to 100."""
    priority: Priority | None = None
    """The class of its turns, whatever they ask for."""


class LimitsGetResult(Value):
    """The settings that the daemon runs with (`limits/get`, `limits/set`)."""

    settings: dict[str, SettingValue]
    """By name as in the file: `limits.queriesPerMinute`, `breaker.timeoutMs`, …"""
    changed: list[str] = msgspec.field(default_factory=list)
    """Those that were set with `limits/set`, and hold whatever the file says."""
    clients: dict[str, ClientShare] = msgspec.field(default_factory=dict)


class LimitsSetParams(Params):
    """Change limits at run time. All of it or, with an error that names the setting, nothing."""

    settings: dict[str, SettingValue] | None = None
    """By name; null goes back to what the file and the defaults say."""
    clients: dict[str, ClientShare | None] | None = None
    """By the name a client gives itself; null: like all others."""


class LimitsExplainParams(Params):
    """Whose waiting to explain. Nothing: that of this connection; with `admin`, of all."""

    session_id: str | None = None
    turn_id: str | None = None


class Holder(Value):
    """Who holds one of the places."""

    client: str
    name: str = ""
    kind: Literal["turn", "call"] = "turn"
    turn_id: str | None = None
    """Of one's own only, unless with `admin`."""
    since: float = 0.0
    """Unix seconds."""


class WaitingTurn(Value, kw_only=True):
    """Something that waits, and why."""

    kind: Literal["turn", "call"]
    client: str
    name: str = ""
    session_id: str | None = None
    turn_id: str | None = None
    priority: Priority = "interactive"
    reason: WaitReason
    text: str
    """The reason in words, with the figures."""
    waited_ms: int
    position: int
    """How many are served before it, as it stands."""
    expected_at: float | None = None
    """Unix seconds; absent where nothing can be said."""
    expires_at: float | None = None
    """Unix seconds at which it is given up."""


class LimitsExplainResult(Value):
    """What waits, next first, and who holds the places."""

    waiting: list[WaitingTurn]
    holders: list[Holder] = msgspec.field(default_factory=list)


class LimitsWaitingParams(Value, kw_only=True):
    """One of this connection's turns has to wait, or waits for another reason now (`limits/waiting`)."""

    session_id: str | None = None
    turn_id: str | None = None
    reason: WaitReason
    text: str
    position: int
    expected_at: float | None = None


class LimitsParkedParams(Value):
    """The account's quota is used up (or is free again: `until` absent). To every connection."""

    until: float | None = None
    """Unix seconds; what waits goes on by itself then."""
    window: str | None = None
    parked: int = 0
    """How many turns and calls wait for it."""
