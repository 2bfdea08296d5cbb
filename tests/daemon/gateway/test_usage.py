"""Reading what an answer took, from bytes cut anywhere."""

import json
from itertools import pairwise
from typing import Any

import pytest
from dragoman_protocol.session import Usage
from dragomand.gateway.usage import UsageReader
from hypothesis import given
from hypothesis import strategies as st

START: dict[str, Any] = {
    "type": "message_start",
    "message": {
        "id": "m",
        "role": "assistant",
        "usage": {
            "input_tokens": 7,
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 3,
            "output_tokens": 1,
        },
    },
}
DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "ä message_delta"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 42}}
STOP = {"type": "message_stop"}
TOOK = Usage(input_tokens=7, output_tokens=42, cache_read_tokens=5, cache_creation_tokens=3)


def sse(*events: dict[str, Any], newline: str = "\n") -> bytes:
    lines = []
    for event in events:
        lines += [f"event: {event['type']}", f"data: {json.dumps(event)}", ""]
    return (newline.join(lines) + newline).encode()


WHOLE = sse(START, DELTA, DELTA, END, STOP)


def read(*parts: bytes, kind: str = "text/event-stream; charset=utf-8") -> UsageReader:
    reader = UsageReader(kind)
    for part in parts:
        reader.feed(part)
    reader.end()
    return reader


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_a_stream_cut_anywhere(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(WHOLE)]
    reader = read(*(WHOLE[a:b] for a, b in pairwise(places)))
    assert reader.usage == TOOK
    assert reader.complete
    assert not reader.failed


def test_other_line_ends() -> None:
    assert read(sse(START, END, STOP, newline="\r\n")).usage == TOOK


def test_a_stream_without_its_end_is_not_complete() -> None:
    reader = read(sse(START, DELTA))
    assert not reader.complete
    assert reader.usage is not None
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (7, 1)


def test_a_stream_may_tell_of_an_error() -> None:
    assert read(sse(START, {"type": "error", "error": {"type": "overloaded_error"}})).failed


@pytest.mark.parametrize(
    "line",
    [
        b'data: {"type":"message_delta", broken\n',
        b'data: {"type":"message_delta","usage":{"output_tokens":"many"}}\n',
        b'data: {"type":"message_delta","usage":{"output_tokens":-4}}\n',
        b'data: {"type":"message_delta"}\n',
        b'data: "message_delta"\n',
        b"\xff\xfe\n",
        b": a comment\n",
    ],
)
def test_what_cannot_be_read_is_ignored(line: bytes) -> None:
    assert read(sse(START, END), line, sse(STOP)).usage == TOOK


def test_a_line_without_end_is_not_kept() -> None:
    reader = UsageReader("text/event-stream")
    reader.feed(sse(START))
    for _ in range(64):
        reader.feed(b"data: " + b"x" * 65536)
    assert len(reader._rest) <= 1 << 20
    reader.feed(b"\n" + sse(END, STOP))
    reader.end()
    assert reader.usage == TOOK


def test_a_whole_answer() -> None:
    usage = {**START["message"]["usage"], "output_tokens": 42}
    body = json.dumps({"type": "message", "usage": usage}).encode()
    reader = read(body[:20], body[20:], kind="application/json")
    assert reader.usage == TOOK
    assert reader.complete


@pytest.mark.parametrize("body", [b"", b"[]", b"no json", b'{"usage":3}', b'{"input_tokens":3}'])
def test_an_answer_that_says_nothing_of_it(body: bytes) -> None:
    assert read(body, kind="application/json").usage is None
    assert read(body, kind="text/html").usage is None


def test_an_answer_that_is_too_large_to_be_kept() -> None:
    reader = UsageReader("application/json")
    for _ in range(18):
        reader.feed(b" " * (1 << 20))
    reader.end()
    assert reader.usage is None


PING = b'event: ping\ndata: {"type": "ping"}\n\n'


@pytest.mark.parametrize(
    ("parts", "alive"),
    [
        ([PING], [False]),
        ([PING[:20], PING[20:], PING * 2], [False, False, False]),
        ([b": a comment\n\n", b"\n", b"retry: 3\n"], [False, False, False]),
        ([sse(DELTA), PING, sse(DELTA) + PING], [True, False, True]),
        ([PING[:30], PING[30:] + sse(DELTA)], [False, True]),
        ([b'data: {"type": "content', b'_block_delta"}\n'], [False, True]),
        ([b"data: " + b"x" * 500, b"x", b"x\n", PING], [True, True, True, False]),
        ([b"data: " + b"x" * (2 << 20), b"x" * 10, b"\n", PING], [True, True, True, False]),
    ],
)
def test_pings_are_no_words(parts: list[bytes], alive: list[bool]) -> None:
    reader = UsageReader("text/event-stream")
    assert [reader.feed(part) for part in parts] == alive


def test_of_anything_else_every_byte_is_one() -> None:
    assert UsageReader("application/json").feed(b" ")
    assert UsageReader("text/html").feed(PING)


@pytest.mark.parametrize(
    ("message", "cost"),
    [
        ({"model": "claude-opus-5-5"}, (7 * 4 + 42 * 20 + 5 * 0.2 + 3 * 5) / 1e6),
        (
            {"model": "claude-opus-5-5", "hour": 2},
            (7 * 4 + 42 * 20 + 5 * 0.2 + 1 * 5 + 2 * 8) / 1e6,
        ),
        ({"model": "claude-opus-5-5", "hour": 9}, (7 * 4 + 42 * 20 + 5 * 0.2 + 3 * 8) / 1e6),
        ({"model": "of another house"}, None),
        ({}, None),
    ],
)
def test_what_an_answer_costs(message: dict[str, Any], cost: float | None) -> None:
    hour = {"ephemeral_1h_input_tokens": message.get("hour", 0)}
    usage = {**START["message"]["usage"], "cache_creation": hour}
    start = {**START, "message": {**START["message"], **message, "usage": usage}}
    assert read(sse(start, DELTA, END, STOP)).cost_usd == (None if cost is None else pytest.approx(cost))
    whole = {"type": "message", **message, "usage": {**usage, "output_tokens": 42}}
    reader = read(json.dumps(whole).encode(), kind="application/json")
    assert reader.cost_usd == (None if cost is None else pytest.approx(cost))


def test_an_answer_without_usage_has_no_cost() -> None:
    assert read(sse(STOP)).cost_usd is None
