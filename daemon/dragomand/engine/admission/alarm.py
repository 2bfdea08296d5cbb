"""One timer for everything at the door that time alone changes."""

import asyncio
from collections.abc import Callable

LONGEST_S = 60.0
"""It goes off after so long at the latest: the loop's clock stands still while the machine sleeps, the door's
does not."""
_EARLY_S = 0.001


class Alarm:
    """Calls back at the nearest of the instants that were asked for."""

    __slots__ = ("_at", "_clock", "_handle", "_ring", "_wanted")

    def __init__(self, clock: Callable[[], float], ring: Callable[[float], None]) -> None:
        """Call *ring* with the time of *clock*, which may also go on while the loop's stands still."""
        self._clock = clock
        self._ring = ring
        self._wanted: dict[object, float] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, who: object, at: float | None) -> None:
        """Ring at *at* for *who*, in place of what it wanted before; None: not at all."""
        if at is None:
            if self._wanted.pop(who, None) is None:
                return
        else:
            self._wanted[who] = at
        self._arm()

    def stop(self) -> None:
        """Never ring again."""
        self._wanted.clear()
        self._arm()

    def _arm(self) -> None:
        nearest = min(self._wanted.values(), default=None)
        if self._handle is not None:
            if nearest is not None and self._at <= nearest + _EARLY_S:
                return  # a little early does no harm: it is set anew then
            self._handle.cancel()
            self._handle = None
        if nearest is None:
            return
        self._at = nearest
        delay = min(max(nearest - self._clock(), 0.0), LONGEST_S) + _EARLY_S
        self._handle = asyncio.get_running_loop().call_later(delay, self._go)

    def _go(self) -> None:
        self._handle = None
        now = self._clock()
        self._wanted = {who: at for who, at in self._wanted.items() if at > now}
        self._ring(now)
        if self._handle is None:
            self._arm()
