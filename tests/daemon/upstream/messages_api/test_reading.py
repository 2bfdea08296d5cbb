"""What is read of an answer, and what its call is told."""

from types import SimpleNamespace
from typing import Any

import pytest
from dragomand.upstream.limits_heard import LimitsHeard, nobody
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

    def note_limits(self, heard: LimitsHeard) -> None:
        self.seen = [*getattr(self, "seen", []), heard]


def stream(call: Any = None, tell: Any = nobody) -> StreamReading:
    watchdog: Any = SimpleNamespace(heard=lambda *, words: None)
    answer = Answer(lambda _: None, lambda: False)
    return StreamReading(answer, watchdog, call, tell, model="claude-x", message_id="m-1")


def test_a_stream_is_whole_with_its_last_event() -> None:
    call = Call(status=None)
    reading = stream(call)
    reading.head(200, STREAM)
    reading.body(START)
    assert (reading.state, reading.failure.message) == (  # type: ignore[union-attr]
        "reading", "The Messages API broke the answer off.",
    )  # fmt: skip
    reading.body(STOP)
    assert (reading.state, reading.failure) == ("whole", None)
    (seen,) = call.seen
    assert (call.status, seen.status, seen.model, seen.message_id) == (200, 200, "claude-x", "m-1")
    reading.body(ERROR)
    assert reading.failure is None, "what comes after the end is not read"


def test_a_refusal_is_told_once_its_body_is_there() -> None:
    call = Call(status=None)
    reading = stream(call)
    reading.head(529, {})
    assert (call.status, hasattr(call, "seen")) == (529, False)
    failure = reading.failure
    (seen,) = call.seen
    assert seen.failure is failure
    assert seen.failure.category == "overload"


def test_without_a_call_somebody_else_is_told() -> None:
    told: list[LimitsHeard] = []
    reading = stream(None, told.append)
    reading.head(200, STREAM)
    assert [each.status for each in told] == [200]


def test_an_error_in_the_stream_breaks_it() -> None:
    reading = stream()
    reading.head(200, STREAM)
    reading.body(START + ERROR)
    assert reading.state == "broken"
    assert reading.failure is not None
    assert reading.failure.message == "busy"


@pytest.mark.parametrize(
    ("headers", "named"), [({"content-type": "text/html; x"}, "text/html,"), ({}, "nothing")]
)
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
