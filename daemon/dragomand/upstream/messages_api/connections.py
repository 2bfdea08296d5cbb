"""Connections to the API that are kept and used again; an answer's bytes go straight to who reads it.

An answer needs no task, no buffer and no wake-up of its own: what a read of the socket brought is read to its
end in the same turn of the event loop. Only for a proxy is there another way (`proxied`).
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal, Protocol
from urllib.parse import urlsplit

from dragomand.upstream.messages_api.http import HttpAnswer, request_head

TAIL_S = 0.05
"""How long, in seconds, the end of an answer may take whose last word has come. A connection that is not free
by then is closed."""
_NEXT_ADDRESS_S = 0.25
"""After so long another address of the host is tried beside the first (RFC 8305)."""

Origin = tuple[str, str, int]
"""Scheme, host, port."""


class Reader(Protocol):
    """Who reads an answer. Its methods return at once; what they raise ends the call."""

    @property
    def state(self) -> Literal["reading", "whole", "broken"]:
        """`whole`: nothing more is needed; `broken`: nothing more is wanted, the connection is of no use."""

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the status and the headers, by their lower-case names."""

    def body(self, data: bytes) -> None:
        """Take what came of the body."""


class Http(Protocol):
    """Makes calls."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, reader: Reader) -> None:
        """Send *body*, and let *reader* read the answer until it has enough, or it is complete.

        Raises `OSError`, `EOFError` (it was broken off), `BadAnswerError`, `BadHeaderError`.
        Cancelled, it breaks the call off.
        """

    async def close(self) -> None:
        """Close every connection; what is still being answered is broken off."""


class Connections:
    """Keeps connections (`Http`)."""

    def __init__(self, *, most: int, connect_timeout_s: float, keep_s: float) -> None:
        """Have at most *most* at a time, keep an idle one *keep_s* seconds. Nothing is connected yet."""
        self._most = most
        self._connect_timeout_s = connect_timeout_s
        self._keep_s = keep_s
        self._all: set[_Connection] = set()
        self._connecting = 0
        self._idle: dict[Origin, dict[_Connection, float]] = {}
        """By origin, the one that was used last at the end; with the time at which it is closed."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._origins: dict[str, tuple[Origin, str, str]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._all)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, reader: Reader) -> None:
        """Make a call; see `Http.post`."""
        origin, host, target = self._taken_apart(url)
        request = request_head("POST", target, host, headers, len(body)) + body
        found = None if self._waiting else self._take_idle(origin)
        connection = found or await self._connect(origin)
        await connection.exchange(request, reader)

    async def close(self) -> None:
        """Close everything; see `Http.close`."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._all):
            connection.abort()
        while self._waiting:
            self._wake()

    # -- taking one

    def _taken_apart(self, url: str) -> tuple[Origin, str, str]:
        """Return origin, `host` header and target of *url*; there are few different ones."""
        known = self._origins.get(url)
        if known is None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} is no http or https URL")
            usual = 443 if parts.scheme == "https" else 80
            port = usual if parts.port is None else parts.port
            name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            host = name if port == usual else f"{name}:{port}"
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            if len(self._origins) >= 64:
                self._origins.clear()
            known = self._origins[url] = ((parts.scheme, parts.hostname, port), host, target)
        return known

    def _take_idle(self, origin: Origin) -> "_Connection | None":
        idle = self._idle.get(origin)
        while idle:
            connection, _ = idle.popitem()
            if connection.usable:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> "_Connection":
        while not self._closed:
            found = self._take_idle(origin)
            if found is not None:
                return found
            if len(self._all) + self._connecting < self._most:
                break
            if not self._close_one_idle():
                await self._wait()
        if self._closed:
            raise ConnectionError("the daemon is stopping")
        self._connecting += 1
        try:
            return await self._connected(origin)
        finally:
            self._connecting -= 1
            if self._waiting and len(self._all) + self._connecting < self._most:
                self._wake()

    def _close_one_idle(self) -> bool:
        """Make room by closing one that waits for calls of another origin; whether there was one."""
        for idle in self._idle.values():
            if idle:
                connection = next(iter(idle))
                del idle[connection]
                self._all.discard(connection)
                connection.abort()
                return True
        return False

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._wake()  # it was our turn: now it is somebody else's
            raise

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _connected(self, origin: Origin) -> "_Connection":
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        tls = await self._trust() if scheme == "https" else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, origin, self._freed, self._lost),
                    sock=await _socket_to(host, port),
                    ssl=tls,
                    server_hostname=host if tls is not None else None,
                )
        except TimeoutError:
            raise TimeoutError(f"there was no connection within {self._connect_timeout_s:g} s") from None
        self._all.add(connection)
        if self._closed:
            connection.abort()
            raise ConnectionError("the daemon is stopping")
        return connection

    async def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            # It reads the certificates of the system: not on the loop.
            self._tls = await asyncio.to_thread(_system_trust)
        return self._tls

    # -- giving it back

    def _freed(self, connection: "_Connection") -> None:
        now = asyncio.get_running_loop().time()
        self._idle.setdefault(connection.origin, {})[connection] = now + self._keep_s
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._keep_s, self._close_old)
        if self._waiting:
            self._wake()

    def _lost(self, connection: "_Connection") -> None:
        self._all.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.origin]
        if self._waiting:
            self._wake()

    def _close_old(self) -> None:
        """Close those whose time is over, and come again when the next one's is."""
        loop = asyncio.get_running_loop()
        self._sweep = None
        now, due = loop.time(), []
        for idle in list(self._idle.values()):
            for connection, until in list(idle.items()):
                if until <= now:
                    del idle[connection]
                    connection.close()
                else:
                    due.append(until)
        if due:
            self._sweep = loop.call_at(min(due), self._close_old)


