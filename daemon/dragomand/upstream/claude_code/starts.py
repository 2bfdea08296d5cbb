"""The starting of processes: a few at a time, and none for a while when they crash one after another."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from dragomand.upstream.interface import Failure, UpstreamError


class Breaker(Protocol):
    """Stops starts that crash anyway. Times are the event loop's, in seconds."""

    @property
    def is_open(self) -> bool:
        """Whether starts are refused, but for one that tries."""

    def refusal(self, now: float) -> float | None:
        """Return how long a start has to wait; None: not at all."""

    def started(self, now: float) -> None:
        """A start succeeded."""

    def crashed(self, now: float) -> None:
        """A start, or a process that nobody used yet, crashed."""


class Starts:
    """Everybody's starts."""

    def __init__(self, most: int, breaker: Breaker | None = None) -> None:
        """Let *most* processes start at once: more than there are cores only makes each slower."""
        self._places = asyncio.Semaphore(most)
        self._breaker = breaker
        self.running = 0
        """How many start now."""
        self.waiting = 0
        """How many wait for a place."""
        self.on_free: Callable[[], None] = lambda: None
        """Called when nobody waits for the place that has become free."""

    @property
    def is_free(self) -> bool:
        """Whether a start that nobody waits for would be in nobody's way."""
        is_open = self._breaker is not None and self._breaker.is_open
        return not self.waiting and not self._places.locked() and not is_open

    async def start(self, start: Callable[[], Awaitable[None]]) -> None:
        """Carry out *start* when there is a place; raises `UpstreamError`, its own or the breaker's."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            self._check()
            await start()
        except UpstreamError as error:
            if error.failure.category in ("crash", "protocol") and error.failure.retry_after_ms is None:
                self.crashed()
            raise
        else:
            if self._breaker is not None:
                self._breaker.started(_now())
        finally:
            self.running -= 1
            self._places.release()
            if not self.waiting:
                self.on_free()

    def crashed(self) -> None:
        """Count a crash of something that was hardly started."""
        if self._breaker is not None:
            self._breaker.crashed(_now())

    def _check(self) -> None:
        wait = None if self._breaker is None else self._breaker.refusal(_now())
        if wait is not None:
            text = f"Claude Code crashed at its start several times; the next attempt is in {wait:.0f} s."
            raise UpstreamError(Failure("crash", text, retry_after_ms=max(1, round(wait * 1000))))


def _now() -> float:
    return asyncio.get_running_loop().time()
