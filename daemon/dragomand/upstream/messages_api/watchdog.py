"""Notices that nothing comes any more: one timer a call, set anew only when it runs out."""

import asyncio
from collections.abc import Callable

from dragomand.upstream.messages_api.settings import DirectSettings


class Watchdog:
    """Watches one call. `late` says in the end what did not come."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: DirectSettings, bite: Callable[[], object]
    ) -> None:
        """Call *bite* once, when the first byte, the next byte, or the next word is too late."""
        self._loop = loop
        self._settings = settings
        self._bite = bite
        self._began = self._byte = self._word = loop.time()
        self._flowing = False
        self.late: str | None = None
        self._timer = loop.call_at(self._due()[0], self._look)

    def heard(self, *, words: bool) -> None:
        """A chunk came; *words*: more than pings."""
        now = self._byte = self._loop.time()
        if words:
            self._word = now
        if not self._flowing:
            # The next byte is due sooner than the first one was.
            self._flowing = True
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due()[0], self._look)

    def stop(self) -> None:
        """The call is over."""
        self._timer.cancel()

    def _due(self) -> tuple[float, str]:
        settings = self._settings
        if not self._flowing:
            span = settings.first_byte_timeout_s
            return self._began + span, f"sent no answer for {span:g} s"
        quiet = self._byte + settings.idle_timeout_s, f"sent nothing for {settings.idle_timeout_s:g} s"
        idle = self._word + settings.pings_timeout_s, f"sent only pings for {settings.pings_timeout_s:g} s"
        return min(quiet, idle)

    def _look(self) -> None:
        due, what = self._due()
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        self.late = what
        self._bite()
