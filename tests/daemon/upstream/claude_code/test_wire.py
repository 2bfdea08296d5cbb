"""Lines and frames."""

import json
from typing import Any

import pytest
from dragomand.upstream.claude_code import wire
from dragomand.upstream.claude_code.wire import OVERLONG, Lines, Result, as_json, decode, encode
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"."))), st.data())
def test_any_cut_of_the_bytes_gives_the_same_lines(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(line + b"\n" for line in lines) + b"unfinished"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    reader = Lines(limit=100)
    got: list[Any] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        got += reader.feed(whole[start:end])
    assert got == [line for line in lines if line.strip()]


def test_a_line_over_the_limit_is_left_out_and_the_next_one_is_read() -> None:
    reader = Lines(limit=5)
    assert reader.feed(b"12345\n123456\nok\n12") == [b"12345", OVERLONG, b"ok"]
    assert reader.feed(b"3456") == []
    assert reader.feed(b"789") == []
    assert reader._parts == []  # nothing of it is kept meanwhile
    assert reader.feed(b"\nok\n") == [OVERLONG, b"ok"]


def test_a_frame_with_more_than_is_known_is_understood() -> None:
    frame = decode(b'{"type":"keep_alive","brand":{"new":[1]},"session_id":"s"}')
    assert isinstance(frame, wire.KeepAlive)
    assert frame.session_id == "s"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no json",
        b"[]",
        b"3",
        b'{"type":"brand_new"}',
        b'{"no":"type"}',
        b'{"type":"assistant"}',
        b'{"type":"user","message":{"content":3}}',
        b'{"type":"keep_alive","session_id":"\xff"}',
        b'{"type":"keep_alive"} {"type":"keep_alive"}',
        b'{"type":' * 3000,
    ],
)
def test_what_is_not_known_is_none(line: bytes) -> None:
    assert decode(line) is None


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"a \ud83d b", "a \ufffd b"),
        (r"\ude00", "\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ud83d\ude00\ud83d", "😀\ufffd"),
        (r"\\ud83d \ud83d", r"\ud83d " + "\ufffd"),
        (r"\n\"\ud83d", '\n"\ufffd'),
        (r"\uD83D", "\ufffd"),
    ],
)
def test_half_a_character_is_replaced(escaped: str, text: str) -> None:
    frame = decode(b'{"type":"result","result":"' + escaped.encode() + b'"}')
    assert isinstance(frame, Result)
    assert frame.result == text


def test_a_result_is_understood_as_far_as_possible() -> None:
    line = {"type": "result", "is_error": "yes", "result": "text", "usage": 3, "total_cost_usd": 0.5}
    frame = decode(json.dumps(line).encode())
    assert frame == Result(result="text", total_cost_usd=0.5)


def test_lines_go_out_whole() -> None:
    assert (
        encode({"type": "user", "text": "a\nb\u2028é"}) == '{"type":"user","text":"a\\nb\u2028é"}\n'.encode()
    )


@pytest.mark.parametrize(
    ("line", "embedded", "is_json"),
    [
        (b' {"a": 1, "a": 2}\t', b'{"a": 1, "a": 2}', True),
        (b"null", b"null", True),
        (b"oops", b'"oops"', False),
        (b'{"a":"\xff"}', '"{\\"a\\":\\"\ufffd\\"}"'.encode(), False),
        (b'{"a":"\\ud83d"}', b'"{\\"a\\":\\"\\\\ud83d\\"}"', False),
        (b"[" * 100_000, b'"' + b"[" * 65_536 + b'"', False),
    ],
)
def test_any_line_can_be_embedded(line: bytes, embedded: bytes, is_json: bool) -> None:
    raw, was_json = as_json(line)
    assert (bytes(raw), was_json) == (embedded, is_json)
    json.loads(bytes(raw))
