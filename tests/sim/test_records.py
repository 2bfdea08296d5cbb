"""What is remembered, and for how long."""

from __future__ import annotations

import pytest
from dragoman_sim import records
from dragoman_sim.http import HttpRequest
from dragoman_sim.records import Log


def request(body=b"", path="/v1/messages", **headers):
    return HttpRequest("POST", path, "", headers, body)


def test_the_oldest_are_forgotten_beyond_the_bound_of_bytes(monkeypatch):
    monkeypatch.setattr(records, "MAX_BODY_BYTES", 10)
    log = Log()
    kept = [log.add(request(b"x" * size), 0.0) for size in (4, 4, 4, 100)]
    assert list(log.records) == kept[3:]
    assert (log.total, log.messages) == (4, 4)
    log.add(request(b"y"), 0.0)
    assert [record.number for record in log.records] == [5]


def test_and_beyond_the_bound_of_their_number(monkeypatch):
    monkeypatch.setattr(records, "MAX_RECORDS", 3)
    log = Log()
    for _ in range(5):
        log.add(request(), 0.0)
    assert [record.number for record in log.records] == [3, 4, 5]


def test_an_answer_ends_once():
    log = Log()
    record = log.add(request(), 0.0)
    log.end(record, "cut")
    log.end(record, "abandoned")
    assert record.outcome == "cut"


@pytest.mark.parametrize(("body", "told"), [(b'{"a": 1}', b'{"a":1}'), (b"\xffno", None)])
def test_as_a_dict(body, told):
    record = Log().add(
        request(body, "/x", **{"x-claude-code-session-id": "s", "authorization": "Bearer b"}), 1.0
    )
    value = record.to_dict()
    assert value["claude_session_id"] == "s"
    assert value["headers"]["authorization"] == "…"
    assert value["credential"] == "authorization"
    assert bytes(value["body"]) == told if told else value["body"] == "\ufffdno"
    assert (value["number"], value["message_number"]) == (1, None)
