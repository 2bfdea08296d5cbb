"""Framing: told apart by the first byte, any split gives the same, and what is wrong is said once."""

import pytest
from dragoman_protocol.codec import MAX_HEADER, Decoder, Framing, encode_frame, too_large
from dragoman_protocol.errors import RpcError, SizeData


def feed(
    data: bytes, *, size: int = 0, framing: Framing | None = None, max_bytes: int = 100
) -> list[bytes | str]:
    """Frames, errors by their kind; fed in pieces of *size* bytes (0: at once)."""
    decoder = Decoder(max_bytes=max_bytes, framing=framing)
    step = size or max(1, len(data))
    frames = [frame for at in range(0, len(data), step) for frame in decoder.feed(data[at : at + step])]
    return [frame.kind if isinstance(frame, RpcError) else frame for frame in frames]


def header(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


SIZES = pytest.mark.parametrize("size", [0, 1, 2, 7, 64])


@SIZES
@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (b"", []),
        (b'{"a":1}\n[2]\n', [b'{"a":1}', b"[2]"]),
        (b'\r\n \t\n{"a":1}\r\n\n  \n[2]\n3\nnonsense\n', [b'{"a":1}\r', b"[2]", b"3", b"nonsense"]),
        (b'{"a":1}\n{"unfinished"', [b'{"a":1}']),
        (header(b"{}") + header(b"[1]"), [b"{}", b"[1]"]),
        (b"\n " + header(b"{}"), [b"{}"]),
        (header(b"") + header(b"{}"), [b"", b"{}"]),
        (b"Content-Type: application/vscode-jsonrpc; charset=utf-8\r\ncontent-length:2\r\n\r\n{}", [b"{}"]),
        (b"CONTENT-LENGTH:\t2 \r\nX:\r\n\r\n{}Content-Length: 3\r\n\r\n{}", [b"{}"]),
        (header(b"not json\r\n\r\n"), [b"not json\r\n\r\n"]),
        (b"Content-Length: 02\r\n\r\n{}", [b"{}"]),
    ],
)
def test_messages(data: bytes, frames: list[bytes], size: int) -> None:
    assert feed(data, size=size) == frames


@SIZES
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"hello\r\n\r\n{}",
        b"hello\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Length : 2\r\n\r\n{}",
        b"Content-Length: 2\n\n{}" + header(b"{}"),
        b"Content-Type: x\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"Content-Length: -2\r\n\r\n{}",
        b"Content-Length: 2x\r\n\r\n{}",
        b"Content-Length: \r\n\r\n{}",
        b"Content-Length: 1234567890123456\r\n\r\n{}",
        b"Content-Length: 2\r\nTwo Words: 1\r\n\r\n{}",
        b"Content-Length: 2\r\nX: a\nb\r\n\r\n{}",
        b": 2\r\n\r\n{}",
        b"\xef\xbb\xbf{}\n",
        b"X: " + b"x" * MAX_HEADER + b"\r\n\r\n",
        b"X: " + b"x" * (MAX_HEADER + 1000),
    ],
)
def test_bytes_that_cannot_be_framed_end_the_stream_at_once(data: bytes, size: int) -> None:
    assert feed(data, size=size) == ["bad_framing"]


def test_wrong_protocol_is_told_before_the_first_line_ends() -> None:
    decoder = Decoder()
    assert [type(frame) for frame in decoder.feed(b"GET /")] == [RpcError]
    assert decoder.broken
    assert decoder.feed(header(b"{}")) == []


@SIZES
def test_message_before_a_broken_header_is_kept(size: int) -> None:
    assert feed(header(b"{}") + b"\r\nContent-Length: 2\r\n\r\n{}", size=size) == [b"{}", "bad_framing"]


@pytest.mark.parametrize("size", [0, 1, 1000, MAX_HEADER, MAX_HEADER + 1, MAX_HEADER + 3])
def test_longest_header(size: int) -> None:
    start = b"Content-Length: 2\r\nX: "
    longest = start + b"x" * (MAX_HEADER - len(start)) + b"\r\n\r\n{}"
    assert feed(longest, size=size) == [b"{}"]
    assert feed(start + b"x" + longest[len(start) :], size=size) == ["bad_framing"]


@SIZES
def test_over_long_message_is_reported_once_and_skipped(size: int) -> None:
    longest, longer = b"[" + b"1" * 98 + b"]", b"[" + b"1" * 99 + b"]"
    assert feed(longest + b"\n" + longer + b"\n{}\n", size=size) == [longest, "message_too_large", b"{}"]
    assert feed(header(longest) + header(longer) + header(b"{}"), size=size) == [
        longest,
        "message_too_large",
        b"{}",
    ]


def test_over_long_message_is_not_kept_in_memory() -> None:
    decoder = Decoder(max_bytes=100)
    decoder.feed(b"[")
    told = [frame for _ in range(50) for frame in decoder.feed(b"1" * 90)]
    assert len(told) == 1
    assert decoder.feed(b"]\n{}\n") == [b"{}"]
    decoder = Decoder(max_bytes=100)
    (error,) = decoder.feed(b"Content-Length: 999999999999999\r\n\r\n")
    assert isinstance(error, RpcError)
    assert isinstance(error.data, SizeData)
    assert (error.data.limit, error.data.actual) == (100, 999999999999999)
    assert [decoder.feed(b"x" * 1000) for _ in range(50)] == [[]] * 50


def test_bound_may_be_raised_between_messages() -> None:
    for framing, frame in (("lines", b"[" + b"1" * 150 + b"]\n"), ("headers", header(b"1" * 150))):
        decoder = Decoder(max_bytes=100, framing="lines" if framing == "lines" else "headers")
        assert len(decoder.feed(frame)) == 1
        decoder.max_bytes = 200
        assert isinstance(decoder.feed(frame)[0], bytes)


def test_framing_can_be_given() -> None:
    assert feed(b"nonsense\n", framing="lines") == [b"nonsense"]
    assert feed(b"{}\n", framing="headers") == ["bad_framing"]
    decoder = Decoder()
    decoder.feed(b" \n")
    assert decoder.framing is None
    decoder.feed(b"{")
    assert decoder.framing == "lines"


def test_frames() -> None:
    assert encode_frame(b"{}", "lines") == b"{}\n"
    assert encode_frame("ü".encode(), "headers") == b"Content-Length: 2\r\n\r\n\xc3\xbc"
    assert str(too_large(5)) == "The message has more than 5 bytes; at most 5 are allowed."
    assert str(too_large(5, 7)) == "The message has 7 bytes; at most 5 are allowed."
