"""What a crash may forget of a bucket: nothing that loosens it."""

from typing import Any

import pytest
from dragomand.policy.lease import Kept, Lease, restored, settled
from dragomand.policy.token_bucket import TokenBucket
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule


def test_nothing_is_covered_before_something_is_written() -> None:
    bucket, lease = TokenBucket(60, 1, now=0.0), Lease()
    assert not lease.covers(bucket, 1, 0.0)
    lease.renew(bucket, 1, 0.0)
    assert lease.covers(bucket, 1, 0.0)


def test_a_lease_is_one_seconds_tokens_and_is_used_up() -> None:
    bucket, lease = TokenBucket(600, 10, now=0.0), Lease()
    assert lease.renew(bucket, 1, 0.0) == Kept(590, 10, 600, 10)
    for _ in range(10):
        assert lease.covers(bucket, 1, 0.0)
        bucket.take(1, 0.0)
    assert not lease.covers(bucket, 1, 0.0)


def test_a_steady_load_writes_about_once_a_second() -> None:
    bucket, lease, writes = TokenBucket(100, 10, now=0.0, level=0), Lease(), 0
    for step in range(1, 1001):
        now = step * 0.1
        if not lease.covers(bucket, 1, now):
            lease.renew(bucket, 1, now)
            writes += 1
        bucket.take(1, now)
    assert 90 <= writes <= 110, "1000 grants in 100 s"


def test_who_is_idle_keeps_its_lease() -> None:
    bucket, lease = TokenBucket(60, 1, now=0.0), Lease()
    lease.renew(bucket, 1, 0.0)
    assert lease.covers(bucket, 1, 86_400.0)


def test_a_crash_forfeits_the_lease_and_a_clean_end_nothing() -> None:
    bucket, lease = TokenBucket(60, 2, now=0.0), Lease()
    bucket.take(20, 0.0)
    assert restored(lease.renew(bucket, 1, 0.0), 0.0) == 38
    assert restored(settled(bucket, 0.0), 0.0) == 40
    assert restored(settled(bucket, 0.0), 5.0) == 50
    assert restored(settled(bucket, 0.0), -5.0) == 40, "a wall clock that went backwards"
    assert restored(lease.renew(bucket, 1, 0.0), 1e9) == 58, "full but for the lease"


class Crashes(RuleBasedStateMachine):
    """At every instant: a crash now would restore no more than there is."""

    subject: type[Lease] = Lease

    @initialize(capacity=st.integers(1, 40), rate=st.integers(0, 8))
    def begin(self, capacity: int, rate: int) -> None:
        self.now = 0.0
        self.bucket = TokenBucket(capacity, rate, 0.0)
        self.lease = self.subject()
        self.kept, self.written = self.lease.renew(self.bucket, 1, 0.0), 0.0

    @rule(seconds=st.integers(0, 40).map(lambda eighths: eighths / 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(amount=st.integers(1, 50))
    def grant(self, amount: int) -> None:
        if self.bucket.wait(amount, self.now):
            return
        if not self.lease.covers(self.bucket, amount, self.now):
            self.kept, self.written = self.lease.renew(self.bucket, amount, self.now), self.now
            assert self.lease.covers(self.bucket, amount, self.now)
        mark = self.bucket.take(amount, self.now)
        self.bucket.settle(mark, -amount / 2, self.now)

    @invariant()
    def a_crash_gives_nothing_away(self) -> None:
        if hasattr(self, "kept"):
            level = self.bucket.level(self.now)
            assert restored(self.kept, self.now - self.written) <= level + 1e-6
            lost = level - restored(self.kept, self.now - self.written)
            assert lost <= self.bucket.capacity + 50, "and takes no more than was granted or leased"


def test_a_crash_at_any_time(play: Any) -> None:
    play(Crashes)


class _Endless(Lease):
    """Covers whatever the bucket has."""

    __slots__ = ()

    def covers(self, bucket: TokenBucket, amount: float, now: float) -> bool:
        return bucket.level(now) >= amount


class _Topless(Lease):
    """Forgets that what is restored fills up to less than the bucket."""

    __slots__ = ()

    def renew(self, bucket: TokenBucket, amount: float, now: float) -> Kept:
        return super().renew(bucket, amount, now)._replace(lease=0.0)


@pytest.mark.parametrize("broken", [_Endless, _Topless])
def test_the_crashes_catch(broken: type[Lease], catches: Any) -> None:
    catches(type("Broken", (Crashes,), {"subject": broken}))
