"""Which headers pass, and what is read from them."""

from datetime import UTC, datetime

import pytest
from dragomand.gateway.headers import rate_limits, request_headers, response_headers


def test_what_goes_there() -> None:
    given = {
        "Content-Type": "application/json", "Anthropic-Beta": "a,b", "anthropic-version": "2023-06-01",
        "User-Agent": "claude-cli/2", "X-Stainless-Retry-Count": "0", "X-Claude-Code-Session-Id": "s",
        "Authorization": "Bearer t", "X-Api-Key": "t", "Cookie": "c", "Host": "h", "Connection": "keep-alive",
        "Accept-Encoding": "gzip", "Content-Length": "3", "X-Forwarded-For": "me", "Proxy-Authorization": "p",
        "Transfer-Encoding": "chunked", "Anthropic-Organization-Id": "of another",
    }  # fmt: skip
    assert request_headers(given.items(), "the key") == {
        "content-type": "application/json",
        "anthropic-beta": "a,b",
        "anthropic-version": "2023-06-01",
        "user-agent": "claude-cli/2",
        "x-stainless-retry-count": "0",
        "x-claude-code-session-id": "s",
        "accept-encoding": "identity",
        "x-api-key": "the key",
    }


def test_what_comes_back() -> None:
    given = {
        "Content-Type": "application/json", "Request-Id": "r", "Retry-After": "3", "Set-Cookie": "c",
        "anthropic-ratelimit-requests-limit": "5", "Connection": "close", "Transfer-Encoding": "chunked",
        "Location": "http://elsewhere", "Access-Control-Allow-Origin": "*", "Server": "s",
    }  # fmt: skip
    assert response_headers(given.items(), 0.0) == {
        "content-type": "application/json",
        "request-id": "r",
        "retry-after": "3",
        "anthropic-ratelimit-requests-limit": "5",
    }


def test_limits() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    given = [
        ("Anthropic-RateLimit-Requests-Limit", "50"),
        ("anthropic-ratelimit-requests-remaining", "49"),
        ("anthropic-ratelimit-requests-reset", "2026-01-02T00:00:00Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "1000"),
        ("anthropic-ratelimit-unified-5h-reset", "1767312000"),
        ("retry-after", "1.5"),
    ]
    found = rate_limits(given, 429, 7.0)
    assert found is not None
    assert (found.seen_at, found.status, found.retry_after_ms) == (7.0, 429, 1500)
    requests = found.windows["requests"]
    assert (requests.limit, requests.remaining, requests.reset_at) == (50, 49, at.timestamp())
    assert found.windows["input-tokens"].remaining == 1000
    assert found.windows["unified-5h"].reset_at == 1767312000


def test_nothing_said() -> None:
    assert rate_limits([("content-type", "application/json")], 200, 7.0) is None
    assert rate_limits([("retry-after", "soon")], 429, 7.0) is None


@pytest.mark.parametrize("value", ["", "nan", "-1", "1e400", "many", "1e15"])
@pytest.mark.parametrize("what", ["limit", "remaining", "reset"])
def test_absurd_values_are_ignored(what: str, value: str) -> None:
    found = rate_limits([(f"anthropic-ratelimit-requests-{what}", value)], 200, 7.0)
    assert found is not None
    window = found.windows["requests"]
    assert (window.limit, window.remaining, window.reset_at) == (None, None, None)


def test_a_time_without_zone_is_no_instant() -> None:
    found = rate_limits([("anthropic-ratelimit-requests-reset", "2026-01-02T00:00:00")], 200, 7.0)
    assert found is not None
    assert found.windows["requests"].reset_at is None


def test_the_number_of_limits_is_bounded() -> None:
    found = rate_limits([(f"anthropic-ratelimit-w{n}-limit", "1") for n in range(1000)], 200, 7.0)
    assert found is not None
    assert len(found.windows) == 16


def test_a_header_that_comes_twice_keeps_both() -> None:
    given = [("anthropic-beta", "a"), ("Anthropic-Beta", "b,c"), ("accept", "x")]
    assert request_headers(given, "k")["anthropic-beta"] == "a, b,c"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"retry-after": "7"}, "7"),
        ({"Retry-After": "0.5"}, "1"),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, "90"),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, "0"),
        ({"retry-after-ms": "1500"}, "2"),
        ({"retry-after": "soon"}, "soon"),
        ({}, None),
    ],
)
def test_a_pause_is_told_in_whole_seconds(given: dict[str, str], told: str | None) -> None:
    assert response_headers(given.items(), 10.0).get("retry-after") == told


def test_a_pause_as_a_date_is_remembered() -> None:
    found = rate_limits([("Retry-After", "Thu, 01 Jan 1970 00:01:40 GMT")], 429, 10.0)
    assert found is not None
    assert found.retry_after_ms == 90_000
