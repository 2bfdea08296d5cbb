"""Retries of everybody, against a budget of fractions."""

from fractions import Fraction
from typing import Any

from dragomand.policy.retry_budget import MOST, RetryBudget
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule


def test_00_89_when_everything_fails_ten_retries_are_made_in_all() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(10_000)) == MOST
    assert budget.retries == 0


def test_ten_successes_pay_for_a_retry() -> None:
    budget = RetryBudget(0)
    for _ in range(9):
        budget.succeeded()
        assert not budget.spend()
    budget.succeeded()
    assert budget.spend()


def test_no_more_than_ten_are_saved_up() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.succeeded()
    assert (budget.retries, budget.tenths) == (10, 100)


def test_it_goes_on_after_a_restart() -> None:
    budget = RetryBudget()
    assert budget.spend()
    assert RetryBudget(budget.tenths).retries == 9
    assert (RetryBudget(10**9).retries, RetryBudget(-5).retries) == (10, 0)


@given(st.lists(st.integers(0, 3), max_size=300))
def test_attempts_are_at_most_a_tenth_and_ten_more_than_requests(requests: list[int]) -> None:
    """Each request fails so many times in a row, and is repeated while the budget lets it."""
    budget, attempts = RetryBudget(), 0
    for failures in requests:
        attempts += 1
        while failures and budget.spend():
            attempts += 1
            failures -= 1
        if not failures:
            budget.succeeded()
    assert attempts <= 1.1 * len(requests) + 10


class Against(RuleBasedStateMachine):
    subject: type[RetryBudget] = RetryBudget

    @initialize()
    def begin(self) -> None:
        self.budget = self.subject()
        self.saved = Fraction(10)
        self.attempts = self.requests = 0

    @rule(times=st.integers(1, 25))
    def succeed(self, times: int) -> None:
        for _ in range(times):
            self.budget.succeeded()
            self.saved = min(Fraction(10), self.saved + Fraction(1, 10))
            self.requests += 1
            self.attempts += 1

    @rule(times=st.integers(1, 5))
    def retry(self, times: int) -> None:
        for _ in range(times):
            assert self.budget.spend() == (self.saved >= 1)
            if self.saved >= 1:
                self.saved -= 1
                self.attempts += 1

    @rule()
    def restart(self) -> None:
        self.budget = self.subject(self.budget.tenths)

    @invariant()
    def amplification(self) -> None:
        if hasattr(self, "budget"):
            assert self.budget.retries == int(self.saved)
            assert self.attempts <= 1.1 * self.requests + 10


def test_against_the_model(play: Any) -> None:
    play(Against)


class _Uncapped(RetryBudget):
    __slots__ = ()

    def succeeded(self) -> None:
        self._tenths += 1


def test_the_model_catches_a_budget_without_a_cap(catches: Any) -> None:
    catches(type("Broken", (Against,), {"subject": _Uncapped}))


def test_how_many_can_be_saved_up_may_change() -> None:
    budget = RetryBudget(most=2)
    assert (budget.spend(), budget.spend(), budget.spend()) == (True, True, False)
    budget.bound(20)
    assert budget.retries == 0, "what is used up does not come back"
    budget = RetryBudget()
    budget.bound(20)
    assert budget.retries == 20
    budget.bound(0)
    assert (budget.retries, budget.spend()) == (0, False)
    budget.succeeded()
    assert budget.tenths == 0
