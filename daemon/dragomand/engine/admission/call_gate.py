"""Whether an API call may be sent now, and what its end says of the provider."""

from collections.abc import Callable

from dragomand.policy.fair_queue import served
from dragomand.policy.rate_limiter import Estimate
from dragomand.policy.retry_budget import RetryBudget

from .asked import Asked, Blocked
from .permit import Permit
from .places import Places
from .pool import Pool, Pools
from .settings import DoorSettings
from .turn_gate import rate_blocked, throttled

NOTHING = Estimate()


class CallGate:
    """Decides on calls, and keeps what those under way hold."""

    what = "API call"

    def __init__(
        self,
        pools: Pools,
        settings: DoorSettings,
        *,
        chance: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Begin with none under way."""
        self._pools = pools
        self._chance = chance
        self._wall = wall
        self.places = Places(settings.max_calls, settings.max_nested)
        self.retries = RetryBudget(most=settings.retry_budget)
        self.on_used: Callable[[], None] = lambda: None
        """Called when more of a rate is taken than was written down as taken."""

    def apply(self, settings: DoorSettings) -> None:
        """Take new figures."""
        self.places.limit, self.places.nested = settings.max_calls, settings.max_nested
        self.retries.bound(settings.retry_budget)

    def blocks(self, asked: Asked, depth: int, now: float) -> Blocked | None:
        """Return what keeps a call from being sent now; None: `begin` it."""
        pool = self._pools.of(asked)
        blocked = pool.blocks(asked, now, self._wall)
        if blocked is not None:
            return blocked
        estimate = Estimate(asked.input_tokens) if asked.input_tokens else NOTHING
        when = pool.limiter.when(estimate, now)
        if when.binds is not None:
            return _by_rate(pool, when.binds, when.at, now)
        places, ceiling = self.places, pool.ceiling
        if places.running < places.limit and ceiling.running < ceiling.limit:
            return None
        if depth and places.at.get(depth, 0) < places.nested:
            return None
        if places.running >= places.limit:
            return Blocked("concurrency", places.text("API call", "limits.maxCalls"))
        text = f"{ceiling.running} API calls to {pool.models} are under way, as many as the provider bears."
        return Blocked("concurrency", text)

    def begin(self, asked: Asked, depth: int, now: float) -> Permit:
        """Give a permit to one that nothing blocks. Raises `EngineError` if it may not be paid for."""
        permit = Permit(asked, depth, now)
        if asked.reserve is not None:
            permit.reservation = asked.reserve()
        pool = permit.pool = self._pools.of(asked)
        estimate = Estimate(asked.input_tokens)
        if not pool.limiter.covers(estimate, now):
            self.on_used()
        permit.charge = pool.limiter.take(estimate, now)
        permit.breaker = pool.provider.breaker.begin(now)
        if not pool.credential.clear:
            permit.trial = pool.credential.begin(permit, asked.models, self._wall())
        pool.ceiling.running += 1
        self.places.enter(depth)
        return permit

    def end(self, permit: Permit, now: float) -> float | None:
        """A call is over; returns what it took in the queue's measure, None: unknown."""
        pool = permit.pool
        assert pool is not None
        assert permit.charge is not None
        failure, succeeded = permit.failure, permit.succeeded and permit.failure is None
        breaker = pool.provider.breaker
        if succeeded:
            breaker.succeeded(permit.breaker, now)
            pool.ceiling.succeeded()
            self.retries.succeeded()
        elif failure == "overload":
            breaker.failed(permit.breaker, now, self._chance())
        else:
            breaker.abandoned(permit.breaker)
        credential = pool.credential
        if permit.trial or not credential.clear:
            credential.ended(permit, permit.trial, succeeded=succeeded)
        pool.limiter.finish(
            permit.charge,
            now,
            succeeded=True if succeeded else None if failure is None else False,
            input_tokens=permit.input_tokens,
            output_tokens=permit.output_tokens,
            sent=permit.sent,
        )
        pool.ceiling.leave()
        self.places.leave(permit.depth, now - permit.since)
        if permit.reservation is not None:
            permit.reservation.release()
        if permit.input_tokens is None:
            return None
        return served(permit.input_tokens, permit.output_tokens or 0)


def _by_rate(pool: Pool, name: str, at: float, now: float) -> Blocked:
    if name in ("retryAfter", "trial"):
        return Blocked("throttled", throttled(at - now), None if name == "trial" else at)
    configured = name.endswith("PerMinute")
    setting = f"limits.{name}" if configured else f"The provider's limit of {name}"
    return rate_blocked(pool.limiter, name, at, now, setting)
