"""The bucket, against one that plays its whole history again each time it is asked."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
from dragomand.policy.token_bucket import MOST_ROOMS, TokenBucket
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule


def test_04_17_the_61st_query_of_a_minute_waits_a_second() -> None:
    bucket = TokenBucket.per(60, 60.0, now=0.0)
    assert all(bucket.reserve(1, 0.0) is not None for _ in range(60))
    assert bucket.reserve(1, 0.0) is None
    assert bucket.wait(1, 0.0) == pytest.approx(1.0)
    assert bucket.reserve(1, 0.999) is None
    assert bucket.reserve(1, 1.0) is not None
    assert bucket.reserve(1, 1.0) is None


def test_04_17_the_1001st_query_of_an_hour_waits_for_its_share_of_the_hour() -> None:
    bucket = TokenBucket.per(1000, 3600.0, now=0.0)
    assert all(bucket.reserve(1, 0.0) is not None for _ in range(1000))
    assert bucket.wait(1, 0.0) == pytest.approx(3.6)
    assert bucket.reserve(1, 3.6) is not None


def test_what_was_more_than_estimated_is_a_debt_that_is_paid_first() -> None:
    bucket = TokenBucket(10, 1, now=0.0)
    mark = bucket.take(10, 0.0)
    bucket.settle(mark, 15, 2.0)
    assert bucket.level(2.0) == -13
    assert bucket.wait(1, 2.0) == 14


def test_more_than_the_capacity_is_granted_by_a_full_bucket() -> None:
    bucket = TokenBucket(10, 1, now=0.0)
    assert bucket.reserve(100, 0.0) is not None
    assert bucket.level(0.0) == -90
    assert bucket.wait(100, 0.0) == 100


def test_a_clock_that_goes_backwards_adds_nothing() -> None:
    bucket = TokenBucket(10, 1, now=100.0, level=0)
    assert bucket.level(50.0) == 0
    bucket.take(1, 50.0)
    assert bucket.level(100.0) == -1
    assert bucket.level(101.0) == 0


def test_what_a_full_bucket_spilled_does_not_come_back() -> None:
    """A refund must not make more of the bucket than if its grant had never been."""
    bucket = TokenBucket(10, 1, now=0.0)
    mark = bucket.take(10, 0.0)
    assert bucket.reserve(10, 10.0) is not None
    bucket.settle(mark, -10, 10.0)
    assert bucket.level(10.0) == 0, "full at 10 s, used up at 10 s"


def test_a_refund_gives_back_what_is_missing_because_of_it() -> None:
    bucket = TokenBucket(10, 1, now=0.0)
    mark = bucket.take(8, 0.0)
    bucket.settle(mark, -3, 0.0)
    assert bucket.level(0.0) == 5


def test_two_refunds_are_as_if_neither_grant_had_been() -> None:
    bucket = TokenBucket(10, 1, now=0.0)
    first, second = bucket.take(5, 0.0), bucket.take(5, 0.0)
    assert bucket.reserve(3, 3.0) is not None
    bucket.settle(first, -5, 3.0)
    assert bucket.reserve(5, 3.0) is not None
    bucket.settle(second, -5, 3.0)
    assert bucket.level(3.0) == pytest.approx(2.0), "10 in the burst, less 3 and 5"


def test_others_who_use_the_account_lower_the_level_for_good() -> None:
    bucket = TokenBucket(10, 1, now=0.0)
    known, unknown = bucket.take(2, 0.0), bucket.take(2, 0.0)
    bucket.lower(1, 0.0, since=unknown)
    bucket.settle(known, -2, 0.0)
    assert bucket.level(0.0) == 1, "what it really took was known to whoever said 1"
    bucket.settle(unknown, -2, 0.0)
    assert bucket.level(0.0) == 3
    bucket.lower(50, 0.0)
    assert bucket.level(0.0) == 3, "nothing is ever raised"


def test_what_others_left_bounds_what_comes_back() -> None:
    bucket = TokenBucket(10, 1, now=0.0)
    marks = [bucket.take(2, 0.0) for _ in range(2)]
    bucket.lower(7, 0.0)
    for mark in marks:
        bucket.settle(mark, -2, 0.0)
    assert bucket.level(0.0) == 7


def test_changes_at_run_time_add_nothing() -> None:
    bucket = TokenBucket(10, 1, now=0.0)
    bucket.change(20, 5, 0.0)
    assert (bucket.level(0.0), bucket.level(1.0)) == (10, 15)
    bucket.change(4, 0, 1.0)
    assert (bucket.level(1.0), bucket.level(99.0)) == (4, 4)
    assert bucket.reserve(4, 99.0) is not None
    assert bucket.wait(1, 99.0) == math.inf


@pytest.mark.parametrize(
    ("capacity", "rate"), [(0, 1), (-1, 1), (1, -1), (math.inf, 1), (math.nan, 1), (1, math.inf)]
)
def test_a_bucket_that_cannot_be(capacity: float, rate: float) -> None:
    with pytest.raises(ValueError, match=r"cannot be; the capacity must be above 0"):
        TokenBucket(capacity, rate, 0.0)
    bucket = TokenBucket(1, 1, 0.0)
    with pytest.raises(ValueError, match="cannot be"):
        bucket.change(capacity, rate, 0.0)


def test_the_memory_for_refunds_is_bounded_and_errs_on_the_safe_side() -> None:
    bucket = TokenBucket(1000, 1, now=0.0)
    marks = [bucket.take(10, 0.0) for _ in range(3 * MOST_ROOMS)]
    level = bucket.level(0.0)
    bucket.settle(marks[-1], -10, 0.0)
    assert bucket.level(0.0) == level + 10, "the newest is remembered"
    bucket.settle(marks[0], -10, 0.0)
    assert level + 10 <= bucket.level(0.0) <= level + 20


@example(capacity=0.01, rate=0.001, now=0.0, amounts=[1.8946917878929526, 536869.4444627658, 0.0])
@example(capacity=0.01, rate=0.001, now=1e8, amounts=[1e6] * 30)
@example(capacity=0.01, rate=1e5, now=1e8, amounts=[1e6, 0.0, 1e6, 0.0])
@given(
    st.floats(0.01, 1e6), st.floats(0.001, 1e5), st.floats(0, 1e8), st.lists(st.floats(0, 1e6), max_size=30)
)
def test_whoever_waits_as_long_as_it_is_told_is_granted(
    capacity: float, rate: float, now: float, amounts: list[float]
) -> None:
    bucket = TokenBucket(capacity, rate, now)
    for amount in amounts:
        now += bucket.wait(amount, now)
        assert bucket.reserve(amount, now) is not None


@dataclass
class Event:
    at: float
    amount: float = 0.0
    estimate: float = 0.0
    granted: bool = False
    change: tuple[float, float] | None = None


class Against(RuleBasedStateMachine):
    """Plays its history again, each grant with what it turned out to take."""

    subject: type[TokenBucket] = TokenBucket

    @initialize(capacity=st.integers(1, 20), rate=st.integers(0, 5))
    def begin(self, capacity: int, rate: int) -> None:
        self.now = 1000.0
        self.bucket = self.subject(capacity, rate, self.now)
        self.first = (float(capacity), float(rate))
        self.history: list[Event] = []
        self.open: list[tuple[int, Event]] = []

    @rule(seconds=st.integers(0, 40).map(lambda eighths: eighths / 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.integers(1, 9))
    def clock_goes_back_and_comes_again(self, seconds: int) -> None:
        before = self.bucket.level(self.now)
        assert self.bucket.level(self.now - seconds) == before
        assert self.bucket.level(self.now) == before

    @rule(amount=st.integers(0, 25))
    def reserve(self, amount: int) -> None:
        level, capacity, _ = self._played()
        mark = self.bucket.reserve(amount, self.now)
        assert (mark is not None) == (level >= min(amount, capacity) - 1e-6)
        if mark is not None:
            event = Event(self.now, amount, amount, True)
            self.history.append(event)
            self.open.append((mark, event))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.integers(0, 4))
    def give_back(self, data: Any, share: int) -> None:
        mark, event = data.draw(st.sampled_from(self.open))
        back = event.amount * share / 4
        self.bucket.settle(mark, -back, self.now)
        event.amount -= back

    @precondition(lambda self: self.open)
    @rule(data=st.data(), more=st.integers(0, 30))
    def took_more(self, data: Any, more: int) -> None:
        mark, _ = data.draw(st.sampled_from(self.open))
        self.bucket.settle(mark, more, self.now)
        self.history.append(Event(self.now, more))

    @rule(capacity=st.integers(1, 20), rate=st.integers(0, 5))
    def change(self, capacity: int, rate: int) -> None:
        self.bucket.change(capacity, rate, self.now)
        self.history.append(Event(self.now, change=(capacity, rate)))

    @invariant()
    def level(self) -> None:
        if hasattr(self, "bucket"):
            assert self.bucket.level(self.now) == pytest.approx(self._played()[0], abs=1e-6)
            assert self.bucket.level(self.now) <= self.bucket.capacity

    @invariant()
    def no_window_grants_more_than_burst_and_rate(self) -> None:
        if not hasattr(self, "bucket"):
            return
        capacity, rate = self.first
        running: list[tuple[float, float]] = []
        """For each window that has begun: what may have been granted by now, what was."""
        at = 1000.0
        for event in self.history:
            running = [(may + rate * (event.at - at), was) for may, was in running]
            at = event.at
            if event.change is not None:
                capacity, rate = event.change
            elif event.granted:
                running = [(may, was + event.amount) for may, was in [*running, (capacity, 0.0)]]
                above = max(0.0, event.estimate - capacity)
                assert all(was <= may + above + 1e-6 for may, was in running)

    def _played(self) -> tuple[float, float, float]:
        capacity, rate = self.first
        level, at = capacity, 1000.0
        for event in [*self.history, Event(self.now)]:
            level = min(capacity, level + rate * (event.at - at))
            at = event.at
            if event.change is not None:
                capacity, rate = event.change
                level = min(level, capacity)
            level -= event.amount
        return level, capacity, rate


def test_against_the_model(play: Any) -> None:
    play(Against)


class _Forgetful(TokenBucket):
    """Gives back as most buckets do: up to the capacity, whatever was spilled."""

    __slots__ = ()

    def _give_back(self, mark: int, amount: float) -> None:
        self._level = min(self.capacity, self._level + amount)


class _Generous(TokenBucket):
    """Is full after a change."""

    __slots__ = ()

    def change(self, capacity: float, rate: float, now: float) -> None:
        super().change(capacity, rate, now)
        self._level = capacity


class _Confused(TokenBucket):
    """Takes a step of the clock for time that has passed."""

    __slots__ = ()

    def _refill(self, now: float) -> None:
        super()._refill(self._at + abs(now - self._at))
        self._at = now


@pytest.mark.parametrize("broken", [_Forgetful, _Generous, _Confused])
def test_the_model_catches(broken: type[TokenBucket], catches: Any) -> None:
    catches(type("Broken", (Against,), {"subject": broken}))
