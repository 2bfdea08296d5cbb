"""What a crash may forget of a bucket: nothing that would loosen its limit.

Theory. Writing the level down for every grant would make each wait for the disk. Instead a little is
written off ahead, the lease: what is on disk is the level less the lease, and grants within it need no
writing. After a crash the bucket is as if the lease had been used up: the crash forfeits it. So what is
restored at an instant is at most the level that the bucket really had then:

    restored(t) = min(capacity - lease, kept + rate * (t - written)) <= level(t)

and that holds for as long as each grant leaves the level at or above the restored one (`covers`). A lease
is one second's tokens, or one amount that is larger, so a crash costs one second, and a steady load writes
once a second. A clean end writes with no lease and forfeits nothing.
"""

import math
from typing import NamedTuple

from .token_bucket import TokenBucket

LEASE_S = 1.0
"""How many seconds' tokens are written off ahead."""


class Kept(NamedTuple):
    """A bucket as it is stored."""

    level: float
    """Tokens at the instant of writing, less the lease."""
    lease: float
    capacity: float
    rate: float


class Lease:
    """What of one bucket is written off; nothing at first. Times are those of the bucket."""

    __slots__ = ("_at", "_floor", "_rate", "_top")

    def __init__(self) -> None:
        """Cover nothing until the first `renew`."""
        self._floor = math.inf
        self._top = math.inf
        self._rate = 0.0
        self._at = 0.0

    def covers(self, bucket: TokenBucket, amount: float, now: float) -> bool:
        """Whether *amount* may be taken from *bucket* with no writing."""
        restored = self._floor + (now - self._at) * self._rate
        left = bucket.level(now) - amount + bucket.slack
        return left >= (restored if restored < self._top else self._top)

    def renew(self, bucket: TokenBucket, amount: float, now: float) -> Kept:
        """Return what to write, with a lease for at least *amount*. Counts from now: write before taking."""
        lease = max(bucket.rate * LEASE_S, amount)
        self._floor = bucket.level(now) - lease
        self._top = bucket.capacity - lease
        self._rate = bucket.rate
        self._at = now
        return Kept(self._floor, lease, bucket.capacity, bucket.rate)


def settled(bucket: TokenBucket, now: float) -> Kept:
    """Return what to write when nothing more will be taken: no lease, nothing forfeited."""
    return Kept(bucket.level(now), 0.0, bucket.capacity, bucket.rate)


def restored(kept: Kept, elapsed: float) -> float:
    """Return the level that a bucket has *elapsed* seconds after it was written."""
    return min(kept.capacity - kept.lease, kept.level + kept.rate * max(0.0, elapsed))
