"""Where the API is, and the way there."""

import pytest
from dragomand.upstream.endpoint import proxy_for


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("https://api.anthropic.com", {}, None),
        ("https://api.anthropic.com", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (
            "https://api.anthropic.com",
            {"https_proxy": "http://q:1", "HTTPS_PROXY": "http://p:1"},
            "http://q:1",
        ),
        ("https://api.anthropic.com", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://127.0.0.1:5", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://127.0.0.1:5", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "localhost, 127.0.0.1"}, None),
        ("https://api.anthropic.com", {"HTTPS_PROXY": "http://p:1", "no_proxy": ".anthropic.com"}, None),
        (
            "https://api.anthropic.com",
            {"HTTPS_PROXY": "http://p:1", "no_proxy": "thropic.com,,"},
            "http://p:1",
        ),
        ("https://api.anthropic.com", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
    ],
)
def test_the_proxy_of_the_environment(url: str, environment: dict[str, str], proxy: str | None) -> None:
    assert proxy_for(url, environment) == proxy
