"""Which headers pass, and what is read from them."""


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
    assert response_headers(given.items()) == {
        "content-type": "application/json",
        "request-id": "r",
        "retry-after": "3",
        "anthropic-ratelimit-requests-limit": "5",
    }
