"""HTTP/1.1 on one connection: requests in, bytes out. It knows nothing of the Messages API.

Keep-alive, pipelining (one answer at a time, in order), bodies by length or in chunks,
`Expect: 100-continue`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, cast

_MAX_HEAD = 64 * 1024
_MAX_WAITING = 1024 * 1024
_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 413: "Payload Too Large",
    422: "Unprocessable Entity", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 529: "Overloaded",
}  # fmt: skip


class HttpRequest(NamedTuple):
    """One request. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    too_large: bool = False
    """The body was longer than allowed and was not kept."""


Answer = bytes | Coroutine[Any, Any, None]
"""The bytes of a whole response, or a coroutine that writes one."""

Serve = Callable[[HttpRequest, "Connection"], Answer]


def head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """Return a response's head, the empty line included."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return *data* as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


class _BadRequestError(Exception):
    """What was read is not HTTP/1.1; the connection cannot be used any longer."""


class _Head(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    length: int | None
    """None: the body comes in chunks."""


class Connection(asyncio.Protocol):
    """One client's connection; owns the task of the answer that is being written."""

    def __init__(self, serve: Serve, owner: set[Connection], max_body: int) -> None:
        """Answer each request with *serve*; be in *owner* while connected."""
        self._serve = serve
        self._owner = owner
        self._max_body = max_body
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._body = bytearray()
        self._body_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_writable = True
        self._reading = True
        self._last = False
        self._lost = asyncio.Event()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._owner.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the answer that is being written."""
        self._transport = None
        self._owner.discard(self)
        self._writable.set()
        self._lost.set()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Take bytes; answer what is complete."""
        self._buffer += data
        self._pump()

    def pause_writing(self) -> None:
        """Stop answering until the client reads on."""
        self._is_writable = False
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_writable = True
        self._writable.set()
        self._pump()

    # what an answer may do

    @property
    def closed(self) -> bool:
        """Whether the client is gone or going."""
        return self._transport is None or self._transport.is_closing()

    @property
    def answering(self) -> bool:
        """Whether an answer is being written."""
        return self._task is not None

    async def write(self, data: bytes) -> None:
        """Send *data* and wait until the client keeps up. Raises `ConnectionResetError` when it is gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)
        if not self._is_writable:  # the usual case costs no wait
            await self._writable.wait()

    def close(self) -> None:
        """Close the connection once what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        if self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    async def aclose(self) -> None:
        """End the connection and wait for the end of the answer's task."""
        task = self._task
        self.abort()
        await self._lost.wait()
        if task is not None:
            await asyncio.wait([task])

    # requests

    def _pump(self) -> None:
        """Answer complete requests, as long as no answer is running and the client reads."""
        try:
            while self._task is None and not self._last and self._is_writable and not self.closed:
                request = self._next_request()
                if request is None:
                    break
                self._answer(request)
        except _BadRequestError as wrong:
            self._last = True
            self._refuse(str(wrong))
        self._throttle()

    def _throttle(self) -> None:
        """Read on only while what waits is within its bound."""
        if self._transport is None or self._transport.is_closing():
            return
        busy = self._task is not None or not self._is_writable
        wanted = not (busy and len(self._buffer) > _MAX_WAITING)
        if wanted != self._reading:
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _refuse(self, text: str) -> None:
        if self._transport is not None:
            error = f'{{"type":"invalid_request_error","message":"{text}"}}'
            body = f'{{"type":"error","error":{error}}}'.encode()
            length = str(len(body))
            self._transport.write(head(400, [("content-length", length), ("connection", "close")]) + body)
            self._transport.close()

    def _answer(self, request: HttpRequest) -> None:
        self._last = request.headers.get("connection", "").lower() == "close"
        answer = self._serve(request, self)
        if isinstance(answer, bytes):
            if self._transport is not None:
                self._transport.write(answer)
                if self._last:
                    self._transport.close()
            return
        self._task = asyncio.get_running_loop().create_task(self._run(answer))

    async def _run(self, answer: Coroutine[Any, Any, None]) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                await answer
        finally:
            self._task = None
        if self._last:
            self.close()
        self._pump()

    def _next_request(self) -> HttpRequest | None:
        if self._head is None:
            self._head = self._next_head()
            if self._head is None:
                return None
        parsed = self._head
        done = self._read_chunks() if parsed.length is None else self._read_length(parsed.length)
        if not done:
            return None
        path, _, query = parsed.target.partition("?")
        too_large = self._body_bytes > self._max_body
        body = b"" if too_large else bytes(self._body)
        self._head, self._body, self._body_bytes = None, bytearray(), 0
        return HttpRequest(parsed.method, path, query, parsed.headers, body, too_large)

    def _next_head(self) -> _Head | None:
        while self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end > _MAX_HEAD or (end < 0 and len(self._buffer) > _MAX_HEAD):
            raise _BadRequestError("the request's head is too long")
        if end < 0:
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _BadRequestError("not an HTTP/1.1 request line")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise _BadRequestError("a header line without a colon")
            headers[name.lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return _Head(words[0], words[1], headers, _body_length(headers))

    def _read_length(self, length: int) -> bool:
        part = self._buffer[: length - self._body_bytes]
        self._keep(part)
        del self._buffer[: len(part)]
        return self._body_bytes == length

    def _read_chunks(self) -> bool:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            try:
                size = int(self._buffer[:end].split(b";")[0], 16)
            except ValueError:
                size = -1
            if not 0 <= size <= self._max_body:
                raise _BadRequestError("a chunk without its size, or one that is too long")
            if len(self._buffer) < end + 2 + size + 2:
                return False
            if self._buffer[end + 2 + size : end + 4 + size] != b"\r\n":
                raise _BadRequestError("a chunk longer than its size (or trailers, which are not taken)")
            self._keep(self._buffer[end + 2 : end + 2 + size])
            del self._buffer[: end + 4 + size]
            if size == 0:
                return True
        return False

    def _keep(self, part: bytearray) -> None:
        """Count the bytes of the body, and hold them up to the bound."""
        self._body_bytes += len(part)
        if self._body_bytes <= self._max_body:
            self._body += part
        else:
            self._body.clear()


def _body_length(headers: dict[str, str]) -> int | None:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return None
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise _BadRequestError("content-length is not a number")
    return int(length)
