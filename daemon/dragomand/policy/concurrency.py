"""How many may run at once: a ceiling, fixed or moving.

Theory. A counting semaphore without waiting: whoever cannot enter is told so and queues elsewhere. Nobody
enters at or above the ceiling; lowering it throws nobody out. Leaving without having entered is a bug and
raises.

The moving one is AIMD (Chiu and Jain 1989): additive increase, multiplicative decrease, which lets
strangers who share a server converge to equal shares without talking. As many successes as the ceiling is
high make it one higher, and only those count at which at least half of it was in use: a ceiling that
nobody reaches proves nothing. A push-back (429, 529) makes it 0.7 times as high, at most once in 10 s,
because one overload shows in all calls under way at once. Latency is no signal here: how long an answer is
decides how long it takes.
"""

import math

RISE_USE = 0.5
"""How much of the ceiling must be in use for a success to count."""
CUT = 0.7
CUT_EVERY_S = 10.0


class Ceiling:
    """Counts who is inside; at most *limit*."""

    __slots__ = ("_limit", "running")

    def __init__(self, limit: int) -> None:
        """Let at most *limit* (1 or more) inside at once."""
        self.running = 0
        self.limit = limit

    @property
    def limit(self) -> int:
        """How many may be inside. May be set: whoever is inside stays."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a ceiling of {limit} would let nobody in; it must be at least 1")
        self._limit = limit

    @property
    def free(self) -> int:
        """How many more may enter now."""
        return max(0, self._limit - self.running)

    def enter(self) -> bool:
        """Enter if there is room; tells whether there was."""
        if self.running >= self._limit:
            return False
        self.running += 1
        return True

    def leave(self) -> None:
        """Leave. Raises `RuntimeError` if nobody is inside."""
        if not self.running:
            raise RuntimeError("a permit was given back that had not been given out")
        self.running -= 1


class MovingCeiling(Ceiling):
    """A ceiling that finds its height between *least* and *most*. Times: seconds, monotonic."""

    __slots__ = ("_cut_at", "_successes", "least", "most")

    def __init__(self, start: int = 4, *, least: int = 1, most: int = 32) -> None:
        """Begin at *start*, cut to the bounds."""
        self._successes = 0
        self._cut_at = -math.inf
        super().__init__(start)
        self.bound(least, most)

    def bound(self, least: int, most: int) -> None:
        """Set the bounds; the ceiling is cut to them at once."""
        if not 1 <= least <= most:
            raise ValueError(f"a ceiling between {least} and {most} cannot be; expected 1 <= least <= most")
        self.least, self.most = least, most
        self.limit = min(max(self.limit, least), most)

    def succeeded(self) -> None:
        """Report a call that succeeded, before it leaves."""
        if self.running < RISE_USE * self._limit:
            return
        self._successes += 1
        if self._successes >= self._limit:
            self._successes = 0
            self.limit = min(self.most, self._limit + 1)

    def pushed_back(self, now: float) -> bool:
        """Report a 429 or 529; tells whether the ceiling was lowered for it."""
        if now - self._cut_at < CUT_EVERY_S:
            return False
        self._cut_at = now
        self._successes = 0
        self.limit = max(self.least, int(self._limit * CUT))
        return True
