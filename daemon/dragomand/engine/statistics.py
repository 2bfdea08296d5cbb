"""What was asked and what it took, since somebody began to count: sums over the rows of spending (03.17 f.).

Nothing is counted in memory, so that nothing is lost with the daemon.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from dragoman_protocol.session import Usage
from dragoman_protocol.stats import Counts, NamedCounts, StatsGetResult

from dragomand.store.rows import SpendSums
from dragomand.store.spending import Grouping
from dragomand.store.store import Store

from .caller import Caller
from .sessions import storage_errors

_SINCE = "stats/since"
_ALL = frozenset({"admin", "read-all-sessions"})
MOST = 100
"""So many of each are told apart."""
MICRO = 1_000_000
"""Parts of a dollar that money is stored in."""


class Statistics:
    """Sums of what the store has."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """Read *store*; *clock* gives Unix seconds."""
        self._store = store
        self._clock = clock

    async def get(self, caller: Caller, since: float | None) -> StatsGetResult:
        """Return the counts from *since* on (None: since the reset).

        Everybody sees the total and the models; the clients and projects only with `admin` or
        `read-all-sessions`, else of the clients itself. Raises `storage_failed`.
        """
        with storage_errors():
            reset = await self._store.get_state(_SINCE)
            begin = since if since is not None else None if reset is None else msgspec.json.decode(reset)
            total = await self._store.spent(begin or 0.0)
            clients = await self._named("client", begin)
            models = await self._named("model", begin)
            projects = await self._named("project", begin) if caller.scopes & _ALL else []
        if not caller.scopes & _ALL:
            clients = [each for each in clients if each.name == caller.name]
        return StatsGetResult(
            since=begin,
            total=Counts(**figures(total)),
            clients=clients,
            models=models,
            projects=projects,
        )

    async def reset(self) -> float:
        """Count from now on; return when that is. Raises `storage_full`, `storage_failed`."""
        now = self._clock()
        with storage_errors():
            await self._store.set_state(_SINCE, msgspec.json.encode(now))
        return now

    async def _named(self, group: Grouping, since: float | None) -> list[NamedCounts]:
        found = await self._store.spent_by(group, since=since or 0.0, limit=MOST)
        return [NamedCounts(name=name, **figures(sums)) for name, sums in found]


def figures(sums: SpendSums) -> dict[str, Any]:
    """Return the fields of `Counts`."""
    known = sums.turns - sums.cost_unknown
    ended = sums.completed + sums.failed + sums.stopped
    return {
        "turns": sums.turns,
        "succeeded": sums.completed,
        "failed": sums.failed,
        "cancelled": sums.stopped,
        "cost_usd": sums.cost / MICRO,
        "cost_unknown": sums.cost_unknown,
        "usage": Usage(
            input_tokens=sums.input_tokens,
            output_tokens=sums.output_tokens,
            cache_read_tokens=sums.cache_read_tokens,
            cache_creation_tokens=sums.cache_creation_tokens,
        ),
        "duration_ms": sums.duration_ms,
        "queued_ms": sums.queued_ms,
        "average_cost_usd": sums.cost / MICRO / known if known else None,
        "average_duration_ms": round(sums.duration_ms / ended) if ended else None,
    }
