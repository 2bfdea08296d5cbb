"""A conversation on an asyncio loop: one protocol object, and tasks only for questions and a new start."""

import asyncio
import functools
import inspect
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
from dragoman_protocol.budget import BudgetRaiseParams, BudgetRaiseResult
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams
from dragoman_protocol.stream import StreamDetachParams

from dragoman.conversation import QUIET_S, Conversation, Pending, Watch
from dragoman.errors import ConnectionClosedError, LocateError
from dragoman.questions import Answerers, Question

CLOSE_S = 2.0
"""How long, in seconds, closing waits for what was said to be sent."""

Word = bool | PermissionDecision
"""What may be answered to a permission."""
OnPermission = Callable[[PermissionRequestParams], Word | Awaitable[Word]]
"""Asked before a tool runs: a function or a coroutine function; True allows it, False denies it."""
Cap = float | BudgetRaiseResult | None
"""What may be answered to a budget that is spent."""
OnBudget = Callable[[BudgetRaiseParams], Cap | Awaitable[Cap]]
"""Asked before a turn is refused because a budget is spent: a function or a coroutine function; the new cap
in dollars; None: it stays."""


class AsyncPending:
    """One request in flight, with the event that its waiter sleeps on."""

    __slots__ = ("changed", "pending")

    def __init__(self, pending: Pending, changed: asyncio.Event) -> None:
        """Keep *pending*, and *changed*, which is set when something came for it."""
        self.pending = pending
        self.changed = changed


