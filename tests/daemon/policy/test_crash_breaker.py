"""The breaker of spawning, against hand-made histories and a naive model."""

from dragomand.policy.crash_breaker import CrashBreaker
from hypothesis import given
from hypothesis import strategies as st


def opened(at: float = 100.0) -> CrashBreaker:
    breaker = CrashBreaker(most=3, window_s=60, open_s=10, longest_s=35)
    for ago in (59, 30, 0):
        assert breaker.refusal(at - ago) is None
        breaker.crashed(at - ago)
    return breaker


def test_three_crashes_within_a_minute_open_it() -> None:
    breaker = opened()
    assert breaker.is_open
    assert breaker.wait(100.0) == breaker.refusal(100.0) == 10.0
    assert breaker.wait(111.0) == 0.0 == CrashBreaker().wait(1.0)
    assert breaker.refusal(109.0) == 1.0


def test_three_crashes_that_are_far_apart_do_not() -> None:
    breaker = CrashBreaker()
    for at in (0.0, 30.0, 60.5, 91.0):
        breaker.crashed(at)
    assert breaker.refusal(91.0) is None


def test_one_attempt_tries_it_out_and_its_success_closes_it() -> None:
    breaker = opened()
    assert breaker.refusal(110.0) is None
    assert breaker.refusal(110.0) == 10.0, "the others wait for what becomes of it"
    breaker.started(111.0)
    assert not breaker.is_open
    breaker.crashed(112.0)
    assert breaker.refusal(112.0) is None, "the old crashes are forgotten"


def test_a_crash_of_the_attempt_opens_it_for_longer_up_to_a_bound() -> None:
    breaker, now = opened(), 110.0
    for seconds in (20.0, 35.0, 35.0):
        assert breaker.refusal(now) is None
        breaker.crashed(now)
        assert breaker.refusal(now) == seconds
        now += seconds


def test_an_attempt_that_never_reports_blocks_only_for_a_time() -> None:
    breaker = opened()
    assert breaker.refusal(110.0) is None
    assert breaker.refusal(119.9) is not None
    assert breaker.refusal(120.0) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=40))
def test_it_never_lets_more_through_than_its_bound_allows(steps: list[tuple[bool, int]]) -> None:
    """Whatever happens, three crashes in a row within the window are followed by a pause."""
    breaker, now, crashes = CrashBreaker(most=3, window_s=60, open_s=10), 0, []
    for succeeds, pause in steps:
        now += pause
        if breaker.refusal(now) is not None:
            assert len(crashes) >= 3
            continue
        if succeeds:
            breaker.started(now)
            crashes = []
        else:
            breaker.crashed(now)
            crashes.append(now)
            if len(crashes) >= 3 and crashes[-1] - crashes[-3] <= 60:
                wait = breaker.refusal(now)
                assert wait is not None
                assert wait >= 10
