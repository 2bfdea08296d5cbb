"""The one door: who may run a turn or make an API call now, who waits, who is turned away.

Two kinds of permit, each with a ceiling and a queue of its own: for a turn, and for one API call. A turn
whose calls go through the gateway holds no call permit between its calls, and a call that holds its own waits
for no other: nothing can wait for itself, nested agents included.

State and counting are pure (`policy`); this file adds waiting. A permit is settled on every path because it
is an async context manager: return, error, cancellation. Waiting happens outside any lock and ends with the
deadline, with the caller's cancellation, or with the grant, whichever is first. Where nobody waits, entering
costs a counter: every call of every turn goes through here.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio

from dragomand.policy.concurrency import Ceiling
from dragomand.policy.fair_queue import FairQueue, Priority

from .errors import EngineError

WaitingSink = Callable[[str, int], None]
"""Told once, when a turn has to wait: why (`concurrency`), and how many were waiting already."""


class Permit:
    """The right to run one turn, or to make one call."""

    __slots__ = ("queued_ms",)

    def __init__(self, queued_ms: int) -> None:
        """Remember how long, in milliseconds, it took to get."""
        self.queued_ms = queued_ms


class _Ticket:
    """One who waits."""

    __slots__ = ("called",)

    def __init__(self) -> None:
        self.called = asyncio.Event()


class Admission:
    """Owner of all admission state; shared by every client."""

    def __init__(
        self,
        *,
        max_running: int,
        max_queued: int,
        max_queued_per_client: int,
        clock: Callable[[], float],
        max_calls: int = 16,
    ) -> None:
        """Run at most *max_running* turns and *max_calls* calls at once; *clock* is monotonic, in seconds.

        The bounds of the queue hold for turns and for calls, each by itself.
        """
        bounds = (max_queued, max_queued_per_client)
        self._idle = asyncio.Event()
        self._idle.set()
        self._turns = _Line("turn", max_running, *bounds, clock, self._idle.clear, self._note_idle)
        self._calls = _Line("API call", max_calls, *bounds, clock, self._idle.clear, self._note_idle)
        self.on_idle: Callable[[], None] | None = None
        """Called, and must return at once, when the last turn or call has ended and none waits."""

    @property
    def running(self) -> int:
        """Turns that hold a permit."""
        return self._turns.running

    @property
    def queued(self) -> int:
        """Turns that wait for one."""
        return self._turns.queued

    @property
    def bounds(self) -> tuple[int, int, int]:
        """Most running, most queued, most queued of one client."""
        return self._turns.bounds

    @property
    def calls_running(self) -> int:
        """Calls that hold a permit."""
        return self._calls.running

    @property
    def calls_queued(self) -> int:
        """Calls that wait for one."""
        return self._calls.queued

    @property
    def max_calls(self) -> int:
        """Most calls at once."""
        return self._calls.bounds[0]

    def admit(
        self, client: str, *, priority: Priority, timeout_s: float | None, waiting: WaitingSink
    ) -> AbstractAsyncContextManager[Permit]:
        """Wait for a turn's permit, at most *timeout_s* seconds (None: without limit); hold it for the block.

        Raises `EngineError`: `queue_full` at once when a bound is reached, `queue_timeout` at the deadline.
        """
        return _Entry(self._turns, client, priority, timeout_s, waiting, bounded=True)

    def admit_call(
        self,
        client: str,
        *,
        priority: Priority,
        timeout_s: float | None,
        waiting: WaitingSink = lambda *_: None,
        of_a_turn: bool = False,
    ) -> AbstractAsyncContextManager[Permit]:
        """Wait for the permit of one API call, and hold it for the block; otherwise like `admit`.

        The call *of a turn* that runs is never refused for want of room in the queue: there are no more of
        them than turns.
        """
        return _Entry(self._calls, client, priority, timeout_s, waiting, bounded=not of_a_turn)

    async def until_idle(self) -> None:
        """Wait until no turn or call holds a permit and none waits for one."""
        await self._idle.wait()

    async def room(self, client: str) -> None:
        """Wait until *client* may line a turn up without being refused. The place is not reserved."""
        await self._turns.room(client)

    def _note_idle(self) -> None:
        if self._turns.running or self._calls.running:
            return
        self._idle.set()
        if self.on_idle is not None:
            self.on_idle()


class _Line:
    """One kind of permit: how many hold it, and who waits for it."""

    def __init__(
        self,
        what: str,
        most: int,
        max_queued: int,
        max_queued_per_client: int,
        clock: Callable[[], float],
        on_enter: Callable[[], None],
        on_empty: Callable[[], None],
    ) -> None:
        self._what = what
        self._ceiling = Ceiling(most)
        self._queue: FairQueue[_Ticket] = FairQueue(
            max_queued=max_queued, max_per_client=max_queued_per_client
        )
        self._clock = clock
        self._on_enter = on_enter
        self._on_empty = on_empty
        self._freed = asyncio.Event()

    @property
    def running(self) -> int:
        return self._ceiling.running

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def bounds(self) -> tuple[int, int, int]:
        return self._ceiling.limit, self._queue.max_queued, self._queue.max_per_client

    def enter(self) -> bool:
        """Take a permit if one is free and nobody waits for it; tells whether it did."""
        if self._queue or not self._ceiling.enter():
            return False
        self._on_enter()
        return True

    async def room(self, client: str) -> None:
        while not self._queue.has_room(client):
            await self._freed.wait()

    async def wait(
        self, client: str, priority: Priority, timeout_s: float | None, waiting: WaitingSink, *, bounded: bool
    ) -> int:
        """Wait for a permit; returns for how many milliseconds."""
        arrived = self._clock()
        ticket = _Ticket()
        refused = self._queue.put(client, priority, ticket, bounded=bounded)
        if refused is not None:
            raise self._full(refused)
        try:
            waiting("concurrency", self.queued - 1)
            with anyio.move_on_after(timeout_s):
                await ticket.called.wait()
        except BaseException:
            self._give_up(ticket)
            raise
        waited = round((self._clock() - arrived) * 1000)
        if not ticket.called.is_set():
            self._give_up(ticket)
            raise EngineError(
                "queue_timeout",
                f"The {self._what} waited {waited} ms and was not admitted: "
                f"{self.running} {self._what}s are running and {self.queued} wait. "
                "Send it again later, or with a longer queueTimeoutMs.",
                waited_ms=waited,
                queued=self.queued,
            )
        return waited

    def _full(self, refused: str) -> EngineError:
        if refused == "client":
            limit = self._queue.max_per_client
            text = f"This client has {limit} {self._what}s waiting already, as many as it may."
        else:
            limit = self._queue.max_queued
            text = f"{limit} {self._what}s wait already, as many as may."
        return EngineError(
            "queue_full", f"{text} Send it again when some have run.", queued=self.queued, limit=limit
        )

    def _give_up(self, ticket: _Ticket) -> None:
        # Called and cancelled in the same instant: the permit was ours already and must go on to the next.
        if self._queue.remove(ticket):
            self._tell_room()
        else:
            self.release()

    def release(self) -> None:
        """Give a permit back, or rather straight to whoever is next."""
        ticket = self._queue.next()
        if ticket is None:
            self._ceiling.leave()
            if not self._ceiling.running:
                self._on_empty()
        else:
            ticket.called.set()
            self._tell_room()

    def _tell_room(self) -> None:
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()


class _Entry:
    """Waits for a permit at the beginning of a block, gives it back at its end."""

    __slots__ = ("_asked", "_bounded", "_line")

    def __init__(
        self,
        line: _Line,
        client: str,
        priority: Priority,
        timeout_s: float | None,
        waiting: WaitingSink,
        *,
        bounded: bool,
    ) -> None:
        self._line = line
        self._asked = (client, priority, timeout_s, waiting)
        self._bounded = bounded

    async def __aenter__(self) -> Permit:
        if self._line.enter():
            return Permit(0)
        return Permit(await self._line.wait(*self._asked, bounded=self._bounded))

    async def __aexit__(self, *_: object) -> None:
        self._line.release()
