"""When somebody's turn will be."""

from dragomand.policy.pace import Pace
from hypothesis import given
from hypothesis import strategies as st


def test_nobody_knows_before_two_grants_in_a_row() -> None:
    pace = Pace()
    assert pace.expected(0) is None
    pace.granted(0.0, left=3)
    assert pace.expected(0) is None
    pace.granted(2.0, left=2)
    assert [pace.expected(ahead) for ahead in (0, 1, 9)] == [2.0, 4.0, 20.0]


def test_idle_time_is_no_pace() -> None:
    pace = Pace()
    pace.granted(0.0, left=1)
    pace.granted(1.0, left=0)
    pace.granted(5000.0, left=1)
    assert pace.expected(0) == 1.0
    pace.granted(5001.0, left=1)
    pace.granted(4000.0, left=1)
    assert pace.expected(0) == 1.0, "nor is a clock that goes backwards"


@given(st.floats(0.001, 1000), st.floats(0.001, 1000))
def test_it_follows_a_change(before: float, after: float) -> None:
    pace, now = Pace(), 0.0
    for step in [before] * 60 + [after] * 60:
        now += step
        pace.granted(now, left=1)
    expected = pace.expected(0)
    assert expected is not None
    assert abs(expected - after) <= 0.01 * max(before, after)
