"""The gateway's HTTP: a server for whoever calls, a client of the Messages API, one call between them.

This module alone loads aiohttp, and is loaded only when something wants to call. A chunk that comes in goes
out at once; what is counted is read after it was passed on. A refusal is read before anything is passed on,
so that the call can be made once more, and so that the door knows of it first.
"""

import asyncio
import hashlib
import logging
import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from dragomand.engine.call import Call, Grant, Payer
from dragomand.engine.calls import Calls
from dragomand.engine.errors import EngineError
from dragomand.upstream import failures
from dragomand.upstream.interface import Failure

from .asking import Incoming
from .connection import Connection
from .gate import Asked, Refusal, let_in
from .headers import request_headers, response_headers
from .overheard import Overheard, counts, model_of
from .provider import Connections
from .provider import Provider as Provider
from .refusals import MOST_BODY as MOST_REFUSAL
from .refusals import Question, Refusals, Refused, Turn
from .rehearsed import rehearsed
from .usage import UsageReader

_VERSIONS = (aiohttp.HttpVersion10, aiohttp.HttpVersion11)
CLOSE_S = 1.0
"""How long, in seconds, connections have to end when the gateway closes."""
_ANSWERS = {
    "auth_failed": (401, "authentication_error"),
    "quota_exhausted": (429, "rate_limit_error"),
    "throttled": (429, "rate_limit_error"),
    "rate_limited": (429, "rate_limit_error"),
    "budget_exhausted": (400, "invalid_request_error"),
}
"""How the door's own refusals are answered; all others as overload. A 400 is not repeated."""
_CATEGORIES = {"auth_failed": "auth", "quota_exhausted": "quota", "throttled": "throttle",
               "budget_exhausted": "caller"}  # fmt: skip


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
        self._connections = Connections(provider)

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
        await self._connections.close()

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
        if grant.rehearsal is not None:
            return await _rehearse(Incoming(request), grant.rehearsal)
        grant.cuts.add(transport.abort)
        try:
            return await self._admitted(request, grant)
        finally:
            grant.cuts.discard(transport.abort)

    async def _admitted(self, request: web.BaseRequest, grant: Grant) -> web.StreamResponse:
        """Make the call when the door lets it in, and once more if it fails and may be repeated."""
        incoming = Incoming(request)
        # The rest is read afterwards: who waits holds no more than a connection's buffer.
        late = await incoming.begin()
        if late is not None:
            return _refused(late)
        model = incoming.model
        try:
            return await self._calls.carry_out(
                lambda: self._calls.call(grant, model),
                lambda call: self._attempt(request, incoming, grant, call),
            )
        except EngineError as refused:
            return self._refused_before(request, grant) or self._refused_at_the_door(grant, refused)

    async def _attempt(
        self, request: web.BaseRequest, incoming: Incoming, grant: Grant, call: Call
    ) -> web.StreamResponse:
        key = self._api_key()
        if key is None:
            call.unasked = True
            return self._own_refusal(
                grant, Refusal(401, "authentication_error", "the daemon holds no API key (any more).")
            )
        body = await incoming.whole()
        if isinstance(body, Refusal):
            call.unasked = True
            return _refused(body)
        payer, turn = grant.payer(), self._turn_of(grant)
        asked = Question(request.raw_path, ",".join(request.headers.getall("anthropic-beta", ())), body)
        known = None if turn is None else self._refusals.find(turn, asked)
        if known is not None:
            call.unasked = True
            return _again(grant, known)
        broke = self._broke(payer)
        if broke is not None:
            call.unasked = True
            return self._own_refusal(grant, broke)
        return await self._ask(request, _Passing(grant, call, turn, asked), key)

    def _broke(self, payer: Payer) -> Refusal | None:
        """Return why no more may be spent on the turn of *payer*."""
        spent = self._calls.overspent(payer)
        if spent is not None:
            return _over_budget(payer.max_cost_usd, spent)
        exhausted = self._calls.exhausted(payer)
        return None if exhausted is None else Refusal(400, "invalid_request_error", str(exhausted))

    async def _ask(self, request: web.BaseRequest, passing: "_Passing", key: str) -> web.StreamResponse:
        call, body = passing.call, passing.asked.body
        headers = request_headers(request.headers.items(), key)
        sent_order = time.monotonic_ns()
        try:
            asking = self._connections.ask(request.method, request.raw_path, headers, body)
            async with asking as (answer, limit):
                call.status = answer.status
                if counts(request.raw_path.partition("?")[0]):
                    passing.overheard = Overheard(
                        call.note_limits,
                        answer.headers.items(),
                        status=answer.status,
                        sent_order=sent_order,
                        now=self._clock(),
                        model=model_of(body),
                    )
                if answer.status >= 400:
                    return await self._refusal(request, answer, limit, passing)
                return await self._pass_on(request, answer, limit, passing, b"")
        except TimeoutError:
            unanswered = Refusal(504, "timeout_error", "the provider did not begin to answer in time.")
        except (aiohttp.ClientError, ConnectionError) as failed:
            why = f"the provider cannot be reached ({type(failed).__name__})."
            unanswered = Refusal(502, "api_error", why)
        if call.begun:
            return _refused(unanswered)  # goes nowhere: the head was sent, the connection is cut off by now
        call.failure = Failure("overload", f"The Messages API: {unanswered.message}")
        return self._own_refusal(passing.grant, unanswered)

    async def _refusal(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        limit: asyncio.Timeout,
        passing: "_Passing",
    ) -> web.StreamResponse:
        """Read a refusal; return it as an answer that nothing was sent of yet, unless it is too long."""
        said = bytearray()
        limit.reschedule(asyncio.get_running_loop().time() + self._provider.idle_s)
        async for chunk in answer.content.iter_any():
            said += chunk
            if len(said) > MOST_REFUSAL:
                return await self._pass_on(request, answer, limit, passing, bytes(said))
        failure = self._note_failure(answer, bytes(said), passing)
        headers = {**response_headers(answer.headers.items(), self._clock()), "server": "dragoman"}
        headers.pop("content-length", None)
        passing.call.finished = True
        if passing.turn is not None:
            kept = {name: value for name, value in headers.items() if name != "date"}
            refused = Refused(answer.status, kept, bytes(said), failure)
            self._refusals.note(passing.turn, passing.asked, refused)
        return web.Response(status=answer.status, reason=answer.reason, body=bytes(said), headers=headers)

    async def _pass_on(
        self,
        request: web.BaseRequest,
        answer: aiohttp.ClientResponse,
        limit: asyncio.Timeout,
        passing: "_Passing",
        begun: bytes,
    ) -> web.StreamResponse:
        call = passing.call
        headers = {**response_headers(answer.headers.items(), self._clock()), "server": "dragoman"}
        out = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        if "content-length" not in headers and request.version >= aiohttp.HttpVersion11:
            out.enable_chunked_encoding()
        reader = UsageReader("" if "content-encoding" in headers else headers.get("content-type", ""))
        call.begun = True
        try:
            await out.prepare(request)
            await self._copy(answer, out, limit, reader, begun)
            await out.write_eof()
            call.finished = reader.complete and not reader.failed
            if answer.status >= 400:
                self._note_failure(answer, begun, passing)
            elif not call.finished:
                text = "The answer ended with an error, or before its end."
                call.failure = passing.grant.failure = Failure("overload", text)
        except BaseException as broken:
            failure = Failure("overload", f"The answer broke off ({type(broken).__name__}).")
            passing.grant.failure = failure
            if not isinstance(broken, asyncio.CancelledError) and not _is_gone(request):
                call.failure = failure
            # The head is out: the only word for "this is not all" is an end in the middle.
            if request.transport is not None:
                request.transport.abort()
            raise
        finally:
            reader.end()
            call.usage, call.cost_usd = reader.usage, reader.cost_usd
        return out

    async def _copy(
        self,
        answer: aiohttp.ClientResponse,
        out: web.StreamResponse,
        limit: asyncio.Timeout,
        reader: UsageReader,
        begun: bytes,
    ) -> None:
        """Pass the body on, after what of it was read already."""
        now = asyncio.get_running_loop().time
        idle_s, pings_s = self._provider.idle_s, self._provider.pings_s
        word = now()
        limit.reschedule(word + min(idle_s, pings_s))
        if begun:
            await out.write(begun)
        async for chunk in answer.content.iter_any():
            await out.write(chunk)
            heard = now()
            if reader.feed(chunk):
                word = heard
            limit.reschedule(min(heard + idle_s, word + pings_s))

    def _note_failure(self, answer: aiohttp.ClientResponse, said: bytes, passing: "_Passing") -> Failure:
        """Tell the door why a call was refused, and remember it."""
        overheard = passing.overheard
        if overheard is not None:
            overheard.feed(said)
            overheard.end()
        known = None if overheard is None else overheard.failure
        failure = known or failures.of_response(answer.status, answer.headers, said, self._clock())
        passing.grant.failure = failure
        return failure

    def _turn_of(self, grant: Grant) -> Turn | None:
        """Return whose repeated calls *grant*'s are now; None: nobody's, or a program's own affair."""
        turn_id, key = grant.payer().turn_id, self._api_key()
        if grant.name is not None or turn_id is None or key is None:
            return None
        return grant.grant_id, turn_id, hashlib.sha256(key.encode()).digest()

    def _refused_before(self, request: web.BaseRequest, grant: Grant) -> web.Response | None:
        """Return how this turn was refused before, whatever it asked."""
        turn = self._turn_of(grant)
        known = None if turn is None else self._refusals.find(turn, Question(request.raw_path, "", b""))
        return None if known is None else _again(grant, known)

    def _refused_at_the_door(self, grant: Grant, refused: EngineError) -> web.Response:
        status, kind = _ANSWERS.get(refused.kind, (529, "overloaded_error"))
        wait_ms = refused.data.get("retry_after_ms")
        wait_s = 1 if wait_ms is None else max(1, math.ceil(wait_ms / 1000))
        response = self._own_refusal(grant, Refusal(status, kind, str(refused), wait_s))
        grant.failure = Failure(
            _CATEGORIES.get(refused.kind, "overload"),  # type: ignore[arg-type]  # they are categories
            str(refused),
            status=status,
            retry_after_ms=wait_ms,
            resets_at=refused.data.get("resets_at"),
        )
        return response

    @staticmethod
    def _own_refusal(grant: Grant, refusal: Refusal) -> web.Response:
        grant.failure = Failure(failures.by_status(refusal.status), refusal.message, status=refusal.status)
        return _refused(refusal)


