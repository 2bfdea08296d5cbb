"""Where the API's endpoints are."""

from dragomand.upstream.messages_api import DirectSettings


def test_urls() -> None:
    assert DirectSettings().url("/v1/messages") == "https://api.anthropic.com/v1/messages"
    assert DirectSettings(base_url="http://h/prefix/").url("/v1/messages") == "http://h/prefix/v1/messages"
