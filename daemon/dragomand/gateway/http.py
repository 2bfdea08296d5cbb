"""The gateway's HTTP: a server for whoever calls, a client of the Messages API, one call between them.

This module alone loads aiohttp, and is loaded only when something wants to call. A chunk that comes in goes
out at once; what is counted is read after it was passed on.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from dragomand.engine.calls import Call, Calls, Grant
from dragomand.engine.errors import EngineError

from .gate import MOST_BODY, Asked, Refusal, let_in, too_large
from .headers import request_headers, response_headers
from .overheard import Overheard, counts, model_of
from .usage import UsageReader

CONNECT_S = 15.0
"""How long, in seconds, connecting to the provider may take."""
BODY_S = 60.0
"""How long, in seconds, a request's body may take to come."""
CLOSE_S = 1.0
"""How long, in seconds, connections have to end when the gateway closes."""
_MOST_HEADER = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where calls go, and how long an answer may be silent."""

    base_url: str
    proxy: str | None = None
    ca_file: str | None = None
    """Certificates that are trusted too."""
    first_byte_s: float = 600.0
    """Longest wait for the head of an answer."""
    idle_s: float = 300.0
    """Longest silence in the middle of one."""


class HttpGateway:
    """Serves sockets until it is closed. Made in a running loop."""

    def __init__(
        self,
        *,
        calls: Calls,
        api_key: Callable[[], str | None],
        provider: Provider,
        clock: Callable[[], float],
        logger: logging.Logger,
    ) -> None:
        """Pass calls on to *provider* with the key that *api_key* gives; *clock* is Unix seconds."""
        self._calls = calls
        self._api_key = api_key
        self._provider = provider
        self._clock = clock
        self._servers: list[asyncio.Server] = []
        self._closed = False
        self._http = web.Server(
            self._answer,
            handler_cancellation=True,  # a caller that is gone ends its call, and so the provider's work
            access_log=None,
            logger=logger,
            max_field_size=_MOST_HEADER,
            max_line_size=_MOST_HEADER,
            lingering_time=0,
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=_trust(provider)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_field_size=_MOST_HEADER,
            max_line_size=_MOST_HEADER,
        )

    async def serve(self, listening: socket.socket) -> None:
        """Answer what comes to a listening socket, too."""
        loop = asyncio.get_running_loop()
        # A copy, so that the owner's stays open whatever the loop does.
        copy = listening.dup()
        unix = copy.family == socket.AF_UNIX
        server = await (loop.create_unix_server if unix else loop.create_server)(self._http, sock=copy)
        self._servers.append(server)
        if self._closed:
            server.close()

    async def close(self) -> None:
        """Stop serving and cut off what is under way."""
        self._closed = True
        for server in self._servers:
            server.close()
        await self._http.shutdown(CLOSE_S)
        await self._session.close()

    # -- one request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        address = None if transport is None else transport.get_extra_info("sockname")
        port = address[1] if isinstance(address, tuple) else None
        url = request.rel_url
        asked = Asked(request.method, url.raw_path, url.raw_query_string, request.headers, port)
        grant = let_in(asked, self._calls)
        if isinstance(grant, Refusal):
            return _refused(grant)
        if transport is None:
            raise ConnectionResetError
        grant.cuts.add(transport.abort)
        try:
            return await self._admitted(request, grant)
        finally:
            grant.cuts.discard(transport.abort)

    async def _admitted(self, request: web.BaseRequest, grant: Grant) -> web.StreamResponse:
        try:
            # The body is read afterwards: who waits holds no more than a connection's buffer.
            async with self._calls.call(grant) as call:
                return await self._carry_out(request, call)
        except EngineError as busy:
            return _refused(Refusal(529, "overloaded_error", str(busy), 1))

    async def _carry_out(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        key = self._api_key()
        if key is None:
            return _refused(Refusal(401, "authentication_error", "the daemon holds no API key (any more)."))
        body = await _read(request)
        if isinstance(body, Refusal):
            return _refused(body)
        model, sent_order = model_of(body), time.monotonic_ns()
        # What is returned after the head was sent goes nowhere: the connection is cut off by then.
        try:
            async with self._asked(request, body, key) as (answer, limit):
                said = None
                if counts(request.rel_url.raw_path):
                    said = Overheard(
                        call.note_limits,
                        answer.headers.items(),
                        status=answer.status,
                        sent_order=sent_order,
                        now=self._clock(),
                        model=model,
                    )
                return await self._pass_on(request, answer, limit, call, said)
        except TimeoutError:
            return _refused(Refusal(504, "timeout_error", "the provider did not begin to answer in time."))
        except (aiohttp.ClientError, ConnectionError) as failed:
            why = f"the provider cannot be reached ({type(failed).__name__})."
            return _refused(Refusal(502, "api_error", why))

    @asynccontextmanager
    async def _asked(
        self, request: web.BaseRequest, body: bytes, key: str
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        """Ask the provider; the block has the answer's head, and the timer of its silence."""
        provider = self._provider
        url = provider.base_url.rstrip("/") + request.rel_url.raw_path_qs
        headers = request_headers(request.headers.items(), key)
        async with (
            asyncio.timeout(provider.first_byte_s) as limit,
            self._session.request(
                request.method,
                url,
                data=body or None,
                headers=headers,
                proxy=provider.proxy,
                allow_redirects=False,
            ) as answer,
        ):
            yield answer, limit

    async def _pass_on(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        limit: asyncio.Timeout,
        call: Call,
        overheard: Overheard | None,
    ) -> web.StreamResponse:
        given = [(name, value) for name, value in answer.headers.items()]
        call.status = answer.status
        headers = {**response_headers(given), "server": "dragoman"}
        out = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        if "content-length" not in headers:
            out.enable_chunked_encoding()
        reader = UsageReader("" if "content-encoding" in headers else headers.get("content-type", ""))
        try:
            await out.prepare(request)
            await self._copy(answer, out, limit, [reader] if overheard is None else [reader, overheard])
            await out.write_eof()
            call.finished = reader.complete and not reader.failed
        except BaseException:
            # The head is out: the only word for "this is not all" is an end in the middle.
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            reader.end()
            call.usage = reader.usage
            if overheard is not None:
                overheard.end()
                call.failure = overheard.failure
        return out

    async def _copy(
        self,
        answer: aiohttp.ClientResponse,
        out: web.StreamResponse,
        limit: asyncio.Timeout,
        readers: "list[UsageReader | Overheard]",
    ) -> None:
        now = asyncio.get_running_loop().time
        limit.reschedule(now() + self._provider.idle_s)
        async for chunk in answer.content.iter_any():
            await out.write(chunk)
            for reader in readers:
                reader.feed(chunk)
            limit.reschedule(now() + self._provider.idle_s)


async def _read(request: web.BaseRequest) -> bytes | Refusal:
    """Return the body, within its bounds of size and time."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while part := await request.content.readany():
                body += part
                if len(body) > MOST_BODY:
                    return too_large()
    except TimeoutError:
        return Refusal(408, "timeout_error", f"the request was not complete after {BODY_S:g} s.")
    return bytes(body)


def _refused(refusal: Refusal) -> web.Response:
    headers = {"content-type": "application/json", "server": "dragoman"}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    response = web.Response(status=refusal.status, body=refusal.body, headers=headers)
    if refusal.status == 413:
        response.force_close()
    return response


def _trust(provider: Provider) -> "ssl.SSLContext | bool":
    if provider.ca_file is None or not provider.base_url.startswith("https:"):
        return True
    context = ssl.create_default_context()
    with contextlib.suppress(OSError):  # as Claude Code itself: a file that cannot be used is passed over
        context.load_verify_locations(provider.ca_file)
    return context
