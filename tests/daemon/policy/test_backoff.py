"""How long is waited before another attempt."""

import math

import pytest
from dragomand.policy.backoff import Backoff
from hypothesis import given
from hypothesis import strategies as st

KINDS = ["throttle", "overload", "connect"]
CHANCE = st.floats(0, 1)


@pytest.mark.parametrize(
    ("kind", "failed", "shortest", "longest"),
    [
        ("throttle", 1, 1.0, 2.0),
        ("overload", 2, 2.0, 4.0),
        ("connect", 1, 0.5, 1.0),
        ("connect", 2, 0.5, 2.0),
    ],
)
def test_the_waits_of_three_attempts(kind: str, failed: int, shortest: float, longest: float) -> None:
    backoff = Backoff()
    assert [backoff.wait(kind, failed, chance) for chance in (0.0, 1.0)] == [shortest, longest]


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_third_attempt_it_gives_up(kind: str) -> None:
    assert Backoff().wait(kind, 3, 0.5) is None
    assert Backoff().wait(kind, 3, 0.5, hint_s=1.0) is None
    assert Backoff(1).wait(kind, 1, 0.5) is None


@pytest.mark.parametrize("kind", ["quota", "auth", "caller", "crash", "protocol", "cancelled"])
def test_what_repeating_cannot_mend_is_not_repeated(kind: str) -> None:
    assert Backoff().wait(kind, 1, 0.5) is None
    assert Backoff().wait(kind, 1, 0.5, hint_s=1.0) is None


@given(st.sampled_from(KINDS), st.floats(0, 1e6), CHANCE)
def test_the_servers_hint_wins_and_is_never_undercut(kind: str, hint_s: float, chance: float) -> None:
    wait = Backoff().wait(kind, 1, chance, hint_s)
    assert wait is not None
    assert hint_s <= wait <= hint_s * 1.1 + 1e-9


@pytest.mark.parametrize("hint_s", [-1.0, math.nan, math.inf])
def test_what_is_no_number_of_seconds_is_no_hint(hint_s: float) -> None:
    assert Backoff().wait("throttle", 1, 0.0, hint_s) == 1.0


@given(st.sampled_from(KINDS), st.integers(1, 10_000), CHANCE)
def test_every_wait_is_in_its_range(kind: str, failed: int, chance: float) -> None:
    wait = Backoff(attempts=100_000).wait(kind, failed, chance)
    shortest, longest = (0.5, 8.0) if kind == "connect" else (1.0, 30.0)
    assert wait is not None
    assert shortest <= wait <= longest


def test_no_attempts_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="it must be at least 1"):
        Backoff(0)
