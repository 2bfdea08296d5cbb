"""The classes of failure, from statuses, bodies and headers."""

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
        (400, body("You have reached your specified API usage limits.")),
        (402, body("anything")),
    ],
)
def test_a_quota_is_no_rate(status: int, said: bytes) -> None:
    headers = {"anthropic-ratelimit-unified-reset": "1800000600"}
    failure = failures.of_response(status, headers, said, NOW)
    assert (failure.category, failure.resets_at) == ("quota", 1_800_000_600.0)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 12 "}, 12_000),
        ({"retry-after": "1.5"}, 1_500),
        ({"retry-after-ms": "40"}, 40),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2_000),
        ({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90_000),
        ({"retry-after": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "86401"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "Mon, 99 Foo 2026"}, None),
    ],
)
def test_every_form_of_the_pause(headers: dict[str, str], pause: int | None) -> None:
    assert failures.retry_after_ms(headers, NOW) == pause
    assert failures.of_response(429, headers, b"", NOW).retry_after_ms == pause
    assert failures.of_response(400, headers, b"", NOW).retry_after_ms is None


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
