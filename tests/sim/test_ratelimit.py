"""The buckets keep their promise, whatever is asked and when."""

from __future__ import annotations

from datetime import datetime

from dragoman_sim import Limits
from dragoman_sim.ratelimit import RateLimit
from hypothesis import given
from hypothesis import strategies as st


@given(
    per_minute=st.integers(1, 300),
    asked=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 500)), max_size=80),
)
def test_no_window_grants_more_than_burst_and_rate(per_minute, asked):
    limit = RateLimit(Limits(requests_per_minute=per_minute))
    now, granted = 0.0, []
    for step, tokens in asked:
        now += step
        if limit.admit("k", tokens, now) is None:
            granted.append(now)
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            window = granted[last] - granted[first]
            assert last - first + 1 <= per_minute + window * per_minute / 60 + 1e-6


def test_a_burst_may_be_shorter_than_a_minute():
    limit = RateLimit(Limits(requests_per_minute=60, burst_s=10))
    assert [limit.admit("k", 1, 0.0) for _ in range(10)] == [None] * 10
    assert limit.admit("k", 1, 0.0) == 1.0
    headers = dict(limit.headers("k", 0.0, 1000.0))
    assert headers["anthropic-ratelimit-requests-limit"] == "60"
    assert headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert limit.admit("k", 1, 1.0) is None


@given(per_minute=st.integers(1, 300), used=st.integers(1, 1000))
def test_the_wait_it_names_is_enough(per_minute, used):
    limit = RateLimit(Limits(input_tokens_per_minute=per_minute))
    assert limit.admit("k", used, 0.0) is None
    wait = limit.admit("k", used, 0.0) or 0.0
    assert (wait > 0) == (2 * min(used, per_minute) > per_minute)
    if wait > 0:
        assert limit.admit("k", used, wait / 2) is not None
        assert limit.admit("k", used, wait + 1e-6) is None


def test_each_credential_has_its_own():
    limit = RateLimit(Limits(requests_per_minute=1))
    assert limit.admit("a", 1, 0.0) is None
    assert limit.admit("a", 1, 0.0) == 60.0
    assert limit.admit("b", 1, 0.0) is None
    limit.settle("a", 100, 0.0)  # output is not limited here
    assert limit.admit("a", 1, 60.0) is None


def test_a_clock_that_goes_back_adds_nothing():
    limit = RateLimit(Limits(requests_per_minute=1))
    assert limit.admit("a", 1, 100.0) is None
    assert limit.admit("a", 1, 50.0) == 60.0
    assert limit.admit("a", 1, 100.0) == 60.0


def test_the_reset_is_when_the_bucket_is_full():
    limit = RateLimit(Limits(requests_per_minute=60))
    for _ in range(30):
        limit.admit("a", 1, 0.0)
    headers = dict(limit.headers("a", 0.0, wall=1_000_000.0))
    assert headers["anthropic-ratelimit-requests-remaining"] == "30"
    assert datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"]).timestamp() == 1_000_030.0
    assert dict(RateLimit(Limits()).headers("a", 0.0, 0.0)) == {}
