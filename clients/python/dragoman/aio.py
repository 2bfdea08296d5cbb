"""The client for asyncio.

    async with dragoman.aio.connect() as claude:
        answer = await claude.query("What does this folder contain?")
        async for event in claude.stream("And its tests?"):
            print(event)

It runs on asyncio's own loops, uvloop's too, and inside `anyio` on its asyncio backend (trio is not
supported). A client belongs to the loop that it was opened on. Cancelling a task that waits for an answer, by
`Task.cancel`, `asyncio.timeout` or an anyio cancel scope, cancels the request on the daemon.
"""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import msgspec
from dragoman_protocol.content import Prompt
from dragoman_protocol.lifecycle import InitializeResult, Scope
from dragoman_protocol.query import QueryRunResult
from dragoman_protocol.stream import Event, StreamEventParams

from dragoman import launch, locate
from dragoman.answer import GrowingText
from dragoman.asynchronous import AsyncLink, AsyncPending, OnBudget, OnPermission
from dragoman.conversation import FRESH_STARTS, QUIET_S, Conversation, Pending, Watch
from dragoman.errors import DrainingError, RequestTimeoutError
from dragoman.options import QueryOptions, query_params
from dragoman.output import schema_of, typed
from dragoman.questions import answerers
from dragoman.stubs import AsyncCalls

T = TypeVar("T")

CANCEL_S = 10.0
"""How long, in seconds, `Stream.cancel` waits for the daemon's word that the turn has stopped."""


def connect(
    client_name: str | None = None,
    *,
    scopes: Iterable[Scope] | None = None,
    start: bool = True,
    on_permission: OnPermission | None = None,
    on_budget: OnBudget | None = None,
    env: Mapping[str, str] | None = None,
) -> "Client":
    """Return a client that connects in `async with` (or at its first call), starting the daemon if need be.

    The arguments are those of `dragoman.connect`; *on_permission* and *on_budget* may be
    coroutine functions.
    """
    paths = locate.find_paths(env)

    def opener() -> socket.socket:
        return launch.ensure_daemon(paths, env) if start else locate.connect(paths)

    return Client(
        opener, client_name=client_name, scopes=scopes, on_permission=on_permission, on_budget=on_budget
    )


