"""The ceilings: counting semaphores that never wait, one of which finds its own height."""

from typing import Any

import pytest
from dragomand.policy.concurrency import CUT_EVERY_S, Ceiling, MovingCeiling
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule


@pytest.mark.parametrize("limit", [0, -1])
def test_a_ceiling_that_lets_nobody_in_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"a ceiling of {limit} would let nobody in; it must be at least 1"):
        Ceiling(limit)


def test_leaving_without_having_entered_is_a_bug() -> None:
    ceiling = Ceiling(1)
    with pytest.raises(RuntimeError, match="had not been given out"):
        ceiling.leave()
    assert ceiling.enter()
    ceiling.leave()
    with pytest.raises(RuntimeError, match="had not been given out"):
        ceiling.leave()
    assert ceiling.running == 0


@given(limit=st.integers(1, 5), steps=st.lists(st.booleans(), max_size=60))
def test_it_counts_as_a_naive_counter_does(limit: int, steps: list[bool]) -> None:
    ceiling, inside = Ceiling(limit), 0
    for entering in steps:
        if entering:
            assert ceiling.enter() is (inside < limit)
            inside = min(inside + 1, limit)
        elif inside:
            ceiling.leave()
            inside -= 1
        assert (ceiling.running, ceiling.free) == (inside, limit - inside)


def test_a_lower_ceiling_throws_nobody_out() -> None:
    ceiling = Ceiling(3)
    assert all(ceiling.enter() for _ in range(3))
    ceiling.limit = 1
    assert (ceiling.running, ceiling.free) == (3, 0)
    for _ in range(2):
        ceiling.leave()
        assert not ceiling.enter()
    ceiling.leave()
    assert ceiling.enter()


def full(ceiling: MovingCeiling) -> MovingCeiling:
    while ceiling.enter():
        pass
    return ceiling


def test_it_begins_at_four_and_rises_by_one_for_a_window_of_successes() -> None:
    ceiling = full(MovingCeiling())
    limits = []
    for _ in range(4 + 5 + 6):
        ceiling.succeeded()
        limits.append(ceiling.limit)
    assert limits == [4] * 3 + [5] * 5 + [6] * 6 + [7]


def test_what_is_not_used_does_not_rise() -> None:
    ceiling = MovingCeiling(4)
    assert ceiling.enter()
    for _ in range(100):
        ceiling.succeeded()
    assert ceiling.limit == 4, "one of four says nothing of five"


def test_a_push_back_cuts_it_at_most_once_in_ten_seconds() -> None:
    ceiling = full(MovingCeiling(20))
    assert ceiling.pushed_back(0.0)
    assert [ceiling.pushed_back(now) for now in (0.0, 5.0, 9.9)] == [False] * 3
    assert ceiling.limit == 14
    assert ceiling.pushed_back(10.0)
    assert ceiling.limit == 9


def test_it_stays_between_its_bounds() -> None:
    ceiling = full(MovingCeiling(31))
    for _ in range(1000):
        ceiling.succeeded()
        ceiling.enter()
    assert ceiling.limit == 32
    for step in range(100):
        ceiling.pushed_back(step * CUT_EVERY_S)
    assert ceiling.limit == 1
    ceiling.bound(2, 3)
    assert ceiling.limit == 2
    assert MovingCeiling(50, least=5, most=8).limit == 8


@pytest.mark.parametrize(("least", "most"), [(0, 3), (4, 3)])
def test_bounds_that_cannot_be(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="expected 1 <= least <= most"):
        MovingCeiling(4, least=least, most=most)


class Against(RuleBasedStateMachine):
    subject: type[MovingCeiling] = MovingCeiling

    @initialize(start=st.integers(1, 32))
    def begin(self, start: int) -> None:
        self.ceiling = self.subject(start)
        self.limit, self.inside, self.good = start, 0, 0
        self.cuts: list[float] = []
        self.now = 0.0

    @rule(times=st.integers(1, 8))
    def enter(self, times: int) -> None:
        for _ in range(times):
            assert self.ceiling.enter() == (self.inside < self.limit)
            self.inside = max(self.inside, min(self.inside + 1, self.limit))

    @precondition(lambda self: self.inside)
    @rule(succeeded=st.booleans(), times=st.integers(1, 8))
    def leave(self, succeeded: bool, times: int) -> None:
        for _ in range(min(times, self.inside)):
            if succeeded:
                self.ceiling.succeeded()
                self.good += 2 * self.inside >= self.limit
                if self.good == self.limit:
                    self.limit, self.good = min(32, self.limit + 1), 0
            self.ceiling.leave()
            self.inside -= 1

    @rule(seconds=st.sampled_from([0.0, 4.0, 10.0]))
    def push_back(self, seconds: float) -> None:
        self.now += seconds
        cuts = not any(self.now - cut < 10 for cut in self.cuts)
        assert self.ceiling.pushed_back(self.now) == cuts
        if cuts:
            self.cuts.append(self.now)
            self.limit, self.good = max(1, self.limit * 7 // 10), 0

    @invariant()
    def same(self) -> None:
        if hasattr(self, "ceiling"):
            assert (self.ceiling.limit, self.ceiling.running) == (self.limit, self.inside)


def test_against_the_model(play: Any) -> None:
    play(Against)


class _Nervous(MovingCeiling):
    """Cuts for every push-back."""

    __slots__ = ()

    def pushed_back(self, now: float) -> bool:
        self._cut_at = -CUT_EVERY_S
        return super().pushed_back(now)


def test_the_model_catches_a_ceiling_that_cuts_too_often(catches: Any) -> None:
    catches(type("Broken", (Against,), {"subject": _Nervous}))