@dataclass(slots=True)
class _Passing:
    """A call on its way."""

    grant: Grant
    call: Call
    turn: Turn | None
    """None: nobody's turn, in which nothing would be repeated."""
    asked: Question
    overheard: Overheard | None = None


async def _rehearse(incoming: Incoming, mark: str) -> web.Response:
    """Answer a process that warms up: nobody is asked, nothing is counted."""
    body = await incoming.whole()
    if isinstance(body, Refusal):
        return _refused(body)
    if mark.encode() not in body:
        return _refused(Refusal(404, "not_found_error", "this process is not in use yet."))
    return web.Response(body=rehearsed(mark), headers={"content-type": "text/event-stream"})


def _again(grant: Grant, known: Refused) -> web.Response:
    grant.failure = known.failure
    return web.Response(status=known.status, body=known.body, headers=known.headers)


def _is_gone(request: web.BaseRequest) -> bool:
    """Tell whether whoever asked has hung up."""
    return request.transport is None or request.transport.is_closing()


def _over_budget(budget: float | None, spent: float) -> Refusal:
    text = f"the turn may cost {budget:g} USD (maxBudgetUsd) and has cost {spent:g} USD."
    return Refusal(400, "invalid_request_error", text)


def _refused(refusal: Refusal) -> web.Response:
    headers = {"content-type": "application/json", "server": "dragoman"}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    response = web.Response(status=refusal.status, body=refusal.body, headers=headers)
    if refusal.status == 413:
        response.force_close()
    return response