class Client(AsyncCalls):
    """A connection to the daemon. Beside `query` and `stream` it has every method of the protocol.

    Those raise `RequestError` and its kinds, and `RequestTimeoutError` after `timeout_s`. A connection that
    was lost is opened again by the next call.
    """

    def __init__(
        self,
        opener: Callable[[], socket.socket],
        *,
        client_name: str | None = None,
        scopes: Iterable[Scope] | None = None,
        on_permission: OnPermission | None = None,
        on_budget: OnBudget | None = None,
        quiet_s: float = QUIET_S,
    ) -> None:
        """Connect with *opener*, which may block (it is called in a thread); `connect` is the usual way."""
        named = None if scopes is None else list(scopes)
        asked = answerers(on_permission, on_budget)

        def begin(wake: Callable[[], None]) -> Conversation:
            return Conversation(client_name, named, asks=asked, wake=wake)

        self._tokens = itertools.count(1)
        self._link = AsyncLink(opener, begin, asked, quiet_s)

    async def open(self) -> None:
        """Connect now; `async with` does it. Raises `LocateError` and its kinds."""
        await self._link.open()

    async def server(self) -> InitializeResult:
        """Return what the daemon said of itself: version, methods, granted scopes."""
        if not self._link.conversation.handshake.answered:
            await self.limits_state()
        return self._link.conversation.opened()

    async def query(
        self, prompt: Prompt, *, output: Any = None, **options: Unpack[QueryOptions]
    ) -> QueryRunResult:
        """Run one turn, wait for its end and return its answer (`.text`, `.session_id`, `.usage`, …).

        With a type as *output* the answer's `.structured.value` is one of these.
        """
        if output is None:
            return await self._call("query/run", query_params(prompt, options), QueryRunResult, None)
        options["output_schema"] = schema_of(output)
        result = await self._call("query/run", query_params(prompt, options), QueryRunResult, None)
        return typed(result, output)

    def stream(self, prompt: Prompt, **options: Unpack[QueryOptions]) -> "Stream":
        """Run one turn and return its events as they happen; it begins when it is first waited for."""
        token = next(self._tokens)
        params = query_params(prompt, options, token)

        async def begin() -> AsyncPending:
            return await self._link.call("query/run", params, token)

        return Stream(self._link, begin)

    def events(self, session_id: str, cursor: str | None = None) -> "SessionEvents":
        """Watch a session, whoever works in it: its events from *cursor* (None: the beginning), then live.

        Watching ends when the loop is left; the session goes on. One watch of a session at a time per client.
        """
        return SessionEvents(self, self._link, session_id, cursor)

    async def close(self) -> None:
        """Close the connection; turns that still run on it are cancelled. Does nothing the second time."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        await self.close()

    async def _call(self, method: str, params: msgspec.Struct, result: type[T], timeout_s: float | None) -> T:
        try:
            async with asyncio.timeout(timeout_s) as limit:
                for _ in range(FRESH_STARTS):
                    call = await self._link.call(method, params)
                    await self._link.wait(call)
                    if not (isinstance(call.pending.error, DrainingError) and await self._link.renew()):
                        break
        except TimeoutError:
            if not limit.expired():
                raise
            raise RequestTimeoutError(f"No answer to {method} within {timeout_s:g} s.") from None
        answer: T = call.pending.take(result)
        return answer


class Stream:
    """One turn's events, in order: `async for event in stream`, then `await stream.result()`.

    Leaving the loop early cancels the turn. A turn that failed raises at the end of the loop; one that was
    cancelled here just ends it.
    """

    def __init__(self, link: AsyncLink, begin: Callable[[], Awaitable[AsyncPending]]) -> None:
        """Follow what *begin* starts; `Client.stream` makes these."""
        self._link = link
        self._begin = begin
        self._starting = asyncio.Lock()
        self._begun = 0
        self._call: AsyncPending | None = None
        self.last: StreamEventParams | None = None
        """The event read last as it came, with its `session_id` and, if it is durable, `seq` and `cursor`."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Return the events that have not been read yet."""
        return _Events(self)

    async def texts(self) -> AsyncIterator[str]:
        """Yield the answer's text piece by piece, each character once, instead of the events."""
        growing = GrowingText()
        async for event in self:
            if piece := growing.new_text(event):
                yield piece

    async def result(self) -> QueryRunResult:
        """Wait for the end, passing over events not read, and return it; raises if the turn failed."""
        while await self.next_event(raising=False) is not None:
            continue
        assert self._call is not None
        result: QueryRunResult = self._call.pending.take(QueryRunResult)
        return result

    async def cancel(self) -> None:
        """Stop the turn and wait until it has stopped (bounded); `result` then raises."""
        call = await self._started()
        self._link.cancel(call.pending)
        try:
            async with asyncio.timeout(CANCEL_S):
                await self._link.wait(call)
        except TimeoutError:
            return

    async def __aenter__(self) -> Self:
        """Begin the turn."""
        await self._started()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the turn if it still runs, and wait until it has stopped."""
        if self._call is not None and not self._call.pending.answered:
            await self.cancel()

    async def next_event(self, *, raising: bool = True) -> Event | None:
        """Return the next event, None after the last; *raising*: a turn that failed raises there."""
        pending = await self._wait()
        if pending.events:
            self.last = pending.events.popleft()
            return self.last.event
        if raising and pending.error is not None and not pending.cancelled:
            raise pending.error
        return None

    async def _wait(self) -> Pending:
        """Wait for an event or the end, beginning anew with the successor of a daemon that was draining."""
        while True:
            call = await self._started()
            await self._link.wait(call, for_event=True)
            drained = isinstance(call.pending.error, DrainingError) and self._begun < FRESH_STARTS
            if not (drained and await self._link.renew()):
                return call.pending
            self._call = None

    async def _started(self) -> AsyncPending:
        async with self._starting:
            if self._call is None:
                self._call = await self._begin()
                self._begun += 1
            return self._call

    def leave(self) -> None:
        """Cancel the turn if it still runs, without waiting; safe to call from a finalizer."""
        if self._call is not None and not self._call.pending.answered:
            self._link.cancel_soon(self._call.pending)


class SessionEvents:
    """A session's events without gap or duplicate: `async for event in claude.events(session_id)`.

    It never ends by itself. A reader that was too slow is attached again where it was. A lost connection
    raises; looping again goes on from there.
    """

    def __init__(self, claude: Client, link: AsyncLink, session_id: str, cursor: str | None) -> None:
        """Watch from *cursor*; `Client.events` makes these."""
        self._claude = claude
        self._link = link
        self._cursor = cursor
        self._changed = asyncio.Event()
        self._watch = Watch(session_id, self._changed.set)
        self._watch.broken = True
        self.last: StreamEventParams | None = None
        """The event read last as it came, with its `session_id` and, if it is durable, `seq` and `cursor`."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Attach, and return the events."""
        return _Events(self)

    async def next_event(self) -> Event:
        """Return the next event, waiting for it."""
        watch = self._watch
        while not watch.events:
            self._changed.clear()
            if watch.broken:
                await self._attach()
            elif not watch.events:
                await self._changed.wait()
                if not watch.events:
                    self._link.check()
        self.last = watch.events.popleft()
        self._cursor = self.last.cursor or self._cursor
        return self.last.event

    async def _attach(self) -> None:
        # Once this is answered, nothing of an earlier subscription comes any more.
        await self._claude.stream_detach(session_id=self._watch.session_id)
        self._link.conversation.watch(self._watch)
        await self._claude.stream_attach(session_id=self._watch.session_id, cursor=self._cursor)

    def leave(self) -> None:
        """Stop watching, without waiting; safe to call from a finalizer."""
        self._link.unwatch_soon(self._watch)


class _Events:
    """An `async for`; when the loop is left, this object goes, and the turn or the watch with it."""

    def __init__(self, stream: "Stream | SessionEvents") -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self._stream.next_event()
        if event is None:
            raise StopAsyncIteration
        return event

    def __del__(self) -> None:
        self._stream.leave()
