"""The gateway's HTTP: a server for whoever calls, a client of the Messages API, one call between them.

This module alone loads aiohttp, and is loaded only when something wants to call. A chunk that comes in goes
out at once; what is counted is read after it was passed on.
"""

import asyncio
import contextlib
import hashlib
import io
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from dragomand.engine.calls import Call, Calls, Grant, Payer
from dragomand.engine.errors import EngineError
from dragomand.upstream import failures
from dragomand.upstream.interface import Failure

from .connection import MOST_HEADER, Connection
from .gate import MOST_BODY, Asked, Refusal, let_in, too_large
from .headers import request_headers, response_headers
from .overheard import Overheard, counts, model_of
from .refusals import MOST_BODY as MOST_REFUSAL
from .refusals import Question, Refusals, Refused, Turn
from .usage import UsageReader

CONNECT_S = 15.0
"""How long, in seconds, connecting to the provider may take."""
BODY_S = 60.0
"""How long, in seconds, a request's body may take to come."""
_LONG_BODY = 64 * 1024
_VERSIONS = (aiohttp.HttpVersion10, aiohttp.HttpVersion11)
CLOSE_S = 1.0
"""How long, in seconds, connections have to end when the gateway closes."""


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
    pings_s: float = 300.0
    """Longest time in which a stream brings nothing but pings."""


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
        self._logger = logger
        self._refusals = Refusals(time.monotonic)
        # A caller that is gone ends its call, and so the provider's work.
        self._http = web.Server(self._answer, handler_cancellation=True)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=_trust(provider)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_field_size=MOST_HEADER,
            max_line_size=MOST_HEADER,
        )

    async def serve(self, listening: socket.socket) -> None:
        """Answer what comes to a listening socket, too."""
        loop = asyncio.get_running_loop()
        # A copy, so that the owner's stays open whatever the loop does.
        copy = listening.dup()
        unix = copy.family == socket.AF_UNIX
        serve = loop.create_unix_server if unix else loop.create_server
        server = await serve(lambda: Connection(self._http, loop, self._logger), sock=copy)
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
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.begin()
        try:
            return await self._let_in(request)
        finally:
            connection.end()

    async def _let_in(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        address = None if transport is None else transport.get_extra_info("sockname")
        port = address[1] if isinstance(address, tuple) else None
        if request.version not in _VERSIONS:
            return _refused(Refusal(400, "invalid_request_error", "only HTTP/1.0 and HTTP/1.1 are spoken."))
        # As it was written: what is let in is what is passed on, character by character.
        path, _, query = request.raw_path.partition("?")
        grant = let_in(Asked(request.method, path, query, request.headers, port), self._calls)
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
                return await self._carry_out(request, grant, call)
        except EngineError as busy:
            return _refused(Refusal(529, "overloaded_error", str(busy), 1))

    async def _carry_out(self, request: web.BaseRequest, grant: Grant, call: Call) -> web.StreamResponse:
        key = self._api_key()
        if key is None:
            return self._own_refusal(
                grant, Refusal(401, "authentication_error", "the daemon holds no API key (any more).")
            )
        body = await _read(request)
        if isinstance(body, Refusal):
            return _refused(body)
        payer = grant.payer()
        turn = _turn_of(grant, payer, key)
        asked = Question(request.raw_path, ",".join(request.headers.getall("anthropic-beta", ())), body)
        unasked = self._without_asking(grant, payer, turn, asked)
        if unasked is not None:
            call.unasked = True
            return unasked
        model, sent_order = model_of(body), time.monotonic_ns()
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
                return await self._pass_on(request, answer, limit, _Passing(grant, call, turn, asked, said))
        except TimeoutError:
            unanswered = Refusal(504, "timeout_error", "the provider did not begin to answer in time.")
        except (aiohttp.ClientError, ConnectionError) as failed:
            why = f"the provider cannot be reached ({type(failed).__name__})."
            unanswered = Refusal(502, "api_error", why)
        if call.status is None:
            return self._own_refusal(grant, unanswered)
        return _refused(unanswered)  # goes nowhere: the head was sent, and the connection is cut off by now

    def _without_asking(
        self, grant: Grant, payer: Payer, turn: Turn | None, asked: Question
    ) -> web.Response | None:
        """Return the answer that is known before the provider is asked; None: it has to be."""
        known = None if turn is None else self._refusals.find(turn, asked)
        if known is not None:
            grant.failure = known.failure
            return web.Response(status=known.status, body=known.body, headers=known.headers)
        spent = self._calls.overspent(payer)
        return None if spent is None else self._own_refusal(grant, _over_budget(payer.max_cost_usd, spent))

    @asynccontextmanager
    async def _asked(
        self, request: web.BaseRequest, body: bytes, key: str
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        """Ask the provider; the block has the answer's head, and the timer of its silence."""
        provider = self._provider
        url = provider.base_url.rstrip("/") + request.raw_path
        headers = request_headers(request.headers.items(), key)
        async with (
            asyncio.timeout(provider.first_byte_s) as limit,
            self._session.request(
                request.method,
                url,
                data=_sendable(body),
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
        passing: "_Passing",
    ) -> web.StreamResponse:
        call = passing.call
        given = [(name, value) for name, value in answer.headers.items()]
        call.status = answer.status
        headers = {**response_headers(given, self._clock()), "server": "dragoman"}
        out = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        if "content-length" not in headers and request.version >= aiohttp.HttpVersion11:
            out.enable_chunked_encoding()
        reader = UsageReader("" if "content-encoding" in headers else headers.get("content-type", ""))
        try:
            await out.prepare(request)
            said = await self._copy(answer, out, limit, reader, passing.overheard)
            await out.write_eof()
            call.finished = reader.complete and not reader.failed
        except BaseException as broken:
            passing.grant.failure = Failure("overload", f"The answer broke off ({type(broken).__name__}).")
            # The head is out: the only word for "this is not all" is an end in the middle.
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            reader.end()
            call.usage, call.cost_usd = reader.usage, reader.cost_usd
            if passing.overheard is not None:
                passing.overheard.end()
                call.failure = passing.overheard.failure
        self._note_failure(answer, said, headers, passing)
        return out

    async def _copy(
        self,
        answer: aiohttp.ClientResponse,
        out: web.StreamResponse,
        limit: asyncio.Timeout,
        reader: UsageReader,
        overheard: Overheard | None,
    ) -> bytes:
        """Pass the body on; of an error's, return the beginning."""
        now = asyncio.get_running_loop().time
        idle_s, pings_s = self._provider.idle_s, self._provider.pings_s
        word, said = now(), bytearray()
        limit.reschedule(word + min(idle_s, pings_s))
        async for chunk in answer.content.iter_any():
            await out.write(chunk)
            heard = now()
            if reader.feed(chunk):
                word = heard
            limit.reschedule(min(heard + idle_s, word + pings_s))
            if overheard is not None:
                overheard.feed(chunk)
            if answer.status >= 400 and len(said) <= MOST_REFUSAL:
                said += chunk
        return bytes(said)

    def _note_failure(
        self, answer: aiohttp.ClientResponse, said: bytes, headers: dict[str, str], passing: "_Passing"
    ) -> None:
        """Remember why a call failed, and a refusal for good."""
        if passing.call.finished and answer.status < 400:
            return
        if answer.status < 400:
            passing.grant.failure = Failure("overload", "The answer ended with an error, or before its end.")
            return
        failure = passing.call.failure
        if failure is None:
            failure = failures.of_response(answer.status, answer.headers, said, self._clock())
        passing.grant.failure = failure
        if len(said) <= MOST_REFUSAL and passing.turn is not None:
            kept = {name: value for name, value in headers.items() if name not in ("content-length", "date")}
            self._refusals.note(passing.turn, passing.asked, Refused(answer.status, kept, said, failure))

    @staticmethod
    def _own_refusal(grant: Grant, refusal: Refusal) -> web.Response:
        grant.failure = Failure(failures.by_status(refusal.status), refusal.message, status=refusal.status)
        return _refused(refusal)


@dataclass(frozen=True, slots=True)
class _Passing:
    """A call on its way."""

    grant: Grant
    call: Call
    turn: Turn | None
    """None: nobody's turn, in which nothing would be repeated."""
    asked: Question
    overheard: Overheard | None
    """What it says of limits; None: not of those of messages."""


def _turn_of(grant: Grant, payer: Payer, key: str) -> Turn | None:
    """Return in whose turn nothing is asked twice; a program's own calls are its own affair."""
    if grant.name is not None or payer.turn_id is None:
        return None
    return grant.grant_id, payer.turn_id, hashlib.sha256(key.encode()).digest()


def _over_budget(budget: float | None, spent: float) -> Refusal:
    text = f"the turn may cost {budget:g} USD (maxBudgetUsd) and has cost {spent:g} USD."
    return Refusal(400, "invalid_request_error", text)


async def _read(request: web.BaseRequest) -> bytes | Refusal:
    """Return the body, within its bounds of size and time."""
    body = bytearray()
    waits = request.headers.get("Expect", "").lower() == "100-continue"
    if waits and request.version >= aiohttp.HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer
    try:
        async with asyncio.timeout(BODY_S):
            while part := await request.content.readany():
                body += part
                if len(body) > MOST_BODY:
                    return too_large()
    except TimeoutError:
        return Refusal(408, "timeout_error", f"the request was not complete after {BODY_S:g} s.")
    return bytes(body)


def _sendable(body: bytes) -> bytes | io.BytesIO | None:
    """Return *body* as aiohttp wants it: a long one is written piece by piece, so that others get a turn."""
    return io.BytesIO(body) if len(body) > _LONG_BODY else body or None


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
