"""The ceiling: a counting semaphore that never waits."""

import pytest
from dragomand.policy.concurrency import Ceiling
from hypothesis import given
from hypothesis import strategies as st


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
