"""When to stop starting processes that die at once: a breaker for each kind of start, and one for all.

Theory. A start's *kind* is everything that decides how it begins, so one client's broken environment or
folder opens the breaker of that kind and of no other. What would break every start (the executable) shows as
crashes of *several* kinds that are *plain*, i.e. have nothing of their client's own that could be the reason,
without any success in between; that opens the breaker of all. Even then it does not stop kinds that have
started before. A start that both refuse waits for the later one. Kinds are remembered to a bound, the least
recent is forgotten first; a forgotten kind begins with a closed breaker.
"""

from collections import OrderedDict
from typing import Any

from .crash_breaker import CrashBreaker, CrashState


class CrashBreakers:
    """Counts crashes of starts, by kind. Time is an argument."""

    def __init__(self, *, most_kinds: int = 256, **figures: Any) -> None:
        """Remember *most_kinds* that crashed, and as many that worked; *figures* are `CrashBreaker`'s."""
        self._most_kinds = most_kinds
        self._figures = figures
        self._crashing: OrderedDict[str, CrashBreaker] = OrderedDict()
        self._working: OrderedDict[str, None] = OrderedDict()
        self._all = CrashBreaker(**figures)
        self._plain: set[str] = set()
        """The plain kinds that have crashed since anything worked."""

    @property
    def kinds(self) -> int:
        """How many kinds have crashed and not worked since."""
        return len(self._crashing)

    def is_open(self, kind: str) -> bool:
        """Whether only attempts that try it out are let through."""
        return any(breaker.is_open for breaker in self._of(kind))

    def refusal(self, kind: str, now: float, *, plain: bool = True) -> float | None:
        """Return None if an attempt may begin, which then must be reported, or the seconds to wait."""
        breakers = self._of(kind)
        wait = max((breaker.wait(now) for breaker in breakers), default=0.0)
        if wait > 0:
            return wait
        for breaker in breakers:
            if plain or breaker is not self._all:  # an attempt that is not plain proves nothing for all
                breaker.refusal(now)
        return None

    def started(self, kind: str, now: float) -> None:
        """Report an attempt that succeeded."""
        self._crashing.pop(kind, None)
        self._working[kind] = None
        self._working.move_to_end(kind)
        if len(self._working) > self._most_kinds:
            self._working.popitem(last=False)
        self._plain.clear()
        self._all.started(now)

    def crashed(self, kind: str, now: float, *, plain: bool = True) -> None:
        """Report an attempt that ended in a crash."""
        own = self._crashing.setdefault(kind, CrashBreaker(**self._figures))
        self._crashing.move_to_end(kind)
        if len(self._crashing) > self._most_kinds:
            self._crashing.popitem(last=False)
        own.crashed(now)
        if plain and kind not in self._working and (kind not in self._plain or self._all.is_open):
            self._plain.add(kind)
            if len(self._plain) > self._most_kinds:
                self._plain = {kind}
            self._all.crashed(now)

    def look(self, now: float) -> list[tuple[bool, CrashState]]:
        """Return how those stand that are open or may soon be; first the one for all, with True."""
        breakers = [(True, self._all), *((False, each) for each in self._crashing.values())]
        looks = [(is_all, breaker.look(now)) for is_all, breaker in breakers]
        return [(is_all, state) for is_all, state in looks if state.is_recent]

    def reset(self) -> int:
        """Close all and forget the crashes: a person knows better. Returns how many were not closed."""
        was = self._all.is_open + sum(each.is_open for each in self._crashing.values())
        self._crashing.clear()
        self._plain.clear()
        self._all = CrashBreaker(**self._figures)
        return was

    def _of(self, kind: str) -> list[CrashBreaker]:
        own = self._crashing.get(kind)
        return [each for each in (own, None if kind in self._working else self._all) if each is not None]
