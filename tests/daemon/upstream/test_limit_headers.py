"""Every form in which headers tell of limits, and whatever else might stand in them."""

from email.utils import formatdate
from typing import Any

import pytest
from dragomand.upstream.limit_headers import read, window_name
from dragomand.upstream.limits_heard import MOST_LIMITS, Allowance, LimitsHeard, Window
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0
U = "anthropic-ratelimit-unified-"


def heard(headers: Any, **more: Any) -> LimitsHeard:
    given = headers.items() if isinstance(headers, dict) else headers
    return read(given, sent_order=1, now=NOW, **more)


def test_the_limits_a_minute() -> None:
    found = heard(
        {
            "Anthropic-RateLimit-Requests-Limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
            "anthropic-ratelimit-tokens-remaining": "7",
            "anthropic-ratelimit-input-tokens-limit": " 30000 ",
            "anthropic-ratelimit-output-tokens-reset": "1800000012.5",
            "anthropic-priority-input-tokens-limit": "9",
            "anthropic-ratelimit-brand-new-limit": "3",
            "request-id": "req_1",
            "x-should-retry": "True",
            "content-type": "application/json",
        },
        status=200,
        model="claude-x",
    )
    assert found.requests == Allowance(50, 49, NOW + 30)
    assert found.tokens == Allowance(remaining=7)
    assert found.input_tokens == Allowance(limit=30000)
    assert found.output_tokens == Allowance(resets_at=NOW + 12.5)
    assert found.others == {"brand-new": Allowance(limit=3)}
    assert found.allowances == {
        "requests": found.requests,
        "tokens": found.tokens,
        "input-tokens": found.input_tokens,
        "output-tokens": found.output_tokens,
        "brand-new": Allowance(3),
    }
    assert (found.request_id, found.should_retry, found.absurd) == ("req_1", True, 0)
    assert (found.status, found.model, found.sent_order, found.heard_at) == (200, "claude-x", 1, NOW)
    assert found.says_something


@pytest.mark.parametrize(
    ("reset", "at"),
    [
        ("2027-01-15T08:00:30Z", NOW + 30),
        ("2027-01-15T08:00:30.250Z", NOW + 30.25),
        ("2027-01-15T10:00:30+02:00", NOW + 30),
        ("1800000030", NOW + 30),
        (formatdate(NOW + 30, usegmt=True), NOW + 30),
        ("2027-01-15T07:59:30Z", NOW - 30),
        ("2027-01-15T08:00:30", None),  # no zone: anybody's guess
        ("2029-01-15T08:00:30Z", None),
        ("2020-01-15T08:00:30Z", None),
        ("1800000030000", None),  # milliseconds
        ("2027-02-15T08:00:30Z", None),  # a minute's limit takes no month
        ("soon", None),
        ("", None),
    ],
)
def test_every_form_of_a_reset(reset: str, at: float | None) -> None:
    found = heard({"anthropic-ratelimit-requests-limit": "5", "anthropic-ratelimit-requests-reset": reset})
    assert found.requests == Allowance(limit=5, resets_at=at)
    assert found.absurd == (at is None)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"Retry-After": " 12 "}, 12),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "40"}, 0.04),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"retry-after": "37800"}, 37_800),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "١٢"}, None),
        ({"retry-after": str(101 * 86_400)}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Mon, 99 Foo 2026"}, None),
        ({"retry-after": formatdate(NOW + 400 * 86_400, usegmt=True)}, None),
    ],
)
def test_every_form_of_the_pause(headers: dict[str, str], pause: float | None) -> None:
    found = heard(headers)
    assert found.retry_after_s == pause
    unreadable = "soon" in headers.get("retry-after-ms", "") or (pause is None and bool(headers))
    assert found.absurd == unreadable


@pytest.mark.parametrize(
    ("said", "meant"), [("true", True), (" FALSE", False), ("maybe", None), (None, None)]
)
def test_whether_to_repeat_it(said: str | None, meant: bool | None) -> None:
    assert heard({} if said is None else {"x-should-retry": said}).should_retry is meant


@pytest.mark.parametrize(
    ("short", "name"),
    [("5h", "five_hour"), ("7d", "seven_day"), ("7d_opus", "seven_day_opus"), ("overage", "overage"),
     ("7d_oi", "seven_day_overage_included"), ("7d_sonnet", "seven_day_sonnet"), ("9m", "9m")],
)  # fmt: skip
def test_names_of_windows(short: str, name: str) -> None:
    assert window_name(short) == name


