"""When the next call may be sent: by what was configured, and by what the provider says of itself.

Theory. Several token buckets, all of which must grant: requests, input tokens, output tokens, as the
provider limits them, and those that were configured. An estimate is taken from each before sending; what
the answer says is settled as it arrives. The provider's word is learned, not guessed: its first headers
set rate (its limit a minute / 60 each second) and burst (ten seconds' worth, so that six times as much is
in reserve there), later ones correct the rate and can only lower the level: others may use the same
account. Answers arrive in another order than their calls were sent in, so what belongs to an earlier
sending than the newest merged one is ignored; what cannot be is ignored and counted.

`pause` is the provider's `retry-after`: nothing is sent before it (plus up to a tenth, by chance), then
one call to try, and twice as many for each that succeeds, until that is no limit any more.

One limiter belongs to one key: a credential and a pool of models (or to turns, where only requests count).
It survives its process by leases (`lease`). All times are seconds of one monotonic clock, `wall` is Unix
time.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from .lease import Kept, Lease, restored, settled
from .token_bucket import TokenBucket

Kind = Literal["requests", "input", "output"]
"""What a bucket counts."""

LEARNED: dict[str, Kind] = {"requests": "requests", "input-tokens": "input", "output-tokens": "output"}
"""The provider's names of its limits."""
BURST_S = 10.0
MINUTE_S = 60.0
PAUSE_JITTER = 0.1
MOST_PAUSE_S = 86_400.0
"""A longer pause than a day is not believed."""
MOST_LIMIT = 1e10
"""A higher limit a minute is not believed."""
ENOUGH_TRIALS = 32
"""With so many calls at once to try, trying is over."""


class Estimate(NamedTuple):
    """What a call is expected to take. Cache reads are no input; output is what is likely, not the most."""

    input_tokens: float = 0
    output_tokens: float = 0


class When(NamedTuple):
    """When a call may be sent."""

    at: float
    """0: now. An instant of the monotonic clock; infinity: when a call that is under way has ended."""
    binds: str | None
    """What it waits for longest: a bucket's name, `retryAfter`, or `trial`; None: nothing."""


class Window(NamedTuple):
    """What one answer says of one limit of the provider's."""

    limit: float | None = None
    """A minute."""
    remaining: float | None = None
    reset_at: float | None = None
    """Unix time."""


class BucketState(NamedTuple):
    """A bucket, to be told."""

    name: str
    kind: Kind
    level: float
    capacity: float
    rate: float


class LimiterKept(NamedTuple):
    """A limiter as it is stored."""

    written_at: float
    """Unix time."""
    not_before: float | None
    """Unix time of the end of a pause."""
    buckets: dict[str, Kept]


NOW = When(0.0, None)


class _Limit:
    """One bucket with its name and what is kept of it."""

    __slots__ = ("bucket", "kind", "lease", "name")

    def __init__(self, name: str, kind: Kind, bucket: TokenBucket) -> None:
        self.name = name
        self.kind = kind
        self.bucket = bucket
        self.lease = Lease()

    def change(self, capacity: float, rate: float, now: float) -> None:
        self.bucket.change(capacity, rate, now)
        self.lease = Lease()  # what was written is of another bucket


class Charge:
    """What a call has taken. Settle it while the answer comes, finish it on every path."""

    __slots__ = ("_generation", "_input", "_marks", "_open", "_output", "_trial", "order")

    def __init__(self, order: int, estimate: Estimate, generation: int, trial: bool) -> None:
        """Belong to the call sent as the *order*-th; made by `RateLimiter.take` alone."""
        self.order = order
        self._input = estimate.input_tokens
        self._output = estimate.output_tokens
        self._generation = generation
        self._trial = trial
        self._marks: list[tuple[_Limit, int]] = []
        self._open = True


