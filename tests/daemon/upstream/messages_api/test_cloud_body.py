"""The body as the clouds want it."""

import json

import pytest
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.messages_api.cloud_body import Body, in_path


def test_the_model_is_taken_out_and_the_rest_stays() -> None:
    given = b'{"model":"m","max_tokens":3,"stream":true,"messages":[{"content":"\\ud83d\\ude00 \xc3\xa9"}]}'
    body = Body(given)
    assert body.model == "m"
    made = body.without("stream", "not there").with_fields(anthropic_version="v", max_tokens=9).encode()
    assert json.loads(made) == {"anthropic_version": "v", "max_tokens": 3, "messages": [{"content": "😀 é"}]}


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("us.anthropic.claude-x-v1:0", "us.anthropic.claude-x-v1:0"),
        ("arn:aws:b:r:1:p/us.x", "arn:aws:b:r:1:p%2Fus.x"),
        ("a?b#c d\n", "a%3Fb%23c%20d%0A"),
        ("é", "%C3%A9"),
    ],
)
def test_a_name_is_one_segment(name: str, segment: str) -> None:
    assert in_path(name, ":") == segment


@pytest.mark.parametrize("name", ["", ".", "..", "..;x", ".:y", ":z"])
def test_a_name_that_would_lead_elsewhere(name: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        in_path(name, ":")
    assert caught.value.failure.category == "caller"
