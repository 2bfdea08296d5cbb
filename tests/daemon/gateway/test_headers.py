"""Which headers pass."""

import pytest
from dragomand.gateway.headers import request_headers, response_headers


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
