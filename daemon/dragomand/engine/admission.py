"""The one door: who may run a turn now, who waits, who is turned away.

State and counting are pure (`policy`); this file adds waiting. A permit is settled on every path because it
is an async context manager: return, error, cancellation. Waiting happens outside any lock and ends with the
deadline, with the caller's cancellation, or with the grant, whichever is first.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from dragomand.policy.concurrency import Ceiling
from dragomand.policy.fair_queue import FairQueue, Priority

from .errors import EngineError

WaitingSink = Callable[[str, int], None]
"""Told once, when a turn has to wait: why (`concurrency`), and how many were waiting already."""


class Permit:
    """The right to run one turn."""

    __slots__ = ("queued_ms",)

    def __init__(self, queued_ms: int) -> None:
        """Remember how long, in milliseconds, it took to get."""
        self.queued_ms = queued_ms


class _Ticket:
    """One who waits."""

    __slots__ = ("called",)

    def __init__(self) -> None:
        self.called = anyio.Event()


class Admission:
    """Owner of all admission state; shared by every client."""

    def __init__(
        self, *, max_running: int, max_queued: int, max_queued_per_client: int, clock: Callable[[], float]
    ) -> None:
        """Run at most *max_running* turns at once; *clock* is monotonic, in seconds."""
        self._ceiling = Ceiling(max_running)
        self._queue: FairQueue[_Ticket] = FairQueue(
            max_queued=max_queued, max_per_client=max_queued_per_client
        )
        self._clock = clock
        self._freed = anyio.Event()
        self._idle = anyio.Event()
        self._idle.set()
        self.on_idle: Callable[[], None] | None = None
        """Called, and must return at once, when the last turn has ended and none waits."""

    @property
    def running(self) -> int:
        """Turns that hold a permit."""
        return self._ceiling.running

    @property
    def queued(self) -> int:
        """Turns that wait for one."""
        return len(self._queue)

    @property
    def bounds(self) -> tuple[int, int, int]:
        """Most running, most queued, most queued of one client."""
        return self._ceiling.limit, self._queue.max_queued, self._queue.max_per_client

    @asynccontextmanager
    async def admit(
        self, client: str, *, priority: Priority, timeout_s: float | None, waiting: WaitingSink
    ) -> AsyncIterator[Permit]:
        """Wait for a permit, at most *timeout_s* seconds (None: without limit), and hold it for the block.

        Raises `EngineError`: `queue_full` at once when a bound is reached, `queue_timeout` at the deadline.
        """
        arrived = self._clock()
        if self._idle.is_set():
            self._idle = anyio.Event()
        if self._queue or not self._ceiling.enter():
            await self._wait(client, priority, timeout_s, waiting, arrived)
        try:
            yield Permit(round((self._clock() - arrived) * 1000))
        finally:
            self._release()

    async def until_idle(self) -> None:
        """Wait until no turn holds a permit and none waits for one."""
        await self._idle.wait()

    async def room(self, client: str) -> None:
        """Wait until *client* may line up without being refused. The place is not reserved."""
        while not self._queue.has_room(client):
            await self._freed.wait()

    async def _wait(
        self, client: str, priority: Priority, timeout_s: float | None, waiting: WaitingSink, arrived: float
    ) -> None:
        ticket = _Ticket()
        refused = self._queue.put(client, priority, ticket)
        if refused is not None:
            raise self._full(refused)
        try:
            waiting("concurrency", self.queued - 1)
            with anyio.move_on_after(timeout_s):
                await ticket.called.wait()
        except BaseException:
            self._give_up(ticket)
            raise
        if not ticket.called.is_set():
            self._give_up(ticket)
            waited = round((self._clock() - arrived) * 1000)
            raise EngineError(
                "queue_timeout",
                f"The turn waited {waited} ms and was not admitted: {self.running} turns are running and "
                f"{self.queued} wait. Send it again later, or with a longer queueTimeoutMs.",
                waited_ms=waited,
                queued=self.queued,
            )

    def _full(self, refused: str) -> EngineError:
        if refused == "client":
            limit = self._queue.max_per_client
            text = f"This client has {limit} turns waiting already, as many as it may."
        else:
            limit = self._queue.max_queued
            text = f"{limit} turns wait already, as many as may."
        return EngineError(
            "queue_full", f"{text} Send it again when some have run.", queued=self.queued, limit=limit
        )

    def _give_up(self, ticket: _Ticket) -> None:
        # Called and cancelled in the same instant: the permit was ours already and must go on to the next.
        if self._queue.remove(ticket):
            self._tell_room()
        else:
            self._release()

    def _release(self) -> None:
        """Give a permit back, or rather straight to whoever is next."""
        ticket = self._queue.next()
        if ticket is None:
            self._ceiling.leave()
            if not self._ceiling.running:
                self._idle.set()
                if self.on_idle is not None:
                    self.on_idle()
        else:
            ticket.called.set()
            self._tell_room()

    def _tell_room(self) -> None:
        freed, self._freed = self._freed, anyio.Event()
        freed.set()
