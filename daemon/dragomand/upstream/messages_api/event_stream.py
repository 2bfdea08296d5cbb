"""Amazon's binary event stream (`application/vnd.amazon.eventstream`) out of raw chunks. Pure.

A message is: its length, the length of its headers, a checksum of those eight bytes; headers; payload; a
checksum of everything before. Numbers are big-endian, checksums CRC-32.
"""

import struct
from typing import NamedTuple
from zlib import crc32

from dragomand.upstream.messages_api.sse import MAX_EVENT_BYTES, TooLongError
from dragomand.upstream.messages_api.wire import UnreadableError

_PRELUDE = struct.Struct(">III")
_CHECKSUM = struct.Struct(">I")
_LEAST = _PRELUDE.size + _CHECKSUM.size
_MOST_HEADERS = 128 * 1024
_KINDS: dict[int, struct.Struct | bool] = {
    0: True,
    1: False,
    2: struct.Struct(">b"),
    3: struct.Struct(">h"),
    4: struct.Struct(">i"),
    5: struct.Struct(">q"),
    8: struct.Struct(">q"),
    9: struct.Struct(">16s"),
}
_BYTES, _TEXT = 6, 7

Value = bool | int | bytes | str
"""Of a header: a moment is its milliseconds, a UUID its bytes."""


class Message(NamedTuple):
    """One message whose checksums are right."""

    headers: dict[str, Value]
    payload: bytes


class EventStreamDecoder:
    """Takes chunks as they come and gives the messages that they complete."""

    __slots__ = ("_headers", "_limit", "_missing", "_rest", "_seen")

    def __init__(self, max_message_bytes: int = MAX_EVENT_BYTES) -> None:
        """Refuse messages of more than *max_message_bytes*."""
        self._rest = bytearray()
        self._missing = 0
        self._limit = max_message_bytes
        self._seen = b""
        self._headers: dict[str, Value] = {}

    @property
    def waiting(self) -> int:
        """How many bytes wait for the rest of their message; not 0 at the end means that it was cut off."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> list[Message]:
        """Return the messages that *chunk* completes.

        Raises `UnreadableError` (a checksum is wrong, or what it covers is nonsense) and `TooLongError`; then
        nothing more can be read.
        """
        if self._rest:
            self._rest += chunk
            if len(chunk) < self._missing:
                self._missing -= len(chunk)
                return []
            chunk = bytes(self._rest)
            self._rest = bytearray()
        messages = []
        at, size = 0, len(chunk)
        self._missing = _PRELUDE.size - size
        while size - at >= _PRELUDE.size:
            total, header_bytes = self._lengths(chunk, at)
            if size - at < total:
                self._missing = total - (size - at)
                break
            messages.append(self._message(chunk, at, at + total, header_bytes))
            at += total
            self._missing = _PRELUDE.size - (size - at)
        self._rest += chunk[at:]
        return messages

    def _lengths(self, data: bytes, at: int) -> tuple[int, int]:
        total, header_bytes, checksum = _PRELUDE.unpack_from(data, at)
        if crc32(data[at : at + 8]) != checksum:
            raise UnreadableError("a message of the event stream begins with a wrong checksum")
        if total > self._limit or header_bytes > _MOST_HEADERS:
            raise TooLongError(f"a message of the event stream has {total} bytes, {header_bytes} of headers")
        if header_bytes + _LEAST > total:
            raise UnreadableError("a message of the event stream is shorter than its headers")
        return total, header_bytes

    def _message(self, data: bytes, at: int, end: int, header_bytes: int) -> Message:
        end -= _CHECKSUM.size
        if crc32(data[at:end]) != _CHECKSUM.unpack_from(data, end)[0]:
            raise UnreadableError("a message of the event stream has a wrong checksum")
        start = at + _PRELUDE.size
        body = start + header_bytes
        headers = data[start:body]
        if headers != self._seen:  # those of one stream are nearly always the same
            self._headers, self._seen = read_headers(headers), headers
        return Message(self._headers, data[body:end])


def read_headers(data: bytes) -> dict[str, Value]:
    """Return the headers in *data*. Raises `UnreadableError`."""
    found: dict[str, Value] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode()
            value, at = _value(data, data[name_end], name_end + 1)
            found[name] = value
    except (IndexError, struct.error, UnicodeDecodeError):
        raise UnreadableError("the headers of a message of the event stream are cut off") from None
    return found


def _value(data: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind in (_BYTES, _TEXT):
        start = at + 2
        end = start + int.from_bytes(data[at:start], "big")
        if end > len(data) or start > len(data):
            raise IndexError
        raw = data[start:end]
        return (raw if kind == _BYTES else raw.decode()), end
    form = _KINDS.get(kind)
    if form is None:
        raise UnreadableError(f"a header of the event stream is of the unknown kind {kind}")
    if isinstance(form, bool):
        return form, at
    value: int | bytes = form.unpack_from(data, at)[0]
    return value, at + form.size