class RateLimiter:
    """All rates of one key."""

    __slots__ = ("_generation", "_limits", "_merged", "_not_before", "_open", "_order", "_trials",
                 "_under_trial", "absurd", "stale")  # fmt: skip

    def __init__(self) -> None:
        """Limit nothing until something is configured or learned."""
        self._limits: list[_Limit] = []
        self._open: dict[int, Charge] = {}
        self._order = 0
        self._merged = 0
        self._not_before = 0.0
        self._trials: int | None = None
        """How many calls may be under way to try; None: as many as want."""
        self._under_trial = 0
        self._generation = 0
        self.absurd = 0
        """How many words of the provider's could not be believed."""
        self.stale = 0
        """How many came too late to be merged."""

    # -- what limits

    def configure(self, name: str, kind: Kind, amount: float | None, seconds: float, now: float) -> None:
        """Grant *amount* of *kind* in each *seconds* (None: *name* limits no more); keeps what is used."""
        limit = self._find(name)
        if amount is None:
            self._limits = [other for other in self._limits if other is not limit]
        elif limit is None:
            self._limits.append(_Limit(name, kind, TokenBucket.per(amount, seconds, now)))
        else:
            limit.change(amount, amount / seconds, now)

    def learn(self, order: int, windows: Mapping[str, Window], now: float, wall: float) -> None:
        """Merge what the answer to a call says; *order* is its `Charge.order`. Unknown names are left out."""
        if order < self._merged:
            self.stale += 1
            return
        self._merged = order
        for name, window in windows.items():
            kind = LEARNED.get(name)
            if kind is None or window.limit is None:
                continue
            if window.reset_at is not None and not abs(window.reset_at - wall) <= MOST_PAUSE_S:
                self.absurd += 1  # one of the two clocks is wrong, which says nothing of the limit
            if not _credible(window):
                self.absurd += 1
                continue
            self._set_learned(name, kind, window.limit, now)
            if window.remaining is not None:
                self._lower(name, kind, order, window.remaining, now)

    def pause(self, seconds: float, chance: float, now: float) -> bool:
        """Send nothing for *seconds* and up to a tenth more; then try. False: not believed, nothing done."""
        if not 0 <= seconds <= MOST_PAUSE_S:
            self.absurd += 1
            return False
        self._not_before = max(self._not_before, now + seconds * (1 + PAUSE_JITTER * chance))
        self._trials = 1
        self._generation += 1
        return True

    # -- calls

    def when(self, estimate: Estimate, now: float) -> When:
        """Return when a call of *estimate* may be sent, and what it waits for; `NOW` if for nothing."""
        longest, binds = 0.0, None
        for limit in self._limits:
            wait = limit.bucket.wait(_amount(limit.kind, estimate), now)
            if wait > longest:
                longest, binds = wait, limit.name
        if self._trials is not None:
            if self._not_before - now > longest:
                longest, binds = self._not_before - now, "retryAfter"
            if self._under_trial >= self._trials:
                longest, binds = math.inf, "trial"
        return NOW if binds is None else When(now + longest, binds)

    def take(self, estimate: Estimate, now: float, order: int = 0) -> Charge:
        """Take *estimate* from every bucket, for a call that is sent now. Ask `when` before.

        *order* says where the call stands among all that are sent, as `learn` is told it; 0: after the last.
        """
        self._order = max(self._order + 1, order)
        trial = self._trials is not None
        charge = Charge(self._order, estimate, self._generation, trial)
        marks = charge._marks
        for limit in self._limits:
            marks.append((limit, limit.bucket.take(_amount(limit.kind, estimate), now)))
        if trial:
            self._under_trial += 1
        self._open[charge.order] = charge
        return charge

    def settle(
        self,
        charge: Charge,
        now: float,
        *,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
    ) -> None:
        """Correct what *charge* took to what the answer has said so far. None: nothing new.

        Input may be less than was estimated. Output only counts up: there may be more of it to come.
        """
        if not charge._open:
            return
        if input_tokens is not None and input_tokens != charge._input:
            self._correct(charge, "input", input_tokens - charge._input, now)
            charge._input = input_tokens
        if output_tokens is not None and output_tokens > charge._output:
            self._correct(charge, "output", output_tokens - charge._output, now)
            charge._output = output_tokens

    def accepted(self, charge: Charge) -> None:
        """Note that the provider has let the call in (its answer begins well), long before it ends.

        A call that tries has shown then what it is to show; the others need not wait for its last word.
        """
        self._tried(charge, True)

    def finish(
        self,
        charge: Charge,
        now: float,
        *,
        succeeded: bool | None,
        input_tokens: float | None = None,
        output_tokens: float | None = None,
        sent: bool = True,
    ) -> None:
        """End *charge* with what the call really took (None: as far as is known). A second time does nothing.

        *succeeded*: None if the call says nothing of the provider. Not *sent*: everything is given back.
        """
        if not charge._open:
            return
        if not sent:
            self._correct(charge, "requests", -1, now)
            input_tokens = output_tokens = 0
        self.settle(charge, now, input_tokens=input_tokens, output_tokens=output_tokens)
        if output_tokens is not None and output_tokens < charge._output:
            self._correct(charge, "output", output_tokens - charge._output, now)
        charge._open = False
        del self._open[charge.order]
        self._tried(charge, bool(succeeded))

    # -- what is told and kept

    def state(self, now: float) -> list[BucketState]:
        """Return every bucket, in the order in which they came to be."""
        buckets = [(limit.name, limit.kind, limit.bucket) for limit in self._limits]
        return [
            BucketState(name, kind, bucket.level(now), bucket.capacity, bucket.rate)
            for name, kind, bucket in buckets
        ]

    def paused_until(self, now: float) -> float | None:
        """Return until when nothing is sent; None: it may be."""
        return self._not_before if self._not_before > now else None

    @property
    def trials(self) -> int | None:
        """How many calls may be under way after a pause; None: any number."""
        return self._trials

    def covers(self, estimate: Estimate, now: float) -> bool:
        """Whether a call of *estimate* may be taken with no writing before (`lease`)."""
        return all(
            limit.lease.covers(limit.bucket, _amount(limit.kind, estimate), now) for limit in self._limits
        )

    def lease(self, estimate: Estimate, now: float, wall: float) -> LimiterKept:
        """Return what to write so that `covers` is true of *estimate*. Counts from now: write, then take."""
        buckets = {
            limit.name: limit.lease.renew(limit.bucket, _amount(limit.kind, estimate), now)
            for limit in self._limits
        }
        return LimiterKept(wall, self._wall_not_before(now, wall), buckets)

    def snapshot(self, now: float, wall: float) -> LimiterKept:
        """Return what to write at a clean end: after it nothing is taken."""
        buckets = {limit.name: settled(limit.bucket, now) for limit in self._limits}
        return LimiterKept(wall, self._wall_not_before(now, wall), buckets)

    def restore(self, kept: LimiterKept, now: float, wall: float) -> None:
        """Go on from an earlier life. Configure first: settings are today's, what was used is restored."""
        for name, bucket in kept.buckets.items():
            limit = self._find(name)
            if limit is None and name in LEARNED:
                limit = _Limit(name, LEARNED[name], TokenBucket(bucket.capacity, bucket.rate, now))
                self._limits.append(limit)
            if limit is not None:
                limit.bucket.lower(restored(bucket, wall - kept.written_at), now)
        if kept.not_before is not None and kept.not_before > wall:
            self.pause(min(kept.not_before - wall, MOST_PAUSE_S), 0.0, now)

    def _tried(self, charge: Charge, succeeded: bool) -> None:
        if not charge._trial:
            return
        charge._trial = False
        self._under_trial -= 1
        if succeeded and self._trials is not None and charge._generation == self._generation:
            self._trials = self._trials * 2 if self._trials * 2 < ENOUGH_TRIALS else None

    def _wall_not_before(self, now: float, wall: float) -> float | None:
        return wall + self._not_before - now if self._not_before > now else None

    def _find(self, name: str) -> _Limit | None:
        return next((limit for limit in self._limits if limit.name == name), None)

    def _set_learned(self, name: str, kind: Kind, per_minute: float, now: float) -> None:
        rate = per_minute / MINUTE_S
        capacity = max(1.0, rate * BURST_S)
        limit = self._find(name)
        if limit is None:
            self._limits.append(_Limit(name, kind, TokenBucket(capacity, rate, now)))
        elif (limit.bucket.rate, limit.bucket.capacity) != (rate, capacity):
            limit.change(capacity, rate, now)

    def _lower(self, name: str, kind: Kind, order: int, remaining: float, now: float) -> None:
        """Have no more than the provider has, less what it had not seen when it said so."""
        unseen, since = 0.0, None
        limit = self._find(name)
        assert limit is not None
        for charge in self._open.values():
            if charge.order > order:
                unseen += _amount(kind, Estimate(charge._input, charge._output))
                if since is None:
                    since = next((mark for taken, mark in charge._marks if taken is limit), None)
        limit.bucket.lower(remaining - unseen, now, since)

    def _correct(self, charge: Charge, kind: Kind, difference: float, now: float) -> None:
        marked = set()
        for limit, mark in charge._marks:
            if limit.kind == kind:
                limit.bucket.settle(mark, difference, now)
                marked.add(limit)
        if difference > 0:  # a bucket that came later: what it did not take it cannot give back
            for limit in self._limits:
                if limit.kind == kind and limit not in marked:
                    limit.bucket.settle(0, difference, now)


def _amount(kind: Kind, estimate: Estimate) -> float:
    if kind == "requests":
        return 1
    return estimate.input_tokens if kind == "input" else estimate.output_tokens


def _credible(window: Window) -> bool:
    limit, remaining, _ = window
    return limit is not None and 1 <= limit <= MOST_LIMIT and (remaining is None or 0 <= remaining <= limit)