class _Connection(asyncio.Protocol):
    """One connection, and the call on it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        origin: Origin,
        freed: Callable[["_Connection"], None],
        lost: Callable[["_Connection"], None],
    ) -> None:
        self.origin = origin
        self._loop = loop
        self._tell_freed = freed
        self._tell_lost = lost
        self._transport: asyncio.Transport | None = None
        self._answer: HttpAnswer | None = None
        self._reader: Reader | None = None
        """Who reads the answer; None once it has enough."""
        self._done: asyncio.Future[None] | None = None
        self._tail: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing() and self._answer is None

    async def exchange(self, request: bytes, reader: Reader) -> None:
        """Carry one call out."""
        if self._transport is None:
            raise ConnectionResetError("the connection ended before the request")
        self._answer = HttpAnswer(reader.head, reader.body)
        self._reader = reader
        self._done = self._loop.create_future()
        self._transport.write(request)
        try:
            await self._done
        except asyncio.CancelledError:
            self.abort()
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked
            self.abort()
            return
        try:
            answer.feed(data)
        except Exception as wrong:  # noqa: BLE001  # whatever it is, whoever waits is told
            self._end(wrong)
            self.abort()
            return
        reader = self._reader
        if answer.complete:
            self._complete(answer)
        elif reader is not None and reader.state != "reading":
            self._enough(whole=reader.state == "whole")

    def eof_received(self) -> None:
        """Let the transport close: an answer that is not complete now will never be."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._tail is not None:
            self._tail.cancel()
        if self._answer is not None:
            try:
                self._answer.end()
            except EOFError as early:
                self._end(exc or early)
            else:
                self._end()
        self._tell_lost(self)

    # -- the end of a call

    def _end(self, why: Exception | None = None) -> None:
        done, self._done, self._reader = self._done, None, None
        if done is None or done.done():
            return
        if why is None:
            done.set_result(None)
        else:
            done.set_exception(why)

    def _complete(self, answer: HttpAnswer) -> None:
        self._answer = None
        if self._tail is not None:
            self._tail.cancel()
            self._tail = None
        transport = self._transport
        if transport is None or not answer.keep or transport.get_write_buffer_size():
            self.abort()
        elif not transport.is_closing():
            self._tell_freed(self)
        self._end()

    def _enough(self, *, whole: bool) -> None:
        if not whole:
            self.abort()
        elif self._tail is None:
            self._tail = self._loop.call_later(TAIL_S, self.abort)
        self._end()


async def _socket_to(host: str, port: int) -> socket.socket:
    """Return a connected socket to one of the host's addresses, whichever answers first."""
    import aiohappyeyeballs

    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=loop)


def _system_trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
