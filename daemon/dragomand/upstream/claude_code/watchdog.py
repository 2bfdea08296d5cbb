"""Notices when a process that should be talking says nothing.

Looking costs nothing while it talks: what comes only notes the time, and one timer looks at it when the
limit might be over.
"""

import asyncio
from collections.abc import Callable


class Watchdog:
    """Calls back once when nothing was heard for so long."""

    def __init__(
        self, limit_s: float, on_stall: Callable[[], None], may_be_silent: Callable[[], bool]
    ) -> None:
        """Allow *limit_s* seconds of silence; *may_be_silent* excuses it while it has a good reason."""
        self._limit_s = limit_s
        self._on_stall = on_stall
        self._may_be_silent = may_be_silent
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch from now on, until `stop` or the first stall."""
        self.stop()
        self.heard()
        self._timer = self._loop.call_at(self._until, self._look)

    def heard(self, extra_s: float = 0.0) -> None:
        """Something came; the next may take *extra_s* seconds longer than usual."""
        self._until = self._loop.time() + self._limit_s + extra_s

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._may_be_silent():
            self.heard()
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._timer = None
            self._on_stall()
