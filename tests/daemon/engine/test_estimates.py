"""What a turn will probably cost."""

from dragomand.engine.estimates import GUESS, MOST_MODELS, Estimates
from hypothesis import given
from hypothesis import strategies as st


def test_a_guess_then_the_first_cost_then_a_mean() -> None:
    estimates = Estimates()
    assert estimates.of("claude_code", "opus") == GUESS["claude_code"]
    estimates.learn("claude_code", "opus", 800)
    assert estimates.of("claude_code", "opus") == 800
    estimates.learn("claude_code", "opus", 1600)
    assert estimates.of("claude_code", "opus") == 900
    assert estimates.of("messages_api", "opus") == GUESS["messages_api"]
    assert estimates.of("claude_code", None) == GUESS["claude_code"]


def test_never_more_than_the_turns_own_cap() -> None:
    estimates = Estimates()
    estimates.learn("claude_code", None, 900)
    assert estimates.of("claude_code", None, cap=100) == 100
    assert estimates.of("claude_code", None, cap=5000) == 900


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_within_what_was_seen(costs: list[int]) -> None:
    estimates = Estimates()
    for cost in costs:
        estimates.learn("x", "m", cost)
    assert min(costs) - 1 <= estimates.of("x", "m") <= max(costs)


def test_the_oldest_is_forgotten() -> None:
    estimates = Estimates()
    for number in range(MOST_MODELS + 1):
        estimates.learn("x", str(number), 5)
    assert estimates.of("x", "0") == 0
    assert estimates.of("x", "1") == 5
