"""What was done and what it took, since somebody began to count (03.17, 03.18)."""

import msgspec

from .session import Usage
from .values import Params, Value


class Counts(Value):
    """Turns and what they took."""

    turns: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    """Stopped by whoever asked, or cut off by the daemon's end."""
    cost_usd: float = 0.0
    """Estimated; of those whose cost is known."""
    cost_unknown: int = 0
    """Turns whose cost is not known."""
    usage: Usage = Usage()
    duration_ms: int = 0
    """All together, waiting not included."""
    queued_ms: int = 0
    """Waiting, all together."""
    average_cost_usd: float | None = None
    average_duration_ms: int | None = None


class NamedCounts(Counts, kw_only=True):
    """The same of one client, model or project."""

    name: str


class StatsGetParams(Params):
    """Since when; nothing: since `stats/reset`, or ever."""

    since: float | None = None
    """Unix seconds."""


class StatsGetResult(Value, kw_only=True):
    """The counts; the lists have those that cost most first, at most 100 each."""

    since: float | None = None
    """Unix seconds."""
    total: Counts
    clients: list[NamedCounts] = msgspec.field(default_factory=list)
    models: list[NamedCounts] = msgspec.field(default_factory=list)
    projects: list[NamedCounts] = msgspec.field(default_factory=list)


class StatsResetResult(Value):
    """Counting begins anew; budgets are not touched."""

    since: float
