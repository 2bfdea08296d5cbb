"""The starting of processes: a few at a time, and for a while none of a kind that crashes again and again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from dragomand.upstream.interface import Failure, StartBreaker, UpstreamError


@dataclass(frozen=True, slots=True)
class Kind:
    """What a start has in common with others that would crash for the same reason."""

    key: str
    plain: bool = True
    """Whether there is nothing in it that its client has brought along."""


class Look(Protocol):
    """How a breaker stands. Times are the event loop's."""

    @property
    def state(self) -> Literal["closed", "open", "half_open"]:
        """A word for it."""

    @property
    def failures(self) -> int:
        """Crashes in a row."""

    @property
    def opened_at(self) -> float | None:
        """None: it is closed."""

    @property
    def retry_at(self) -> float | None:
        """None: it is not open."""


class Breaker(Protocol):
    """Stops starts that crash anyway. Times are the event loop's, in seconds; kinds are opaque."""

    def is_open(self, kind: str) -> bool:
        """Whether starts of this kind are refused, but for one that tries."""

    def refusal(self, kind: str, now: float, *, plain: bool = True) -> float | None:
        """Return how long a start has to wait; None: not at all."""

    def started(self, kind: str, now: float) -> None:
        """A start succeeded."""

    def crashed(self, kind: str, now: float, *, plain: bool = True) -> None:
        """A start, or a process that nobody used yet, crashed."""

    def look(self, now: float) -> Iterable[tuple[bool, Look]]:
        """Return what counts, each with whether it stops every kind that is new."""

    def reset(self) -> int:
        """Let all kinds start at once; returns how many breakers were not closed."""


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
        return not self.waiting and not self._places.locked()

    def is_sound(self, kind: Kind) -> bool:
        """Whether a start of this kind is not expected to crash."""
        return self._breaker is None or not self._breaker.is_open(kind.key)

    async def start(self, kind: Kind, start: Callable[[], Awaitable[None]]) -> None:
        """Carry out *start* when there is a place; raises `UpstreamError`, its own or the breaker's."""
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            self._check(kind)
            await start()
        except UpstreamError as error:
            if error.failure.category in ("crash", "protocol") and error.failure.retry_after_ms is None:
                self.crashed(kind)
            raise
        else:
            if self._breaker is not None:
                self._breaker.started(kind.key, _now())
        finally:
            self.running -= 1
            self._places.release()
            if not self.waiting:
                self.on_free()

    def crashed(self, kind: Kind) -> None:
        """Count a crash of something that was hardly started."""
        if self._breaker is not None:
            self._breaker.crashed(kind.key, _now(), plain=kind.plain)

    def breakers(self) -> list[StartBreaker]:
        """Return what stops starts, or may soon."""
        now, wall = _now(), time.time()
        return [
            StartBreaker(
                of_all=of_all,
                state=look.state,
                failures=look.failures,
                opened_at=None if look.opened_at is None else wall - (now - look.opened_at),
                retry_at=None if look.retry_at is None else wall + look.retry_at - now,
            )
            for of_all, look in (() if self._breaker is None else self._breaker.look(now))
        ]

    def reset(self) -> int:
        """Let what crashed start at once; returns how many breakers were not closed."""
        return 0 if self._breaker is None else self._breaker.reset()

    def _check(self, kind: Kind) -> None:
        breaker = self._breaker
        wait = None if breaker is None else breaker.refusal(kind.key, _now(), plain=kind.plain)
        if wait is not None:
            text = f"Claude Code crashed at its start several times; the next attempt is in {wait:.0f} s."
            raise UpstreamError(Failure("crash", text, retry_after_ms=max(1, round(wait * 1000))))


def _now() -> float:
    return asyncio.get_running_loop().time()
