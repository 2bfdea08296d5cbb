"""Whether a quota is used up, until when, and when it will be.

Theory. A quota is not a rate: it does not refill, it resets. When the provider says that one is used up
(`reject`), everything is parked until the instant it gave, and a little longer, by chance, so that not all
who wait come at once; then one call tries, and only its success lets the others go, so finding out costs
one call each time. Where no instant is given (a spend cap, an unpaid bill), one call tries after
`UNKNOWN_S`, or when a person says so. Windows are known by the names that the provider uses; new names
need no new code.

`observe` keeps how much of each window is used. From it `forecast` says when it runs out at the present
pace, the slope over the last half hour; and `when` keeps a share of each for people: batch work is parked
as soon as no more than that is left. All times are Unix time, because resets are.
"""

from collections import deque
from typing import NamedTuple

JITTER = 0.1
JITTER_LEAST_S, JITTER_MOST_S = 1.0, 60.0
UNKNOWN_S = 3600.0
"""When to try where the provider gives no instant."""
MOST_PARK_S = 100 * 86_400.0
"""A later reset is not believed: then it is as if none was given."""
MOST_WINDOWS = 16
"""How many windows are kept; the one heard of longest ago gives way."""
SAMPLE_EVERY_S = 60.0
SAMPLES = 31
"""Half an hour of them."""


class Parked(NamedTuple):
    """Why nothing may be sent."""

    until: float
    """When to try, in Unix time; infinity: when the call that tries has ended."""
    window: str


class Forecast(NamedTuple):
    """How a window stands."""

    window: str
    used: float | None
    """0 to 1; None: not said."""
    resets_at: float | None
    runs_out_at: float | None
    """At the present pace; None: not before it resets, or not known."""
    rejected: bool


class ParkingKept(NamedTuple):
    """A window as it is stored."""

    window: str
    used: float | None
    resets_at: float | None
    parked_until: float | None


class _Window:
    __slots__ = ("parked_until", "resets_at", "samples", "trying", "used")

    def __init__(self) -> None:
        self.used: float | None = None
        self.resets_at: float | None = None
        self.samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self.parked_until: float | None = None
        self.trying = 0
        """The number of the call that tries; 0: none does."""


class Parking:
    """The quota windows of one credential."""

    __slots__ = ("_tries", "_windows", "reserved_share")

    def __init__(self, reserved_share: float = 0.0) -> None:
        """Keep *reserved_share* (0 to 1) of each window for people. May be set at any time."""
        self.reserved_share = reserved_share
        self._windows: dict[str, _Window] = {}
        self._tries = 0

    # -- what the provider says

    def observe(self, window: str, now: float, *, used: float | None, resets_at: float | None) -> None:
        """Note that of *window* the share *used* (0 to 1, or more) is gone, and when it is new again."""
        known = self._window(window)
        if resets_at is not None and abs(resets_at - now) <= MOST_PARK_S:
            if known.resets_at is not None and resets_at > known.resets_at + SAMPLE_EVERY_S:
                known.samples.clear()
                known.used = None
            known.resets_at = resets_at
        if used is not None and 0 <= used < 1e6:
            known.used = used
            if not known.samples or now - known.samples[-1][0] >= SAMPLE_EVERY_S:
                known.samples.append((now, used))

    def reject(self, window: str, now: float, chance: float, resets_at: float | None = None) -> Parked:
        """Park everything: *window* is used up until *resets_at*; *chance* is 0 to 1."""
        known = self._window(window)
        if resets_at is None or not now < resets_at <= now + MOST_PARK_S:
            until = now + UNKNOWN_S
        else:
            known.resets_at = until = resets_at
        jitter = min(JITTER_MOST_S, max(JITTER_LEAST_S, JITTER * (until - now)))
        known.parked_until = until + jitter * chance
        known.trying = 0
        return Parked(known.parked_until, window)

    # -- calls

    def when(self, now: float, *, batch: bool = False) -> Parked | None:
        """Return None if a call may be sent now, or until when it is parked, and by which window."""
        binds: Parked | None = None
        for name, window in self._windows.items():
            until = self._until(window, now, batch)
            if until is not None and (binds is None or until > binds.until):
                binds = Parked(until, name)
        return binds

    def begin(self, now: float) -> int:
        """Begin a call that `when` lets pass; returns a number if it is the one that tries, else 0."""
        tries = 0
        for window in self._windows.values():
            if window.parked_until is not None and now >= window.parked_until and not window.trying:
                tries = tries or self._next_try()
                window.trying = tries
        return tries

    def ended(self, number: int, *, succeeded: bool) -> None:
        """Report the end of a call that tried: its success opens the windows, else another may try.

        After `reject` it changes nothing more.
        """
        for window in self._windows.values():
            if number and window.trying == number:
                window.trying = 0
                if succeeded:
                    window.parked_until = None

    def resume(self, window: str | None = None) -> bool:
        """Let calls go at once, of one *window* or all: a person knows better. Tells if any was parked."""
        chosen = [known for name, known in self._windows.items() if window in (None, name)]
        parked = [known for known in chosen if known.parked_until is not None]
        for known in parked:
            known.parked_until = None
            known.trying = 0
            known.used = None
        return bool(parked)

    # -- what is told and kept

    def forecast(self, now: float) -> list[Forecast]:
        """Return how each window stands."""
        return [
            Forecast(name, window.used, window.resets_at, _runs_out_at(window, now), _is_parked(window))
            for name, window in self._windows.items()
            if not _is_over(window, now)
        ]

    def snapshot(self) -> list[ParkingKept]:
        """Return what to store."""
        return [
            ParkingKept(name, window.used, window.resets_at, window.parked_until)
            for name, window in self._windows.items()
        ]

    def restore(self, kept: list[ParkingKept], now: float) -> None:
        """Go on from an earlier life."""
        for name, used, resets_at, parked_until in kept:
            self.observe(name, now, used=used, resets_at=resets_at)
            if parked_until is not None:
                self._window(name).parked_until = min(parked_until, now + MOST_PARK_S + JITTER_MOST_S)

    # -- within

    def _window(self, name: str) -> _Window:
        window = self._windows.pop(name, None)
        if window is None:
            window = _Window()
            if len(self._windows) >= MOST_WINDOWS:
                self._windows.pop(self._least())
        self._windows[name] = window
        return window

    def _least(self) -> str:
        """The one heard of longest ago that parks nothing; if all do, the one heard of longest ago."""
        idle = (name for name, window in self._windows.items() if window.parked_until is None)
        return next(idle, next(iter(self._windows)))

    def _until(self, window: _Window, now: float, batch: bool) -> float | None:
        if window.parked_until is not None:
            if now < window.parked_until:
                return window.parked_until
            if window.trying:
                return float("inf")
        kept = batch and window.used is not None and window.used >= 1 - self.reserved_share
        if kept and self.reserved_share > 0 and window.resets_at is not None and now < window.resets_at:
            return window.resets_at
        return None

    def _next_try(self) -> int:
        self._tries += 1
        return self._tries


def _is_parked(window: _Window) -> bool:
    return window.parked_until is not None


def _is_over(window: _Window, now: float) -> bool:
    return not _is_parked(window) and window.resets_at is not None and now >= window.resets_at


def _runs_out_at(window: _Window, now: float) -> float | None:
    if len(window.samples) < 2 or window.used is None:
        return None
    (first_at, first), (last_at, last) = window.samples[0], window.samples[-1]
    pace = (last - first) / (last_at - first_at)
    if pace <= 0:
        return None
    at = max(now, last_at + (1 - last) / pace)
    return at if window.resets_at is None or at < window.resets_at else None
