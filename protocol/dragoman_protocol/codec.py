"""Bytes to messages and back, without I/O: two framings, told apart by the first byte.

*Headers*: `Content-Length: N\\r\\n\\r\\n` and N bytes, as LSP does. *Lines*: one JSON text a line.
A peer answers in the framing it was spoken to. Any split of the bytes gives the same messages.
"""

from typing import Literal

from .errors import RpcError

Framing = Literal["headers", "lines"]

MAX_MESSAGE = 16 * 1024 * 1024
"""Longest message in bytes (before `initialize`, see `peer`, 1 MiB)."""
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
                frames.append(_too_large(limit, len(line)))
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
        actual = self._held
        self._parts, self._held, self._skipping = [], 0, True
        return [_too_large(self.max_bytes, actual)]

    # -- headers

    def _feed_headers(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        end = len(data)
        while at < end and not self.broken:
            if self._need:
                take = min(self._need, end - at)
                if not self._skipping:
                    self._parts.append(data[at : at + take])
                at += take
                self._need -= take
                if not self._need:
                    if not self._skipping:
                        frames.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
                    self._parts, self._skipping = [], False
                continue
            at = self._read_header(data, at, frames)
        return frames

    def _read_header(self, data: bytes, at: int, frames: list[Frame]) -> int:
        """Read one header block from *at*; return where the body (or the missing rest) begins."""
        held = b"".join(self._parts)
        block = held + data[at : at + MAX_HEADER + 4] if held else data[at : at + MAX_HEADER + 4]
        end = block.find(b"\r\n\r\n")
        if end < 0:
            if len(block) > MAX_HEADER or not _may_be_header(block):
                self._break(frames, block)
                return len(data)
            self._parts = [block]
            return len(data)
        self._parts = []
        size = _content_length(block[:end])
        if size is None:
            self._break(frames, block)
            return len(data)
        if size > self.max_bytes:
            frames.append(_too_large(self.max_bytes, size))
            self._skipping = True
        elif size == 0:
            frames.append(b"")
        self._need = size
        return at + end + 4 - len(held)

    def _break(self, frames: list[Frame], block: bytes) -> None:
        self.broken = True
        self._parts = []
        seen = block[:40].decode("ascii", "backslashreplace")
        frames.append(
            RpcError("bad_framing", f"Expected a `Content-Length` header or a JSON text on one line; got {seen!r}. "
                     "The connection is closed.", reason="no usable Content-Length header")
        )  # fmt: skip


def encode_frame(message: bytes, framing: Framing) -> bytes:
    """Frame one message."""
    if framing == "lines":
        return message + b"\n"
    return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)


def _too_large(limit: int, actual: int) -> RpcError:
    return RpcError("message_too_large", f"The message has {actual} bytes or more; at most {limit} are allowed.",
                    limit=limit, actual=actual)  # fmt: skip


def _may_be_header(block: bytes) -> bool:
    """Tell early that this cannot become a header, so that a wrong client is told at once."""
    line, ended, _ = block.partition(b"\r\n")
    name, colon, _ = line.partition(b":")
    if not all(33 <= byte <= 126 for byte in name):
        return False
    return bool(colon) or not ended


def _content_length(block: bytes) -> int | None:
    size: int | None = None
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        if name.strip().lower() == b"content-length":
            digits = value.strip()
            if size is not None or not digits.isdigit() or len(digits) > 15:
                return None
            size = int(digits)
    return size
