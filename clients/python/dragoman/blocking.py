"""A conversation over a blocking socket, for one thread or several: no asyncio, no thread of its own.

One lock guards the conversation. Whoever waits for an answer reads, one thread at a time (it *leads*), and
what it reads for others wakes them; when it has what it waited for, another leads. A question to the person
(`on_permission`, `on_budget`) is put by the thread that happened to read it, with the lock released, so that
the callable may itself make calls.

An exception at the wrong moment (Ctrl-C between reading bytes and understanding them) closes the connection,
which cancels what runs on it; a half-understood conversation is never continued.
"""

import contextlib
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
from dragoman_protocol.budget import BudgetRaiseParams, BudgetRaiseResult
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams

from dragoman.conversation import QUIET_S, Conversation, Pending, Watch
from dragoman.errors import ConnectionClosedError, DragomanError, RequestError
from dragoman.questions import Answerers

CANCEL_S = 10.0
"""How long, in seconds, an interrupted call waits for the daemon's word that its turn has stopped."""

_CHUNK = 1 << 18
_DONE = select.POLLIN | select.POLLHUP | select.POLLERR

OnPermission = Callable[[PermissionRequestParams], bool | PermissionDecision]
"""Asked before a tool runs; True allows it, False denies it."""
OnBudget = Callable[[BudgetRaiseParams], float | BudgetRaiseResult | None]
"""Asked before a turn is refused because a budget is spent: the new cap in dollars; None: it stays."""


class LateError(Exception):
    """A deadline came before what was waited for."""


