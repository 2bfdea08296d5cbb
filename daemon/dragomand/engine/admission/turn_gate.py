"""Whether a turn may start now: a place, a rate, money, and a provider that can be asked."""

import math
from collections.abc import Callable

from dragomand.policy.fair_queue import served
from dragomand.policy.rate_limiter import Estimate, RateLimiter

from .asked import Asked, Blocked
from .permit import Permit
from .places import Places
from .pool import Pools
from .settings import DoorSettings

ONE = Estimate()
HOUR_S = 3600.0


class TurnGate:
    """Decides on turns, and keeps what those that run hold."""

    what = "turn"

    def __init__(
        self,
        pools: Pools,
        settings: DoorSettings,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Begin with none running."""
        self._pools = pools
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self.places = Places(settings.max_running, settings.max_nested)
        self.rates: dict[str, RateLimiter] = {}
        """Queries a minute and an hour, by credential."""

    def apply(self, settings: DoorSettings) -> None:
        """Take new figures."""
        self._settings = settings
        self.places.limit, self.places.nested = settings.max_running, settings.max_nested
        for rate in self.rates.values():
            self._configure(rate, self._clock())

    def rate_of(self, credential: str) -> RateLimiter:
        """Return the rates of one credential."""
        found = self.rates.get(credential)
        return self.rate_since(credential, self._clock()) if found is None else found

    def rate_since(self, credential: str, at: float) -> RateLimiter:
        """Begin the rates of one credential anew, as if nothing had been used before *at*."""
        made = self.rates[credential] = RateLimiter()
        self._configure(made, at)
        return made

    def blocks(self, asked: Asked, depth: int, now: float) -> Blocked | None:
        """Return what keeps a turn from starting now; None: `begin` it."""
        pool = self._pools.of(asked)
        blocked = pool.blocks(asked, now, self._wall)
        if blocked is not None:
            return blocked
        if pool.limiter.trials is not None:
            when = pool.limiter.when(ONE, now)
            if when.binds == "retryAfter":
                return Blocked("throttled", throttled(when.at - now), when.at)
        rate = self.rate_of(asked.credential)
        when = rate.when(ONE, now)
        if when.binds is not None:
            return _rate(rate, when.binds, when.at, now)
        if not self.places.has_room(depth):
            return Blocked("concurrency", self.places.text("turn", "limits.maxRunning"))
        return None

    def begin(self, asked: Asked, depth: int, now: float) -> Permit:
        """Give a permit to one that nothing blocks. Raises `EngineError` if it may not be paid for."""
        permit = Permit(asked, depth, now)
        if asked.reserve is not None:
            permit.reservation = asked.reserve()
        permit.charge = self.rate_of(asked.credential).take(ONE, now)
        self.places.enter(depth)
        return permit

    def end(self, permit: Permit, now: float) -> float | None:
        """A turn is over; returns what it took in the queue's measure, None: unknown."""
        self.places.leave(permit.depth, now - permit.since)
        if permit.charge is not None:
            self.rate_of(permit.asked.credential).finish(permit.charge, now, succeeded=None)
        if permit.reservation is not None:
            permit.reservation.release()
        if permit.input_tokens is None:
            return None
        return served(permit.input_tokens, permit.output_tokens or 0)

    def _configure(self, rate: RateLimiter, now: float) -> None:
        rate.configure("queriesPerMinute", "requests", self._settings.queries_per_minute, 60, now)
        rate.configure("queriesPerHour", "requests", self._settings.queries_per_hour, HOUR_S, now)


def throttled(wait: float) -> str:
    """Return the words for a pause that lasts *wait* seconds more."""
    if math.isinf(wait):
        return "The provider asked for a pause (429); a call tries whether it is over."
    return f"The provider asked for a pause (429); it lasts {wait:.1f} s more."


def rate_blocked(limiter: RateLimiter, name: str, at: float, now: float, setting: str) -> Blocked:
    """Return what is said of a rate that is used up until *at*."""
    for bucket in limiter.state(now):
        if bucket.name == name:
            text = f"{setting} is used up: {bucket.capacity:g} at once and {bucket.rate * 60:g} a minute; "
            return Blocked("rate", f"{text}next in {at - now:.1f} s.", at, each_s=1 / bucket.rate)
    return Blocked("rate", f"{setting} is used up; next in {at - now:.1f} s.", at)


def _rate(limiter: RateLimiter, name: str, at: float, now: float) -> Blocked:
    return rate_blocked(limiter, name, at, now, f"limits.{name}")
