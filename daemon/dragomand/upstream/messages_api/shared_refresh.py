"""Slow, blocking work that many wait for and one thread does: finding and renewing a cloud's credential."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedRefresh(Generic[T]):
    """Runs *work* in a thread of its own, never twice at once.

    The thread is not one of the loop's: work that hangs takes none away from those who look up hosts, and the
    end of the process does not wait for it. Whoever waits gives up after *timeout_s*; the work goes on, and
    who comes later joins it.
    """

    def __init__(self, work: Callable[[], T], *, timeout_s: float, name: str) -> None:
        """Do nothing yet; *name* is the thread's."""
        self._work = work
        self._timeout_s = timeout_s
        self._name = name
        self._running: asyncio.Future[T] | None = None

    def begin(self) -> "asyncio.Future[T]":
        """Start the work unless it runs; nobody has to wait for it."""
        if self._running is None:
            future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_seen)
            threading.Thread(target=self._run, args=(future,), daemon=True, name=self._name).start()
            self._running = future  # it cannot be done before: its end comes through the loop
        return self._running

    async def result(self) -> T:
        """Return what the work returns, or raise what it raises; `TimeoutError` after the deadline."""
        running = self.begin()
        async with asyncio.timeout(self._timeout_s):
            return await asyncio.shield(running)

    def _run(self, future: "asyncio.Future[T]") -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = self._work()
        except BaseException as failed:  # noqa: BLE001  # whatever it is belongs to those who wait
            error = failed
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            future.get_loop().call_soon_threadsafe(self._settle, future, result, error)

    def _settle(self, future: "asyncio.Future[T]", result: Any, error: BaseException | None) -> None:
        self._running = None
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            future.set_exception(error)
        else:
            future.set_exception(RuntimeError(f"{self._name} ended with {type(error).__name__}"))


def _seen(future: "asyncio.Future[T]") -> None:
    """Look at the error, so that one that nobody waits for is no complaint."""
    if not future.cancelled():
        future.exception()
