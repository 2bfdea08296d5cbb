"""Connections: kept, shared out, let go; what the other end may do to one."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from dragomand.upstream.messages_api import connections as module
from dragomand.upstream.messages_api.connections import Connections
from dragomand.upstream.messages_api.http import BadAnswerError

DEADLINE_S = 20.0
CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Self-signed, with its key, for `localhost` and 127.0.0.1; good until 2120."""
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
LAST_CHUNK = b"0\r\n\r\n"
BEGINNING = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Read:
    """A reader that has enough after so many bytes."""

    def __init__(self, enough: int = 1000, then: Literal["whole", "broken"] = "whole") -> None:
        self.state: Literal["reading", "whole", "broken"] = "reading"
        self.said = b""
        self.status = 0
        self.begun = asyncio.Event()
        self._enough, self._then = enough, then

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status

    def body(self, data: bytes) -> None:
        self.said += data
        self.begun.set()
        if len(self.said) >= self._enough:
            self.state = self._then


class Host:
    """A server that is told what to do with each connection."""

    def __init__(self, serve: Serve, tls: ssl.SSLContext | None = None) -> None:
        self.serve = serve
        self.accepted = 0
        self.requests: list[bytes] = []
        self.changed = asyncio.Condition()
        self.open = 0
        self._tls = tls

    async def __aenter__(self) -> "Host":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await self._count(1)
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self.changed:
            self.open += change
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self.changed:
            await self.changed.wait_for(condition)

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """Return the next request."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        return self.requests[-1]


@asynccontextmanager
async def pool(most: int = 10, connect_s: float = 10.0, keep_s: float = 30.0) -> AsyncIterator[Connections]:
    made = Connections(most=most, connect_timeout_s=connect_s, keep_s=keep_s)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield made
    finally:
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until *condition* holds; for what nobody is told of."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0)


async def ask(of: Connections, url: str, reader: Read | None = None) -> Read:
    reader = reader or Read()
    await of.post(url, {"x-api-key": "k"}, b"body", reader)
    return reader


def answering(host: list[Host], answer: bytes = OK) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await host[0].request(reader)
            writer.write(answer)

    return serve


@asynccontextmanager
async def a_host(answer: bytes = OK, tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
    me: list[Host] = []
    async with Host(answering(me, answer), tls) as host:
        me.append(host)
        yield host


async def test_one_connection_serves_one_call_after_another() -> None:
    async with a_host() as host, pool() as calls:
        for _ in range(3):
            read = await ask(calls, host.url)
            assert (read.status, read.said) == (200, b"hi")
        assert (host.accepted, calls.open) == (1, 1)
        lines = ("POST /v1 HTTP/1.1", f"host: 127.0.0.1:{host.port}", "content-length: 4", "x-api-key: k")
        assert host.requests[0] == "\r\n".join([*lines, "", "body"]).encode()


async def test_one_that_says_close_is_not_used_again() -> None:
    async with a_host(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")) as host, pool() as calls:
        await ask(calls, host.url)
        await ask(calls, host.url)
        assert host.accepted == 2


async def test_no_more_than_may_be_and_in_order() -> None:
    async with a_host() as host, pool(most=2) as calls:
        reads = await asyncio.gather(*(ask(calls, host.url) for _ in range(20)))
        assert [read.said for read in reads] == [b"hi"] * 20
        assert host.accepted == 2


async def test_who_waits_for_a_connection_can_give_up() -> None:
    go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await host.request(reader)
            await go.wait()
            writer.write(OK)

    async with Host(serve) as host, pool(most=1) as calls:
        first = asyncio.create_task(ask(calls, host.url))
        await host.until(lambda: host.open == 1)
        waiting = [asyncio.create_task(ask(calls, host.url)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait([waiting[0]])
        go.set()
        assert (await first).said == (await waiting[1]).said == (await waiting[2]).said == b"hi"
        assert host.accepted == 1


async def test_one_whose_turn_had_come_passes_it_on() -> None:
    async with a_host() as host, pool(most=1) as calls:
        first = asyncio.create_task(ask(calls, host.url))
        await host.until(lambda: host.open == 1)
        waiting = [asyncio.create_task(ask(calls, host.url)) for _ in range(2)]
        await first  # in this moment the first of those that wait was told
        waiting[0].cancel()
        assert (await waiting[1]).said == b"hi"


async def test_an_idle_connection_makes_room_for_another_host_s() -> None:
    async with a_host() as one, a_host() as other, pool(most=1) as calls:
        await ask(calls, one.url)
        await ask(calls, other.url)
        await one.until(lambda: one.open == 0)
        assert calls.open == 1


async def test_idle_ones_are_let_go() -> None:
    async with a_host() as host, pool(keep_s=0.05) as calls:
        await asyncio.gather(ask(calls, host.url), ask(calls, host.url))
        await host.until(lambda: host.accepted == 2 and host.open == 0)
        await ask(calls, host.url)
        assert host.accepted == 3


async def test_one_that_the_other_end_closed_is_not_used() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(OK)

    async with Host(serve) as host, pool() as calls:
        await ask(calls, host.url)
        await host.until(lambda: host.open == 0)
        await until(lambda: not calls.open)
        assert (await ask(calls, host.url)).said == b"hi"


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (b"", EOFError),
        (b"HTTP/1.1 200", EOFError),
        (BEGINNING, EOFError),
        (b"nonsense\r\n\r\n", BadAnswerError),
    ],
)
async def test_an_answer_that_is_none(answer: bytes, raised: type[Exception]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(answer)

    async with Host(serve) as host, pool() as calls:
        with pytest.raises(raised):
            await ask(calls, host.url)


async def test_an_answer_up_to_the_connection_s_end() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with Host(serve) as host, pool() as calls:
        assert (await ask(calls, host.url)).said == b"all of it"


async def test_a_reader_that_fails_ends_its_call() -> None:
    class Failing(Read):
        def body(self, data: bytes) -> None:
            raise ZeroDivisionError

    async with a_host() as host, pool() as calls:
        with pytest.raises(ZeroDivisionError):
            await ask(calls, host.url, Failing())
        assert (await ask(calls, host.url)).said == b"hi"


async def test_whose_reader_has_enough_waits_no_longer() -> None:
    finish = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await host.request(reader)
            writer.write(BEGINNING)
            await finish.wait()
            writer.write(LAST_CHUNK)

    async with Host(serve) as host, pool() as calls:
        await ask(calls, host.url, Read(enough=2))
        finish.set()  # in time: the connection is as good as new
        await until(lambda: any(calls._idle.values()) or not calls.open)
        finish.clear()
        await ask(calls, host.url, Read(enough=2))
        await until(lambda: not calls.open)  # this one's end did not come
        finish.set()


@pytest.mark.parametrize("way", ["broken", "cancelled"])
async def test_what_is_not_wanted_any_more_is_cut_off(way: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(BEGINNING)
        await reader.read()

    async with Host(serve) as host, pool() as calls:
        reader = Read(enough=2, then="broken") if way == "broken" else Read()
        call = asyncio.create_task(ask(calls, host.url, reader))
        await reader.begun.wait()
        call.cancel() if way == "cancelled" else await call
        await host.until(lambda: host.open == 0)


async def test_what_nobody_asked_for_ends_a_connection() -> None:
    more = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        writer.write(OK)
        await more.wait()
        writer.write(OK)
        await reader.read()

    async with Host(serve) as host, pool() as calls:
        await ask(calls, host.url)
        more.set()
        await host.until(lambda: host.open == 0)


async def test_a_host_that_does_not_listen() -> None:
    async with pool() as calls:
        with pytest.raises(OSError, match="9"):
            await ask(calls, "http://127.0.0.1:9/")


async def test_closed_while_it_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting, go, socket_to = asyncio.Event(), asyncio.Event(), module._socket_to

    async def slowly(host: str, port: int) -> Any:
        connecting.set()
        await go.wait()
        return await socket_to(host, port)

    monkeypatch.setattr(module, "_socket_to", slowly)
    async with a_host() as host, pool() as calls:
        asked = asyncio.create_task(ask(calls, host.url))
        await connecting.wait()
        await calls.close()
        go.set()
        with pytest.raises(ConnectionError, match="stopping"):
            await asked
        await host.until(lambda: host.open == 0)
        assert host.requests == []


async def test_one_that_could_not_connect_lets_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    tries, socket_to = [], module._socket_to

    async def second_time(host: str, port: int) -> Any:
        tries.append(port)
        await asyncio.sleep(0)
        if len(tries) == 1:
            raise ConnectionRefusedError
        return await socket_to(host, port)

    monkeypatch.setattr(module, "_socket_to", second_time)
    async with a_host() as host, pool(most=1) as calls:
        first, second = (asyncio.create_task(ask(calls, host.url)) for _ in range(2))
        with pytest.raises(ConnectionRefusedError):
            await first
        assert (await second).said == b"hi"


async def test_connecting_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_host: str, _port: int) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "_socket_to", never)
    async with pool(connect_s=0.01) as calls:
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            await ask(calls, "http://127.0.0.1:9/")


async def test_closing_breaks_off_what_runs_and_what_waits() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await host.request(reader)
        await reader.read()

    async with Host(serve) as host, pool(most=1) as calls:
        asked = [asyncio.create_task(ask(calls, host.url)) for _ in range(3)]
        await host.until(lambda: host.open == 1)
        await calls.close()
        for one in asked:
            with pytest.raises((EOFError, ConnectionError)):
                await one
        with pytest.raises(ConnectionError, match="stopping"):
            await ask(calls, host.url)


@pytest.mark.parametrize("url", ["ftp://host/", "http:///x", "unix:/x"])
async def test_only_http(url: str) -> None:
    async with pool() as calls:
        with pytest.raises(ValueError, match="http or https"):
            await ask(calls, url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://h/x?y", (("http", "h", 80), "h", "/x?y")),
        ("https://h:8443", (("https", "h", 8443), "h:8443", "/")),
        ("https://[::1]/x", (("https", "::1", 443), "[::1]", "/x")),
    ],
)
async def test_where_a_url_leads(url: str, told: Any) -> None:
    async with pool() as calls:
        assert calls._taken_apart(url) == calls._taken_apart(url) == told
        for number in range(100):
            calls._taken_apart(f"http://h/{number}")
        assert len(calls._origins) <= 64


async def test_tls_with_a_certificate_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    async with a_host(tls=server) as host:
        async with pool() as calls:
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(calls, host.url)
        monkeypatch.setattr(module, "_system_trust", lambda: ssl.create_default_context(cafile=CERTIFICATE))
        async with pool() as calls:
            for _ in range(2):
                assert (await ask(calls, host.url)).said == b"hi"
            socket_to = module._socket_to
            monkeypatch.setattr(module, "_socket_to", lambda _host, port: socket_to("127.0.0.1", port))
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                await ask(calls, f"https://api.invalid:{host.port}/")
        assert len(host.requests) == 2
