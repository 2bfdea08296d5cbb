"""The bytes of HTTP/1.1, as far as one answer needs them. Pure.

What is ambiguous is refused, never guessed at: two lengths, a length beside chunks, a folded header.
"""

import re
from collections.abc import Callable, Mapping

MAX_HEAD = 65_536
"""Bytes of an answer's status line and headers."""
MAX_LINE = 4096
"""Bytes of the line before a chunk, and of one after the last."""
MAX_TRAILERS = 64
"""Lines after the last chunk; they are left out."""

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?").fullmatch
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*").fullmatch
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?").fullmatch
_LENGTH = re.compile(r"[0-9]{1,15}").fullmatch
_SMALL = {b"%x" % size: size for size in range(1, 4096)}
_UNTIL_END = -1


class BadAnswerError(Exception):
    """What came is no HTTP/1.1 answer."""


class BadHeaderError(ValueError):
    """A header cannot be sent."""


class HttpAnswer:
    """Takes the bytes of one answer as they come."""

    __slots__ = (
        "_after_chunk", "_begun", "_body", "_chunked", "_head", "_left", "_rest", "_trailers", "complete",
        "keep", "status",
    )  # fmt: skip

    def __init__(self, head: Callable[[int, Mapping[str, str]], None], body: Callable[[bytes], None]) -> None:
        """Call *head* once, with the status and the headers by their lower-case names; then *body*."""
        self._head = head
        self._body = body
        self._rest = b""
        """The beginning of something whose end has not come."""
        self._begun = False
        self._chunked = False
        self._left = 0
        """Bytes that are still to come of the body, or of a chunk."""
        self._after_chunk = False
        self._trailers = 0
        """Counts from 1 once the last chunk has come."""
        self.status = 0
        self.keep = False
        """Whether the connection can serve another request after this answer."""
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Take *data*. Raises `BadAnswerError`."""
        if not self._begun:
            data = self._feed_head(data)
            if not self._begun:
                return
        if self._chunked:
            self._feed_chunks(data)
        else:
            self._feed_plain(data)

    def end(self) -> None:
        """The connection has ended. Raises `EOFError` if something was still to come."""
        if self._begun and self._left == _UNTIL_END:
            self.complete = True
        if not self.complete:
            raise EOFError("the connection ended")

    # -- the head

    def _feed_head(self, data: bytes) -> bytes:
        """Read the head, if it is whole, and return what comes after it."""
        data = self._rest + data
        while not self._begun:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD:
                if len(data) > MAX_HEAD:
                    raise BadAnswerError(f"its headers have more than {MAX_HEAD} bytes")
                self._rest = data
                return b""
            self._read_head(data[:end])
            data = data[end + 4 :]
        self._rest = b""
        return data

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        found = _STATUS(first)
        if found is None:
            raise BadAnswerError(f"it begins with {first[:100]!r}")
        status = int(found[2])
        headers: dict[str, str] = {}
        for line in lines:
            field = _FIELD(line)
            if field is None:
                raise BadAnswerError(f"{line[:100]!r} is no header")
            name, value = field[1].lower().decode(), field[2].decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if status < 200 and status != 101:
            return  # the answer proper follows
        self.status = status
        self._measure(headers)
        self.keep = found[1] == b"1" and self._left != _UNTIL_END and not _says_close(headers)
        self._begun = True
        self._head(status, headers)

    def _measure(self, headers: Mapping[str, str]) -> None:
        """Note how the end of the body is told."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if self.status in (101, 204, 304):
            self.complete = True
        elif coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise BadAnswerError(f"transfer-encoding {coding!r} with content-length {length!r}")
            self._chunked = True
        elif length is None:
            self._left = _UNTIL_END
        elif _LENGTH(length) is None:
            raise BadAnswerError(f"content-length is {length!r}")
        else:
            self._left = int(length)
            self.complete = not self._left

    # -- the body

    def _feed_plain(self, data: bytes) -> None:
        if self._left == _UNTIL_END:
            if data:
                self._body(data)
            return
        if len(data) > self._left:
            self.keep = False  # there is more than was announced
            data = data[: self._left]
        self._left -= len(data)
        self.complete = not self._left
        if data:
            self._body(data)

    def _feed_chunks(self, data: bytes) -> None:
        if not (self._rest or self._left or self._after_chunk or self._trailers):
            end = data.find(b"\r\n", 0, 6)
            if _SMALL.get(data[:end]) == len(data) - end - 4 and data.endswith(b"\r\n"):
                self._body(data[end + 2 : -2])  # one whole chunk, as nearly always
                return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        parts: list[bytes] = []
        at = self._take_chunks(data, parts)
        if self.complete:
            self.keep = self.keep and at == len(data)
        elif at < len(data):
            if len(data) - at > MAX_LINE:
                raise BadAnswerError("a line between chunks has no end")
            self._rest = data[at:]
        if parts:
            self._body(parts[0] if len(parts) == 1 else b"".join(parts))

    def _take_chunks(self, data: bytes, parts: list[bytes]) -> int:
        """Put what *data* has of the body into *parts*; return up to where it was understood."""
        at = 0
        while not self.complete:
            if self._left:
                part = data[at : at + self._left]
                if not part:
                    break
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                if self._left:
                    break
                self._after_chunk = True
            end = data.find(b"\r\n", at)
            if end < 0:
                break
            self._take_line(data[at:end])
            at = end + 2
        return at

    def _take_line(self, line: bytes) -> None:
        if self._after_chunk:
            if line:
                raise BadAnswerError("a chunk is longer than it says")
            self._after_chunk = False
        elif self._trailers:
            self._trailers += 1
            self.complete = not line
            if self._trailers > MAX_TRAILERS:
                raise BadAnswerError(f"there are more than {MAX_TRAILERS} lines after the last chunk")
        else:
            size = _SIZE(line)
            if size is None:
                raise BadAnswerError(f"{line[:100]!r} is no size of a chunk")
            self._left = int(size[1], 16)
            self._trailers = 0 if self._left else 1


def request_head(method: str, target: str, host: str, headers: Mapping[str, str], length: int) -> bytes:
    """Return the head of a request whose body has *length* bytes. Raises `BadHeaderError`."""
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1 or "\0" in head:
        raise BadHeaderError("a header of the request has a line break in it")
    return f"{head}\r\n\r\n".encode("latin-1")


def _says_close(headers: Mapping[str, str]) -> bool:
    said = headers.get("connection")
    return said is not None and "close" in [each.strip().lower() for each in said.split(",")]
