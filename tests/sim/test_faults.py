"""Every fault, as a plain HTTP client meets it."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from time import time

import pytest
from dragoman_sim import (
    Cut,
    Reply,
    Rule,
    Simulator,
    Stall,
    Status,
    StreamError,
    Thinking,
    When,
)  # fmt: skip
from dragoman_sim.faults import ERROR_TYPES, NAMED

TEXT = "Some words that are long enough for several pieces."
REPLY = Reply([Thinking("a first block"), TEXT])


async def ask(http, fault, *, stream=True):
    async with Simulator([Rule(reply=REPLY, fault=fault)]) as sim:
        answer = await http.message(sim.url, "x", stream=stream)
        outcome = await sim.wait_ended(sim.messages[0])
    return answer, outcome


@pytest.mark.parametrize("name", sorted(name for name, fault in NAMED.items() if isinstance(fault, Status)))
async def test_statuses(http, name):
    answer, outcome = await ask(http, name)
    fault = NAMED[name]
    assert outcome == "answered"
    assert answer.status == fault.status
    if fault.html:
        assert answer.headers["content-type"] == "text/html"
        assert b"<html>" in answer.body
        return
    told = answer.json()
    assert told["error"]["type"] == ERROR_TYPES[fault.status]
    assert told["error"]["message"]
    assert told["request_id"] == answer.headers["request-id"]
    assert told["error"].get("details", {}).get("error_code") == fault.error_code
    assert ("retry-after" in answer.headers) == (name in ("rate_limited", "rate_limited_date"))


async def test_the_forms_of_retry_after(http):
    seconds, _ = await ask(http, Status(429, retry_after=2.5))
    word, _ = await ask(http, Status(429, retry_after="soon"))
    date, _ = await ask(http, Status(429, retry_after_date_s=60))
    none, _ = await ask(http, Status(429, headers={"x-own": "1"}))
    assert seconds.headers["retry-after"] == "2.5"
    assert word.headers["retry-after"] == "soon"
    there = parsedate_to_datetime(date.headers["retry-after"]).timestamp()
    assert 0 < there - time() <= 60
    assert "retry-after" not in none.headers
    assert none.headers["x-own"] == "1"


@pytest.mark.parametrize(
    ("kind", "status"), [("overloaded_error", 529), ("rate_limit_error", 429), ("odd", 500)]
)
async def test_without_a_stream_the_error_event_is_a_status(http, kind, status):
    answer, _ = await ask(http, StreamError(kind, "no", at="after_block"), stream=False)
    assert (answer.status, answer.json()["error"]) == (status, {"type": kind, "message": "no"})


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("overloaded", (529, "answered")),
        (Stall("after_headers", for_ms=1), (200, "answered")),
        (Cut("before_headers"), (0, "cut")),
        (Cut("after_headers"), (200, "cut")),
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/models"])
async def test_faults_of_the_other_endpoints(http, key, message_body, path, fault, expected):
    async with Simulator([Rule(When(path=path), fault=fault)]) as sim:
        method, body = ("GET", b"") if path.endswith("models") else ("POST", message_body("x"))
        answer = await http.ask(sim.url, method, path, body, x_api_key=key)
        outcome = await sim.wait_ended(sim.requests[0])
        assert sim.requests[0].rule == 0
    assert (answer.status, outcome) == expected