def test_a_subscriptions_windows() -> None:
    found = heard(
        {
            U + "status": "allowed_warning",
            U + "reset": "1800009000",
            U + "representative-claim": "five_hour",
            U + "5h-status": "allowed",
            U + "5h-utilization": "0.91",
            U + "5h-reset": "1800009000",
            U + "5h-surpassed-threshold": "0.9",
            U + "7d-status": "rejected",
            U + "7d-utilization": "1.02",
            U + "7d-reset": "1800300000",
            U + "7d_lunar-utilization": "0.5",
            U + "overage-status": "rejected",
            U + "overage-disabled-reason": "out_of_credits",
            U + "overage-period-monthly-utilization": "0.3",
            U + "slow-status": "on",
            U + "grace-5h-utilization": "0.1",
            U + "fallback": "available",
        }
    )
    assert found.windows == (
        Window("five_hour", "allowed_warning", NOW + 9000, 0.91),
        Window("seven_day", "rejected", NOW + 300_000, 1.02),
        Window("seven_day_lunar", None, None, 0.5),
        Window("overage", "rejected", None, None),
    )
    assert found.overage == "rejected"
    assert found.allowances == {}
    assert found.absurd == 0


@pytest.mark.parametrize(
    ("headers", "windows"),
    [
        ({U + "status": "rejected", U + "reset": "1800000009"}, (Window("unified", "rejected", NOW + 9),)),
        ({U + "reset": "1800000009"}, (Window("unified", None, NOW + 9),)),
        ({U + "representative-claim": "nine_months"}, (Window("nine_months"),)),
        ({U + "9m-status": "brand_new"}, (Window("9m", "brand_new"),)),
        ({U + "status": "Re jected"}, ()),
        ({U + "5h-utilization": "-1"}, (Window("five_hour"),)),
        ({U + "5h-utilization": "1000"}, (Window("five_hour"),)),
        ({U + "5h-reset": "1900000000000"}, (Window("five_hour"),)),
    ],
)
def test_windows_by_halves(headers: dict[str, str], windows: tuple[Window, ...]) -> None:
    assert heard(headers).windows == windows


@pytest.mark.parametrize("value", ["", "nan", "-1", "1e400", "many", "0x10", "1_0", "9" * 16, "inf", "٣"])
def test_absurd_counts_are_left_out_and_counted(value: str) -> None:
    found = heard(
        {"anthropic-ratelimit-requests-limit": value, "anthropic-ratelimit-requests-remaining": value}
    )
    assert (found.requests, found.absurd) == (None, 2)


def test_no_more_remains_than_there_is() -> None:
    found = heard({"anthropic-ratelimit-requests-limit": "5", "anthropic-ratelimit-requests-remaining": "6"})
    assert (found.requests, found.absurd) == (Allowance(limit=5), 1)


@pytest.mark.parametrize("form", ["anthropic-ratelimit-w{}-limit", U + "w{}-utilization"])
def test_the_number_of_limits_is_bounded(form: str) -> None:
    found = heard([(form.format(n), "1") for n in range(1000)])
    assert len(found.allowances) + len(found.windows) == MOST_LIMITS
    assert found.absurd == 1000 - MOST_LIMITS


def test_nothing_said() -> None:
    found = heard({"content-type": "application/json"})
    assert not found.says_something
    assert found.absurd == 0


NAMES = st.one_of(
    st.sampled_from(
        [f"anthropic-ratelimit-{name}-{what}" for name in ("requests", "input-tokens", "x")
         for what in ("limit", "remaining", "reset")]
        + [U + name for name in ("status", "reset", "representative-claim", "overage-status", "5h-status",
                                 "5h-reset", "5h-utilization", "7d_x-reset")]
        + ["retry-after", "retry-after-ms", "x-should-retry", "request-id"]
    ),
    st.text(max_size=30).map("anthropic-ratelimit-".__add__),
)  # fmt: skip
VALUES = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    st.binary(max_size=40).map(lambda raw: raw.decode("latin-1")),
    st.floats().map(str),
    st.integers().map(str),
    st.datetimes().map(str),
    st.datetimes().map(lambda at: at.isoformat() + "Z"),
    st.sampled_from(["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "allowed", "rejected",
                     "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
                     "Mon, 1 Jan 99999 0:0:0 +9999"]),
)  # fmt: skip


@given(headers=st.lists(st.tuples(NAMES, VALUES), max_size=30), now=st.floats(0, 4e9))
def test_whatever_stands_in_headers_never_raises(headers: list[tuple[str, str]], now: float) -> None:
    found = read(headers, sent_order=0, now=now)
    assert found.absurd >= 0
    for each in found.allowances.values():
        assert each.limit is None or each.limit >= 0
        assert each.limit is None or each.remaining is None or 0 <= each.remaining <= each.limit
        assert each.resets_at is None or abs(each.resets_at - now) <= 86_400
    for window in found.windows:
        assert window.resets_at is None or -86_400 <= window.resets_at - now <= 100 * 86_400
        assert window.utilization is None or 0 <= window.utilization <= 100
    assert found.retry_after_s is None or 0 <= found.retry_after_s <= 100 * 86_400
