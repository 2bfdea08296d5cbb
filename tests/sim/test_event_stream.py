"""Amazon's binary event stream, read back by Amazon's own library."""

from __future__ import annotations

import base64
import json

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from dragoman_sim.event_stream import DAMAGED, converted, exception, message


def read(data: bytes) -> list[tuple[dict[str, str], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(event.headers, event.payload) for event in buffer]


def test_messages_one_after_the_other() -> None:
    assert read(message({"a": "b", ":c": "é"}, b"payload") + message({}, b"")) == [
        ({"a": "b", ":c": "é"}, b"payload"),
        ({}, b""),
    ]


def test_events_become_chunks() -> None:
    events = b'event: ping\ndata: {"type": "ping"}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
    found = read(converted(events))
    assert [headers[":event-type"] for headers, _ in found] == ["chunk", "chunk"]
    inner = [base64.b64decode(json.loads(payload)["bytes"]) for _, payload in found]
    assert inner == [b'{"type": "ping"}', b'{"type":"message_stop"}']


@pytest.mark.parametrize(
    ("error_type", "name"),
    [
        ("rate_limit_error", "throttlingException"),
        ("api_error", "internalServerException"),
        ("modelStreamErrorException", "modelStreamErrorException"),
    ],
)
def test_errors_become_exceptions(error_type: str, name: str) -> None:
    event = {"type": "error", "error": {"type": error_type, "message": "words"}}
    ((headers, payload),) = read(converted(b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"))
    assert (headers[":message-type"], headers[":exception-type"]) == ("exception", name)
    assert json.loads(payload) == {"message": "words"}
    assert converted(b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n") == exception(
        error_type, "words"
    )


def test_what_is_no_event_becomes_a_message_that_nobody_knows() -> None:
    ((headers, _),) = read(converted(b"this is no event\n\n"))
    assert headers[":event-type"] == "unheardOf"


def test_damage_is_damage() -> None:
    with pytest.raises(ChecksumMismatch):
        read(converted(DAMAGED))