class Link:
    """Moves the bytes of a `Conversation`."""

    def __init__(
        self,
        opener: Callable[[], socket.socket],
        begin: Callable[[], Conversation],
        answerers: Answerers,
        *,
        quiet_s: float = QUIET_S,
    ) -> None:
        """Connect with *opener* (called again if the daemon was leaving) and *begin* a conversation.

        Raises what *opener* raises. *answerers* answer the daemon's questions. *quiet_s*: see
        `dragoman.conversation.QUIET_S`.
        """
        self.conversation = begin()
        self._begin = begin
        self._opener = opener
        self._answerers = answerers
        self._quiet_s = quiet_s
        self._heard_at = time.monotonic()
        self._changed = threading.Condition(threading.Lock())
        self._leading = False
        self._closed = False
        self._socket = self._connect()
        self._wakes, self._woken = socket.socketpair()
        self._wakes.setblocking(False)
        self._woken.setblocking(False)

    def _connect(self) -> socket.socket:
        connection = self._opener()
        connection.setblocking(False)
        return connection

    # -- for callers

    def start(self, pending: Pending, params: msgspec.Struct) -> None:
        """Send a request; returns at once. A connection that was lost before is opened again."""
        with self._changed:
            if self._closed:
                raise ConnectionClosedError("connection_closed", "This client was closed.")
            if self.conversation.failed is not None:
                self._socket.close()
                self._socket = self._connect()
                self.conversation = self._begin()
            self._heard_at = time.monotonic()
            try:
                self.conversation.call(pending, params)
                self._flush()
            except RequestError:  # it cannot be said; nothing was
                raise
            except BaseException:
                self._break()
                raise

    def wait(self, ready: Callable[[], object], deadline: float | None = None) -> None:
        """Block until *ready* is true; `LateError` when the monotonic *deadline* comes first."""
        while True:
            leading = False
            try:
                with self._changed:
                    while self._leading and not ready():
                        self._changed.wait(_left(deadline))
                    if ready():
                        return
                    leading = self._leading = True
                self._exchange(deadline)
            finally:
                if leading:
                    with self._changed:
                        self._leading = False
                        if self._closed:
                            self._release()  # it was closed after the exchange, which left this to us
                        self._changed.notify_all()
            self._put_questions()

    def wait_or_cancel(self, pending: Pending, ready: Callable[[], object]) -> None:
        """As `wait`; if anything interrupts it, the request is cancelled and its end waited for, bounded."""
        try:
            self.wait(ready)
        except BaseException:
            self.abandon(pending)
            raise

    def cancel(self, pending: Pending) -> None:
        """Ask the daemon to cancel; returns at once."""
        with self._changed:
            self.conversation.cancel(pending)
            self._flush()

    def abandon(self, pending: Pending) -> None:
        """Cancel, and wait until the daemon has answered, at most `CANCEL_S`."""
        if pending.id is None:
            return
        self.cancel(pending)
        try:
            self.wait(lambda: pending.answered, time.monotonic() + CANCEL_S)
        except LateError:
            return

    def watch(self, watch: Watch) -> None:
        """Give a session's events to *watch*; `wait` for them."""
        with self._changed:
            self.conversation.watch(watch)

    def unwatch(self, watch: Watch) -> bool:
        """Let go of *watch*; returns whether the connection is still there to be told."""
        with self._changed:
            self.conversation.unwatch(watch)
            return self.conversation.failed is None

    def check(self) -> None:
        """Raise why the conversation is over, if it is."""
        if self.conversation.failed is not None:
            raise self.conversation.failed

    def renew(self) -> bool:
        """The daemon is draining: leave it, so that the next call finds another; False if it is in use."""
        with self._changed:
            if self.conversation.waiting or self._leading or self._closed:
                return False
            self._break()
            return True

    def close(self) -> None:
        """Say goodbye and close; whoever waits gets `ConnectionClosedError`. Does nothing the second time."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self.conversation.leave()
            self._flush()
            self.conversation.lost()
            if self._leading:
                self._wake()
            else:
                self._release()
            self._changed.notify_all()

    # -- the bytes

    def _exchange(self, deadline: float | None) -> None:
        """Wait for bytes once, and take and send what there is. Called by the leading thread only."""
        connection = self._socket
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(connection, select.POLLIN | (select.POLLOUT if self.conversation.out else 0))
        quiet = max(0.0, self._heard_at + self._quiet_s - time.monotonic())
        left = _left(deadline)
        with _rung_by_signals(self._wakes.fileno()):
            ready = dict(poll.poll(1000 * (quiet if left is None else min(left, quiet))))
        with self._changed:
            try:
                if ready.get(self._woken.fileno()):
                    self._woken.recv(_CHUNK)
                if self._closed:
                    self._release()
                elif ready.get(connection.fileno(), 0) & _DONE:
                    self._receive()
                elif not ready and time.monotonic() >= self._heard_at + self._quiet_s:
                    self._silence()
                self._flush()
            except BaseException:
                self._break()
                raise
        if not ready:
            _left(deadline)

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._heard_at = time.monotonic()
        if data:
            self.conversation.receive(data)
        elif self.conversation.start_afresh():
            self._socket.close()
            try:
                self._socket = self._connect()
            except DragomanError as failed:
                self.conversation.lost(failed)
        else:
            self._break()

    def _silence(self) -> None:
        self._heard_at = time.monotonic()
        if not self.conversation.silence():
            self._break()

    def _flush(self) -> None:
        """Send what can be sent without waiting; the rest is the leading thread's."""
        out = self.conversation.out
        while out:
            try:
                sent = self._socket.send(out)
            except BlockingIOError:
                if self._leading:
                    self._wake()
                return
            except OSError:
                # It closed. What it said before may still be read, and the end of that decides.
                out.clear()
                return
            del out[:sent]

    def _wake(self) -> None:
        try:
            self._wakes.send(b"w")
        except OSError:  # full: it is awake already
            return

    def _break(self) -> None:
        self.conversation.lost()
        self._socket.close()
        if self._leading:
            self._wake()  # a wait for a socket is not ended by closing it

    def _release(self) -> None:
        for each in (self._socket, self._wakes, self._woken):
            each.close()

    # -- the person

    def _put_questions(self) -> None:
        while True:
            with self._changed:
                if not self.conversation.questions:
                    return
                question = self.conversation.questions.popleft()
            answer = question.kind.no
            try:
                answer = question.kind.answer(self._answerers[question.kind](question.params))
            finally:
                with self._changed:
                    self.conversation.answer(question, answer)
                    self._flush()


@contextlib.contextmanager
def _rung_by_signals(fd: int) -> Iterator[None]:
    """Let a signal of the main thread's leave a byte at *fd*, unless somebody else wants those bytes.

    A signal that comes just before a system call does not interrupt it: without the byte, Ctrl-C could go
    unnoticed until the daemon says something.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
    try:
        yield
    finally:
        if before == -1:
            signal.set_wakeup_fd(-1)


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise LateError
    return left
