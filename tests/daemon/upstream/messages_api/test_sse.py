"""Chunks to events, wherever the chunks are cut."""

import itertools

import pytest
from dragomand.upstream.messages_api.sse import EventReader, TooLongError, next_event
from hypothesis import given
from hypothesis import strategies as st

STREAM = (
    'event: a\ndata: {"x":1}\n\n: a comment\n\nevent: b\ndata:{"y":"ü"}\n\n'
    "id: 7\ndata: two\ndata: lines\n\nretry: 5\n\nthis is no event\ndata\n\ndata: last\n\n"
)
DATA = [b'{"x":1}', '{"y":"ü"}'.encode(), b"two\nlines", b"last"]


def read(chunks: list[bytes]) -> list[bytes]:
    reader = EventReader()
    return [data for chunk in chunks for data in datas(reader.feed(chunk))]


def datas(events: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(events):
        data, at = next_event(events, at)
        if data is not None:
            found.append(data)
    return found


@given(cuts=st.lists(st.integers(0, 300), max_size=8), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_cut_anywhere_with_any_line_end(cuts: list[int], end: str) -> None:
    # A last return may be half a line end, so an event that ends with it waits for what comes.
    stream = STREAM.replace("\n", end).encode() + (b"data" if end == "\r" else b"")
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    assert read([stream[a:b] for a, b in itertools.pairwise(edges)]) == DATA


def test_byte_by_byte() -> None:
    assert read([bytes([byte]) for byte in STREAM.encode()]) == DATA


def test_what_is_not_complete_waits() -> None:
    reader = EventReader()
    assert reader.feed(b"event: a\ndata: {}\n") == b""
    assert datas(reader.feed(b"\nda")) == [b"{}"]
    assert datas(reader.feed(b"ta: x\n\n")) == [b"x"]


@pytest.mark.parametrize("step", [1, 40, 200])
def test_an_event_over_the_limit(step: int) -> None:
    reader = EventReader(max_event_bytes=100)
    data = b"data: " + b"x" * 200

    def feed() -> None:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])

    with pytest.raises(TooLongError, match="more than 100 bytes"):
        feed()
