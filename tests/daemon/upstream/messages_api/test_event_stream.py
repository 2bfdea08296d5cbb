"""Amazon's binary event stream: any cut of the bytes gives the same messages, damage and excess are failures.

Amazon's own library writes and reads the same bytes here.
"""

import struct
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from dragomand.upstream.messages_api.event_stream import EventStreamDecoder, Message, read_headers
from dragomand.upstream.messages_api.sse import TooLongError
from dragomand.upstream.messages_api.wire import UnreadableError
from hypothesis import given, settings
from hypothesis import strategies as st

Given = bool | tuple[int, bytes]

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
TEXTS = st.text(max_size=30).map(lambda text: (7, struct.pack(">H", len(text.encode())) + text.encode()))
BINARY = st.binary(max_size=40).map(lambda raw: (6, struct.pack(">H", len(raw)) + raw))
NUMBERS = st.one_of(
    st.tuples(st.just(2), st.integers(-128, 127).map(lambda n: struct.pack(">b", n))),
    st.tuples(st.just(3), st.integers(-(2**15), 2**15 - 1).map(lambda n: struct.pack(">h", n))),
    st.tuples(st.just(4), st.integers(-(2**31), 2**31 - 1).map(lambda n: struct.pack(">i", n))),
    st.tuples(st.sampled_from([5, 8]), st.integers(-(2**63), 2**63 - 1).map(lambda n: struct.pack(">q", n))),
    st.tuples(st.just(9), st.binary(min_size=16, max_size=16)),
)
SWITCHES = st.sampled_from([(0, b""), (1, b"")])
HEADERS = st.dictionaries(NAMES, TEXTS | BINARY | NUMBERS | SWITCHES, max_size=5)
MESSAGES = st.lists(st.tuples(HEADERS, st.binary(max_size=200)), min_size=1, max_size=6)


def written(headers: dict[str, tuple[int, bytes]], payload: bytes) -> bytes:
    """One message, written here and nowhere else."""
    packed = b""
    for name, (kind, value) in headers.items():
        packed += bytes([len(name.encode())]) + name.encode() + bytes([kind]) + value
    lengths = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    whole = lengths + struct.pack(">I", crc32(lengths)) + packed + payload
    return whole + struct.pack(">I", crc32(whole))


def read_at_once(data: bytes) -> list[Message]:
    return EventStreamDecoder().feed(data)


@given(MESSAGES, st.data())
@settings(max_examples=150, deadline=None)
def test_any_cut_of_the_bytes_gives_the_messages_that_amazons_own_reader_finds(
    messages: list[tuple[dict[str, tuple[int, bytes]], bytes]], data: st.DataObject
) -> None:
    whole = b"".join(written(*message) for message in messages)
    theirs = EventStreamBuffer()
    theirs.add_data(whole)
    expected = [(event.headers, event.payload) for event in theirs]
    assert [payload for _, payload in expected] == [payload for _, payload in messages]

    decoder = EventStreamDecoder()
    found: list[Message] = []
    at = 0
    while at < len(whole):
        size = data.draw(st.integers(1, len(whole) - at))
        found += decoder.feed(whole[at : at + size])
        at += size
    assert [(message.headers, message.payload) for message in found] == expected
    assert decoder.waiting == 0
    assert read_at_once(whole) == found


@given(MESSAGES, st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_is_never_taken_for_a_message(
    messages: list[tuple[dict[str, tuple[int, bytes]], bytes]], data: st.DataObject
) -> None:
    whole = b"".join(written(*message) for message in messages)
    honest = read_at_once(whole)
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = data.draw(st.integers(1, 255))
    damaged = whole[:at] + bytes([whole[at] ^ flipped]) + whole[at + 1 :]
    decoder = EventStreamDecoder()
    read: list[Message] = []
    failure: Exception | None = None
    try:
        for start in range(0, len(damaged), 7):
            read += decoder.feed(damaged[start : start + 7])
    except (UnreadableError, TooLongError) as wrong:
        failure = wrong
    assert failure is not None
    assert read == honest[: len(read)]
    assert len(read) < len(honest)


@given(MESSAGES, st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_cut_off_is_known_to_miss(
    messages: list[tuple[dict[str, tuple[int, bytes]], bytes]], data: st.DataObject
) -> None:
    parts = [written(*message) for message in messages]
    end = data.draw(st.integers(0, sum(map(len, parts)) - 1))
    decoder = EventStreamDecoder()
    found = decoder.feed(b"".join(parts)[:end])
    whole = sum(len(part) for part in parts[: len(found)])
    assert decoder.waiting == end - whole
    assert whole <= end < sum(map(len, parts[: len(found) + 1]))


@given(st.binary(min_size=12, max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_is_no_message(noise: bytes) -> None:
    total, _, checksum = struct.unpack_from(">III", noise)
    if crc32(noise[:8]) == checksum and total <= 300:
        return
    with pytest.raises((UnreadableError, TooLongError)):
        read_at_once(noise)


def test_a_message_longer_than_the_bound_is_refused_before_it_came() -> None:
    whole = written({}, b"x" * 100)
    with pytest.raises(TooLongError, match="116 bytes"):
        EventStreamDecoder(max_message_bytes=115).feed(whole[:12])
    assert EventStreamDecoder(max_message_bytes=116).feed(whole)[0].payload == b"x" * 100


@pytest.mark.parametrize("lengths", [(15, 0), (20, 8), (0, 0), (2**20, 2**20), (300_000, 200_000)])
def test_lengths_that_cannot_be(lengths: tuple[int, int]) -> None:
    prelude = struct.pack(">II", *lengths)
    with pytest.raises((UnreadableError, TooLongError)):
        EventStreamDecoder().feed(prelude + struct.pack(">I", crc32(prelude)))


@pytest.mark.parametrize(
    "data",
    [
        b"\x05ab",  # the name is cut off
        b"\x01a",  # no kind
        b"\x01a\x07\x00\x05ab",  # the text is cut off
        b"\x01a\x07\x00",  # its length is cut off
        b"\x01a\x04\x00",  # the number is cut off
        b"\x01a\x0a",  # no such kind
        b"\x01\xff\x00",  # the name is no UTF-8
        b"\x01a\x07\x00\x01\xff",  # the text is no UTF-8
    ],
)
def test_headers_that_make_no_sense(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        read_headers(data)


def test_headers_of_every_kind() -> None:
    data = b"".join(
        b"\x01" + name + value
        for name, value in {
            b"a": b"\x00",
            b"b": b"\x01",
            b"c": b"\x02\xff",
            b"d": b"\x03\x00\x02",
            b"e": b"\x04\x00\x00\x00\x03",
            b"f": b"\x05" + b"\x00" * 7 + b"\x04",
            b"g": b"\x06\x00\x02\xff\xfe",
            b"h": "\x07\x00\x02ä".encode(),
            b"i": b"\x08" + b"\x00" * 7 + b"\x05",
            b"j": b"\x09" + bytes(range(16)),
        }.items()
    )
    assert read_headers(data) == {
        "a": True, "b": False, "c": -1, "d": 2, "e": 3, "f": 4, "g": b"\xff\xfe", "h": "ä", "i": 5,
        "j": bytes(range(16)),
    }  # fmt: skip


def test_a_long_message_in_many_chunks_is_put_together_once() -> None:
    whole = written({}, b"x" * 1_000_000) + written({}, b"y")
    decoder = EventStreamDecoder()
    found = [message for at in range(0, len(whole), 1000) for message in decoder.feed(whole[at : at + 1000])]
    assert [message.payload for message in found] == [b"x" * 1_000_000, b"y"]
    assert decoder.waiting == 0
