"""The classes of failure, from statuses, bodies and headers."""

from datetime import UTC, datetime
from email.utils import formatdate

import msgspec
import pytest
from dragomand.upstream import failures

NOW = 1_800_000_000.0


def body(message: str, **details: object) -> bytes:
    return msgspec.json.encode({"type": "error", "error": {"message": message, "details": details}})


@pytest.mark.parametrize(
    ("status", "category"),
    [(400, "caller"), (401, "auth"), (402, "quota"), (403, "auth"), (404, "caller"), (408, "overload"),
     (413, "caller"), (422, "caller"), (429, "throttle"), (500, "overload"), (529, "overload"),
     (302, "caller")],
)  # fmt: skip
def test_by_status(status: int, category: str) -> None:
    failure = failures.of_response(status, {"request-id": "req_1"}, body("why"), NOW)
    assert (failure.category, failure.message, failure.status) == (category, "why", status)
    assert failure.detail == "req_1"


@pytest.mark.parametrize("text", [b"", b"<html>", b"[1]", b'{"error":7}', b"\xff", b"[" * 9999])
def test_a_body_that_says_nothing(text: bytes) -> None:
    failure = failures.of_response(502, {}, text, NOW)
    assert (failure.category, failure.message) == (
        "overload",
        "The Messages API answered with HTTP status 502.",
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, body("Your organization's limit", error_code="enforced_spend_limit_reached")),
        (429, body("This request would exceed your account's monthly spend limit. Please try again later.")),
        (400, body("You have reached your specified API usage limits.")),
        (400, body("You have reached your specified workspace API usage limits.")),
        (400, body("Your credit balance is too low to access the Anthropic API.")),
        (402, body("anything")),
        (429, b'{"error":{"type":"billing_error","message":"over"}}'),
        (403, b'{"error":{"type":"billing_error","message":"over"}}'),
    ],
)
def test_a_quota_is_no_rate(status: int, said: bytes) -> None:
    headers = {"anthropic-ratelimit-unified-reset": "1800000600", "retry-after": "7"}
    failure = failures.of_response(status, headers, said, NOW)
    assert (failure.category, failure.resets_at) == ("quota", 1_800_000_600.0)
    assert failure.retry_after_ms is None  # a pause would be slept through, then asked again


REGAINED = "You have reached your specified API usage limits. You will regain access on "
MONTH = datetime(2027, 2, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("status", "said", "headers", "resets_at"),
    [
        (400, body(REGAINED + "2027-02-01 at 00:00 UTC."), {}, MONTH),
        (400, body(REGAINED + "2027-02-01 at 06:30 UTC."), {}, MONTH + 6.5 * 3600),
        (400, body(REGAINED + "2027-02-01."), {"retry-after": "5"}, MONTH),
        (400, body(REGAINED + "2031-02-01 at 00:00 UTC."), {}, None),  # years ahead is not believed
        (400, body(REGAINED + "2027-02-31 at 00:00 UTC."), {}, None),
        (400, body("You have reached your specified API usage limits."), {}, None),
        (402, body("Your credit balance is too low."), {}, None),  # until somebody pays
        (429, body("x", error_code="enforced_spend_limit_reached"), {}, MONTH),
        (429, body("x", error_code="enforced_spend_limit_reached"), {"retry-after": "60"}, NOW + 60),
        (429, body("would exceed your account's monthly spend limit"), {}, MONTH),
        (429, b'{"error":{"type":"billing_error","message":"m"}}', {"retry-after": "37800"}, NOW + 37_800),
    ],
)
def test_when_a_quota_returns(status: int, said: bytes, headers: dict[str, str], resets_at: float) -> None:
    failure = failures.of_response(status, headers, said, NOW)
    assert (failure.category, failure.resets_at) == ("quota", resets_at)


def test_a_month_ends_with_its_year() -> None:
    december = datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()
    assert failures.month_ends_at("monthly spend limit", december) == december + 60
    assert failures.month_ends_at("anything else", december) is None