class AsyncLink:
    """Moves the bytes of a `Conversation`. It belongs to the loop that it was opened on."""

    def __init__(
        self,
        opener: Callable[[], socket.socket],
        begin: Callable[[Callable[[], None]], Conversation],
        answerers: Answerers,
        quiet_s: float = QUIET_S,
    ) -> None:
        """Connect with *opener* (in a thread; it may block) and *begin* a conversation when opened.

        *answerers* answer the daemon's questions.
        """
        self.conversation = begin(self._put_questions)
        self._begin = begin
        self._opener = opener
        self._answerers = answerers
        self._quiet_s = quiet_s
        self._transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writable = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._closed = False

    # -- for callers

    async def open(self) -> None:
        """Connect; raises what the opener raises."""
        self._loop = asyncio.get_running_loop()
        async with self._opening:
            if self._closed:
                raise ConnectionClosedError("connection_closed", "This client was closed.")
            if self._transport is None or self.conversation.failed is not None:
                if self.conversation.failed is not None:
                    self._leave_transport()
                    self.conversation = self._begin(self._put_questions)
                await self._connect()

    async def call(self, method: str, params: msgspec.Struct, token: int | None = None) -> AsyncPending:
        """Send a request. A connection that was lost before is opened again."""
        if self._transport is None or self.conversation.failed is not None or self._closed:
            await self.open()
        await self._writable.wait()
        changed = asyncio.Event()
        pending = Pending(method, changed.set, token)
        self.conversation.call(pending, params)
        self._watch_silence()
        self._flush()
        return AsyncPending(pending, changed)

    async def wait(self, call: AsyncPending, *, for_event: bool = False) -> None:
        """Wait for the answer, or for an event; a cancelled wait cancels the request on the daemon."""
        pending = call.pending
        try:
            while not (pending.answered or (for_event and pending.events)):
                call.changed.clear()
                await call.changed.wait()
        except asyncio.CancelledError:
            self.cancel(pending)
            raise

    def cancel(self, pending: Pending) -> None:
        """Ask the daemon to cancel; returns at once."""
        self.conversation.cancel(pending)
        self._flush()

    def cancel_soon(self, pending: Pending) -> None:
        """As `cancel`, from anywhere: a finalizer may run in any thread, and after the loop's end."""
        if self._loop is not None and not self._loop.is_closed() and not pending.answered:
            self._loop.call_soon_threadsafe(self.cancel, pending)

    def unwatch_soon(self, watch: Watch) -> None:
        """Let go of *watch* and tell the daemon, from anywhere, as `cancel_soon`."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._unwatch, watch)

    def _unwatch(self, watch: Watch) -> None:
        self.conversation.unwatch(watch)
        if self.conversation.failed is None:
            self.conversation.call(Pending("stream/detach"), StreamDetachParams(session_id=watch.session_id))
            self._flush()

    def check(self) -> None:
        """Raise why the conversation is over, if it is."""
        if self.conversation.failed is not None:
            raise self.conversation.failed

    async def renew(self) -> bool:
        """The daemon is draining: leave it, so that the next call finds another; False if it is in use."""
        if self.conversation.waiting or self._closed or self._transport is None:
            return False
        self.conversation.lost()
        self._leave_transport()
        return True

    async def close(self) -> None:
        """Say goodbye and close; whoever waits gets `ConnectionClosedError`. The second time does nothing."""
        self._closed = True
        self.conversation.leave()
        self._flush()
        self.conversation.lost()
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._ended.wait()
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()

    # -- the bytes

    def _leave_transport(self) -> None:
        """Let the connection go at once; what still comes from it is nobody's."""
        transport, self._transport = self._transport, None
        self._ended.set()
        self._writable.set()
        if transport is not None:
            transport.abort()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(None, self._opener)
        try:
            connection = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise
        connection.setblocking(False)
        self._heard_at = loop.time()
        await loop.create_unix_connection(lambda: _Wire(self), sock=connection)

    def _connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._ended.clear()
        self._writable.set()
        self._flush()

    def _received(self, data: bytes) -> None:
        assert self._loop is not None
        self._heard_at = self._loop.time()
        self.conversation.receive(data)
        self._flush()
        if self.conversation.failed is not None and self._transport is not None:
            self._transport.close()

    def _lost(self) -> None:
        """Start over with another daemon if this one had said nothing."""
        self._transport = None
        self._ended.set()
        self._writable.set()
        if not self._closed and self.conversation.start_afresh():
            self._own(self._again())
        else:
            self.conversation.lost()

    async def _again(self) -> None:
        try:
            async with self._opening:
                # A call that came meanwhile may have connected already, and said everything again.
                if self._transport is None and not self._closed:
                    await self._connect()
        except LocateError as failed:
            self.conversation.lost(failed)
        except OSError as failed:
            self.conversation.lost(
                ConnectionClosedError("connection_closed", f"Cannot connect again: {failed}.")
            )

    def _flush(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing() and self.conversation.out:
            transport.write(bytes(self.conversation.out))
            self.conversation.out.clear()

    # -- silence

    def _watch_silence(self) -> None:
        assert self._loop is not None
        if self._watch is None:
            self._heard_at = self._loop.time()
            self._watch = self._loop.call_later(self._quiet_s, self._listened)

    def _listened(self) -> None:
        assert self._loop is not None
        self._watch = None
        if not self.conversation.waiting:
            return
        left = self._heard_at + self._quiet_s - self._loop.time()
        if left <= 0:
            left = self._quiet_s
            if not self.conversation.silence():
                if self._transport is not None:
                    self._transport.abort()
                return
            self._flush()
        self._watch = self._loop.call_later(left, self._listened)

    # -- the person

    def _put_questions(self) -> None:
        while self.conversation.questions:
            question = self.conversation.questions.popleft()
            self._own(self._put(question), question.kind.failed)

    async def _put(self, question: Question) -> None:
        task = asyncio.current_task()
        assert task is not None
        question.withdrawn = task.cancel
        answer = question.kind.no
        try:
            word = self._answerers[question.kind](question.params)
            answer = question.kind.answer(await word if inspect.isawaitable(word) else word)
        finally:
            self.conversation.answer(question, answer)
            self._flush()

    def _own(self, coroutine: Coroutine[Any, Any, None], failed: str = "connecting again failed") -> None:
        """Run *coroutine* as a task of this link's; *failed* is what the loop is told if it raises."""
        assert self._loop is not None
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._done, failed))

    def _done(self, failed: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            assert self._loop is not None
            self._loop.call_exception_handler({"message": failed, "exception": error, "task": task})


class _Wire(asyncio.Protocol):
    """One connection's end: what comes too late from one that was left is nobody's."""

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self._transport: asyncio.Transport | None = None

    @property
    def _is_current(self) -> bool:
        return self._link._transport is self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._link._connected(transport)

    def data_received(self, data: bytes) -> None:
        if self._is_current:
            self._link._received(data)

    def pause_writing(self) -> None:
        if self._is_current:
            self._link._writable.clear()

    def resume_writing(self) -> None:
        if self._is_current:
            self._link._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_current:
            self._link._lost()


def _close_late(opening: "asyncio.Future[socket.socket]") -> None:
    """Nobody waits any more for this connection."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
