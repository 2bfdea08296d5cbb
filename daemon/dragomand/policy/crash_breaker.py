"""When to stop starting processes that die at once: the breaker of spawning.

Theory. It remembers the times of the crashes of the last `window_s` seconds. With `most` of them it opens:
`refusal` gives the seconds until the next attempt may be made. After that time one attempt is let through
(half open); its success closes the breaker and forgets the crashes, its crash opens it again, for twice as
long, at most `longest_s`. An attempt that never reports back (it was cancelled) blocks the others no longer
than one opening lasts. Time is an argument and may stand still, not run backwards.
"""

from collections import deque
from typing import Literal, NamedTuple


class CrashState(NamedTuple):
    """How a breaker stands."""

    state: Literal["closed", "open", "half_open"]
    """Half open: one attempt is let through, or under way."""
    failures: int
    """Crashes in a row."""
    opened_at: float | None
    """When it opened; None: it is closed."""
    retry_at: float | None
    """When the next attempt is let through; None: it is not open."""
    is_recent: bool
    """Whether it is open, or a crash still counts towards opening it."""


class CrashBreaker:
    """Counts crashes of starts."""

    def __init__(
        self, *, most: int = 3, window_s: float = 60.0, open_s: float = 10.0, longest_s: float = 300.0
    ) -> None:
        """Open after *most* crashes within *window_s* seconds, first for *open_s*, then longer."""
        self._most = most
        self._window_s = window_s
        self._first_s = open_s
        self._longest_s = longest_s
        self._open_s = open_s
        self._crashes: deque[float] = deque(maxlen=most)
        self._closed_until: float | None = None
        """When the next attempt may be made; None: the breaker is closed."""
        self._opened_at = 0.0
        self._trying = False
        """Whether an attempt was let through and has not been reported."""
        self._failures = 0

    @property
    def is_open(self) -> bool:
        """Whether only attempts that try it out are let through."""
        return self._closed_until is not None

    def refusal(self, now: float) -> float | None:
        """Return None if an attempt may begin, which then must be reported, or the seconds to wait."""
        if self._closed_until is None:
            return None
        if now < self._closed_until:
            return self._closed_until - now
        self._closed_until = now + self._open_s  # the one attempt; the others wait for what becomes of it
        self._trying = True
        return None

    def wait(self, now: float) -> float:
        """Return how many seconds an attempt would have to wait, without making one."""
        return 0.0 if self._closed_until is None else max(0.0, self._closed_until - now)

    def look(self, now: float) -> CrashState:
        """Return how it stands."""
        if self._closed_until is None:
            recent = bool(self._crashes) and now - self._crashes[-1] <= self._window_s
            return CrashState("closed", self._failures, None, None, recent)
        if self._trying or now >= self._closed_until:
            return CrashState("half_open", self._failures, self._opened_at, None, True)
        return CrashState("open", self._failures, self._opened_at, self._closed_until, True)

    def started(self, _now: float) -> None:
        """Report an attempt that succeeded."""
        self._crashes.clear()
        self._closed_until = None
        self._open_s = self._first_s
        self._trying = False
        self._failures = 0

    def crashed(self, now: float) -> None:
        """Report an attempt that ended in a crash."""
        self._trying = False
        self._failures += 1
        if self._closed_until is not None:
            self._open_s = min(self._open_s * 2, self._longest_s)
            self._closed_until = now + self._open_s
            return
        self._crashes.append(now)
        if len(self._crashes) == self._most and now - self._crashes[0] <= self._window_s:
            self._closed_until = now + self._open_s
            self._opened_at = now
