"""What an answer that goes by says of limits, without a connection."""

from typing import Any

import pytest
from dragomand.gateway.overheard import MOST_SAID, Overheard, counts, model_of
from dragomand.upstream.limits_heard import Allowance, LimitsHeard

NOW = 1_800_000_000.0
HEADERS = [("anthropic-ratelimit-requests-limit", "5"), ("retry-after", "3")]


def overheard(said: list[LimitsHeard], status: int) -> Overheard:
    return Overheard(said.append, HEADERS, status=status, sent_order=4, now=NOW, model="m")


def test_a_success_is_told_at_once_and_once() -> None:
    said: list[LimitsHeard] = []
    one = overheard(said, 200)
    (found,) = said
    assert (found.requests, found.sent_order, found.model) == (Allowance(5), 4, "m")
    one.feed(b"text")
    one.end()
    assert len(said) == 1
    assert one.failure is None


@pytest.mark.parametrize(
    ("body", "category"),
    [
        ([b'{"error":{"type":"rate_limit_error","message":"m","details":{"error_code":',
          b'"enforced_spend_limit_reached"}}}'], "quota"),
        ([b'{"error":{"type":"rate_limit_error","message":"m"}}'], "throttle"),
        ([b"<html>"], "throttle"),
        ([], "throttle"),
        ([b"x" * MOST_SAID, b"y"], "throttle"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_with_its_body(body: list[bytes], category: str) -> None:
    said: list[LimitsHeard] = []
    one = overheard(said, 429)
    assert said == []
    for part in body:
        one.feed(part)
    one.end()
    (found,) = said
    assert found.failure is one.failure is not None
    assert found.failure.category == category
    assert found.retry_after_s == 3


@pytest.mark.parametrize(
    ("body", "model"),
    [(b'{"messages":[],"model":"claude-x"}', "claude-x"), (b"{}", None), (b'{"model":7}', None), (b"", None),
     (b"\xff", None), (b"[" * 9999, None), (b'{"model":"' + b"x" * 300 + b'"}', "x" * 200)],
)  # fmt: skip
def test_whom_a_request_is_for(body: bytes, model: str | None) -> None:
    assert model_of(body) == model


def test_whose_limits_count() -> None:
    paths: dict[str, Any] = {"/v1/messages": True, "/v1/messages/count_tokens": False, "/v1/models": False}
    assert {path: counts(path) for path in paths} == paths
