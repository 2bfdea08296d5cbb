"""Bytes to messages and back, without I/O: two framings, told apart by the first byte.

*Headers*: `Content-Length: N\\r\\n\\r\\n` and N bytes, as LSP does. *Lines*: one JSON text a line.
A peer answers in the framing it was spoken to. Any split of the bytes gives the same messages and the same
errors.
"""

import re
from typing import Literal

from .errors import RpcError

Framing = Literal["headers", "lines"]
"""How messages are told apart on the wire."""

MAX_MESSAGE = 16 * 1024 * 1024
"""Longest message in bytes."""
MAX_MESSAGE_BEFORE_INITIALIZE = 1024 * 1024
"""Longest message in bytes that the daemon reads before it has answered `initialize`."""
MAX_HEADER = 4096
"""Longest header block in bytes."""

Frame = bytes | RpcError
"""One message, or what is wrong with it (`message_too_large`, or the fatal `bad_framing`)."""


class Decoder:
    """Splits a stream of bytes into messages.

    An over-long message is reported once and skipped, and what follows is read as usual. Bytes that cannot be
    framed at all (`bad_framing`) end the stream: `broken` is set and further bytes are ignored.
    """

    def __init__(self, *, max_bytes: int = MAX_MESSAGE, framing: Framing | None = None) -> None:
        """Read messages of at most *max_bytes*; *framing* None is decided by the first byte."""
        self.max_bytes = max_bytes
        self.framing: Framing | None = framing
        self.broken = False
        self._parts: list[bytes] = []
        self._held = 0
        self._need = 0
        self._skipping = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the messages that they complete, in order."""
        if self.broken or not data:
            return []
        if self.framing is None:
            stripped = data.lstrip(b" \t\r\n")
            if not stripped:
                return []
            self.framing = "lines" if stripped[:1] in (b"{", b"[") else "headers"
            data = stripped
        if self.framing == "lines":
            return self._feed_lines(data)
        return self._feed_headers(data)

    # -- lines

    def _feed_lines(self, data: bytes) -> list[Frame]:
        if b"\n" not in data:
            self._hold_line(data)
            return self._overlong() if self._held > self.max_bytes else []
        lines = data.split(b"\n")
        frames: list[Frame] = []
        rest = lines.pop()
        if self._held or self._skipping:
            first = b"".join([*self._parts, lines[0]])
            self._parts, self._held = [], 0
            if self._skipping:
                self._skipping = False
                del lines[0]
            else:
                lines[0] = first
        limit = self.max_bytes
        for line in lines:
            if len(line) > limit:
                frames.append(too_large(limit))
            elif line and not line.isspace():
                frames.append(line)
        if rest:
            self._hold_line(rest)
            if self._held > limit:
                frames += self._overlong()
        return frames

    def _hold_line(self, data: bytes) -> None:
        if not self._skipping:
            self._parts.append(data)
            self._held += len(data)

    def _overlong(self) -> list[Frame]:
        self._parts, self._held, self._skipping = [], 0, True
        return [too_large(self.max_bytes)]

    # -- headers

    def _feed_headers(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        end = len(data)
        while at < end and not self.broken:
            need = self._need
            if not need:
                at = self._read_header(data, at, frames)
                continue
            body = data[at : at + need]
            at += len(body)
            self._need = need - len(body)
            if not self._skipping:
                self._parts.append(body)
            if not self._need:
                if not self._skipping:
                    frames.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
                self._parts, self._skipping = [], False
        return frames

    def _read_header(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Read one header block from *at*; return where the body (or the missing rest) begins."""
        if not self._parts:
            usual = _USUAL_HEADER(data, at)
            if usual and int(usual[1]) <= self.max_bytes:
                self._need = int(usual[1])
                return usual.end()
        held = self._parts[0] if self._parts else b""
        block = held + data[at : at + MAX_HEADER + len(_END)]
        end = block.find(_END)
        if end < 0 and len(block) < MAX_HEADER + len(_END) and _may_be_header(block):
            self._parts = [block]
            return len(data)
        self._parts = []
        size = _content_length(block[:end]) if 0 <= end <= MAX_HEADER else None
        if size is None:
            self.broken = True
            frames.append(_bad_framing())
            return len(data)
        if size > self.max_bytes:
            frames.append(too_large(self.max_bytes, size))
            self._skipping = True
        elif size == 0:
            frames.append(b"")
        self._need = size
        return at + end + len(_END) - len(held)


_END = b"\r\n\r\n"
_NAME = re.compile(rb"[!-9;-~]+").fullmatch
_USUAL_HEADER = re.compile(rb"Content-Length: ([1-9][0-9]{0,14})\r\n\r\n").match
"""What nearly every program writes, and nothing else, with a body."""


def encode_frame(message: bytes, framing: Framing) -> bytes:
    """Frame one message."""
    if framing == "lines":
        return message + b"\n"
    return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)


def too_large(limit: int, actual: int | None = None) -> RpcError:
    """Make the error for a message of *actual* bytes (None: not counted) where *limit* are allowed."""
    size = f"{actual} bytes" if actual is not None else f"more than {limit} bytes"
    text = f"The message has {size}; at most {limit} are allowed."
    return RpcError("message_too_large", text, limit=limit, actual=actual)


def _bad_framing() -> RpcError:
    text = (
        "Expected a `Content-Length: N` header with CR LF CR LF after it, or one JSON text a line; "
        "got neither, so the connection is closed."
    )
    return RpcError("bad_framing", text, reason="no usable Content-Length header")


def _may_be_header(block: bytes) -> bool:
    """Tell early what cannot become a header, so that a wrong client is told at once.

    False only for what `_content_length` would refuse however it went on.
    """
    line, ended, _ = block.partition(b"\r\n")
    name, colon, value = line.partition(b":")
    return bool(_NAME(name)) and b"\n" not in value and bool(colon or not ended)


def _content_length(block: bytes) -> int | None:
    size: int | None = None
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not _NAME(name) or b"\n" in value:
            return None
        if name.lower() == b"content-length":
            digits = value.strip(b" \t")
            if size is not None or not digits.isdigit() or len(digits) > 15:
                return None
            size = int(digits)
    return size