U = "anthropic-ratelimit-unified-"
FIVE = {U + "representative-claim": "five_hour", U + "reset": "1800009000"}


@pytest.mark.parametrize(
    ("headers", "category", "window", "resets_at"),
    [
        ({**FIVE, U + "status": "rejected", "retry-after": "9000"}, "quota", "five_hour", NOW + 9000),
        ({**FIVE, U + "status": "allowed_warning", "retry-after": "3"}, "throttle", None, None),
        ({**FIVE, U + "status": "allowed", U + "7d-status": "rejected"}, "throttle", None, None),
        ({U + "5h-status": "allowed", U + "7d-status": "rejected"}, "throttle", None, None),
        (
            {U + "representative-claim": "nine_months", U + "5h-status": "rejected",
             U + "5h-reset": "1800000005", U + "7d-status": "rejected", U + "7d-reset": "1800000009"},
            "quota", "seven_day", NOW + 9,
        ),
        ({U + "representative-claim": "five_hour", U + "status": "rejected", "retry-after": "60"},
         "quota", "five_hour", NOW + 60),
        ({"retry-after": "200000"}, "quota", None, NOW + 200_000),  # days are no pause
    ],
)  # fmt: skip
def test_a_window_that_is_used_up(
    headers: dict[str, str], category: str, window: str | None, resets_at: float | None
) -> None:
    failure = failures.of_response(429, headers, body("Too many."), NOW)
    assert (failure.category, failure.window, failure.resets_at) == (category, window, resets_at)


@pytest.mark.parametrize(
    "said",
    [
        body("Extra usage is required for long context requests."),
        body("This model needs credits.", error_code="credits_required"),
    ],
)
def test_what_only_this_request_needs_stops_no_others(said: bytes) -> None:
    failure = failures.of_response(429, {"retry-after": "5"}, said, NOW)
    assert (failure.category, failure.retry_after_ms) == ("caller", None)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1_500),
        ({"retry-after-ms": "40"}, 40),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90_000),
        ({"retry-after": "86400"}, 86_400_000),
        ({"retry-after": "soon"}, None),
    ],
)
def test_the_pause(headers: dict[str, str], pause: int | None) -> None:
    assert failures.of_response(429, headers, b"", NOW).retry_after_ms == pause
    assert failures.of_response(529, headers, b"", NOW).retry_after_ms == pause
    assert failures.of_response(400, headers, b"", NOW).retry_after_ms is None


def test_an_overloads_pause_is_a_day_at_most() -> None:
    failure = failures.of_response(503, {"retry-after": "200000"}, b"", NOW)
    assert (failure.category, failure.retry_after_ms) == ("overload", 86_400_000)


@pytest.mark.parametrize(
    ("kind", "message", "category", "status"),
    [
        ("overloaded_error", "Overloaded", "overload", 529),
        ("rate_limit_error", "slow", "throttle", 429),
        ("rate_limit_error", "spend limit reached", "quota", 429),
        ("new_error", "", "overload", 500),
    ],
)
def test_events(kind: str, message: str, category: str, status: int) -> None:
    failure = failures.of_event(kind, message, "req")
    assert (failure.category, failure.status) == (category, status)
    assert failure.message


def test_an_events_date() -> None:
    said = REGAINED + "2027-02-01 at 00:00 UTC."
    assert failures.of_event("invalid_request_error", said, None, NOW).resets_at == MONTH
    assert failures.of_event("rate_limit_error", "monthly spend limit", None, NOW).resets_at == MONTH
    assert failures.of_event("invalid_request_error", said, None).resets_at is None
    assert failures.of_event("overloaded_error", said, None, NOW).resets_at is None


@pytest.mark.parametrize("details", [None, [], "x", {"error_code": 7}])
def test_details_of_any_shape(details: object) -> None:
    said = msgspec.json.encode({"error": {"type": "rate_limit_error", "message": "m", "details": details}})
    assert failures.of_response(429, {}, said, NOW).category == "throttle"
