"""A credential's windows and its spend cap, in virtual time."""

from __future__ import annotations

import math

import pytest
from dragoman_sim import Limits, Window
from dragoman_sim.quota import Quota, long_name
from hypothesis import given
from hypothesis import strategies as st

U = "anthropic-ratelimit-unified-"


def told(quota: Quota, now: float) -> dict[str, str]:
    return {name.removeprefix(U): value for name, value in quota.headers(now, 1000.0 + now)}


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("5h", "five_hour"),
        ("7d_opus", "seven_day_opus"),
        ("7d_oi", "seven_day_overage_included"),
        ("9m", "9m"),
    ],
)
def test_long_names(short: str, name: str) -> None:
    assert long_name(short) == name


def test_a_window_warns_refuses_and_begins_anew() -> None:
    quota = Quota(Limits(windows=[Window("5h", max_requests=4, seconds=100, warn_at=0.5)]))
    assert told(quota, 0.0)["status"] == "allowed"
    quota.charge(2, 0, 10.0)
    assert told(quota, 10.0) == {
        "status": "allowed_warning",
        "reset": "1100",
        "representative-claim": "five_hour",
        "overage-status": "rejected",
        "overage-disabled-reason": "out_of_credits",
        "5h-status": "allowed_warning",
        "5h-reset": "1100",
        "5h-utilization": "0.5",
        "5h-surpassed-threshold": "0.5",
    }
    assert quota.used_up_for(10.0) is None
    quota.charge(2, 0, 20.0)
    assert quota.used_up_for(20.0) == 80.0
    assert told(quota, 20.0)["5h-surpassed-threshold"] == "1"
    assert quota.used_up_for(100.0) is None
    assert told(quota, 100.0)["5h-utilization"] == "0"


def test_the_fullest_window_decides_and_the_longest_refusal_counts() -> None:
    windows = [Window("5h", max_tokens=10, seconds=100), Window("7d", max_tokens=20, seconds=1000)]
    quota = Quota(Limits(windows=windows))
    quota.charge(1, 12, 0.0)
    assert told(quota, 0.0)["representative-claim"] == "five_hour"
    quota.charge(1, 8, 0.0)
    assert quota.used_up_for(0.0) == 1000.0
    assert told(quota, 0.0)["7d-status"] == "rejected"


def test_what_is_paid_for_goes_on() -> None:
    quota = Quota(Limits(windows=[Window("5h", max_requests=1)], overage=True))
    quota.charge(5, 0, 0.0)
    assert quota.used_up_for(0.0) is None
    assert told(quota, 0.0)["overage-status"] == "allowed"
    assert "overage-disabled-reason" not in told(quota, 0.0)


def test_without_windows_nothing_is_told() -> None:
    quota = Quota(Limits(spend_tokens=3))
    quota.charge(1, 2, 0.0)
    assert not quota.spent
    quota.charge(1, 1, 0.0)
    assert quota.spent
    assert quota.headers(0.0, 0.0) == []
    assert not Quota(Limits()).spent


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 5)), max_size=60))
def test_no_window_lets_more_in_than_it_has(asked: list[tuple[float, int]]) -> None:
    quota = Quota(Limits(windows=[Window("5h", max_tokens=20, seconds=100)]))
    now, begun, used = 0.0, -math.inf, 0
    for step, tokens in asked:
        now += step
        if now >= begun + 100:
            begun, used = now, 0
        assert (quota.used_up_for(now) is not None) == (used >= 20)
        if quota.used_up_for(now) is None:
            quota.charge(1, tokens, now)
            used += tokens
