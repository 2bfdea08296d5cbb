"""What is read of an answer, and what its call is told."""

from types import SimpleNamespace
from typing import Any

import pytest
from dragoman_protocol.limits import RateLimitSnapshot
from dragomand.upstream.messages_api.answer import Answer
from dragomand.upstream.messages_api.reading import ERROR_BYTES, PlainReading, StreamReading

STREAM = {"content-type": "text/event-stream; charset=utf-8"}
START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"x",'
    b'"usage":{"input_tokens":3,"output_tokens":1}}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
ERROR = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'


class Call(SimpleNamespace):
    """A permit that remembers."""

    def note_ratelimit(self, snapshot: RateLimitSnapshot) -> None:
        self.seen = snapshot


def stream(call: Any = None, limits: Any = None) -> StreamReading:
    watchdog: Any = SimpleNamespace(heard=lambda *, words: None)
    return StreamReading(Answer(lambda _: None, lambda: False), watchdog, call, limits)


def test_a_stream_is_whole_with_its_last_event() -> None:
    call = Call(status=None)
    reading = stream(call, lambda headers, status: RateLimitSnapshot(seen_at=1.0, status=status))
    reading.head(200, STREAM)
    reading.body(START)
    assert (reading.state, reading.failure.message) == (  # type: ignore[union-attr]
        "reading", "The Messages API broke the answer off.",
    )  # fmt: skip
    reading.body(STOP)
    assert (reading.state, reading.failure) == ("whole", None)
    assert (call.status, call.seen.status) == (200, 200)
    reading.body(ERROR)
    assert reading.failure is None, "what comes after the end is not read"


def test_a_call_whose_headers_say_nothing_of_limits() -> None:
    call = Call(status=None)
    reading = stream(call, lambda headers, status: None)
    reading.head(529, {})
    assert (call.status, hasattr(call, "seen")) == (529, False)


def test_an_error_in_the_stream_breaks_it() -> None:
    reading = stream()
    reading.head(200, STREAM)
    reading.body(START + ERROR)
    assert reading.state == "broken"
    assert reading.failure is not None
    assert reading.failure.message == "busy"


@pytest.mark.parametrize(("headers", "named"), [({"content-type": "text/html; x"}, "text/html,"), ({}, "nothing")])
def test_something_else_is_no_stream(headers: dict[str, str], named: str) -> None:
    reading = stream()
    reading.head(200, headers)
    assert reading.state == "broken"
    assert reading.failure is not None
    assert reading.failure.category == "protocol"
    assert named in reading.failure.message


def test_an_error_s_body_is_read_up_to_a_bound() -> None:
    reading = stream()
    reading.head(500, {})
    reading.body(b"x" * ERROR_BYTES)
    assert (reading.state, len(reading.said)) == ("broken", ERROR_BYTES)
    reading.body(b"more")
    assert len(reading.said) == ERROR_BYTES
    assert reading.failure is not None
    assert reading.failure.status == 500


def test_a_plain_answer() -> None:
    reading = PlainReading()
    reading.head(200, {})
    reading.body(b"{}")
    assert (reading.failure, bytes(reading.said), reading.state) == (None, b"{}", "reading")
