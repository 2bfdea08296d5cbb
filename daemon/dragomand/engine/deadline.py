"""A turn's deadline, which stands still while a person is being asked."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio


class Deadline:
    """Cancels a scope after *timeout_s* seconds of which time spent in `paused` does not count."""

    def __init__(self, timeout_s: float | None, clock: Callable[[], float] = anyio.current_time) -> None:
        """Start now; None: never. *clock* is the event loop's, which cancel scopes go by."""
        self._clock = clock
        self._pauses = 0
        self._left = math.inf if timeout_s is None else timeout_s
        self.scope = anyio.CancelScope(deadline=clock() + self._left)

    @property
    def expired(self) -> bool:
        """Whether the deadline ended the scope."""
        return self.scope.cancelled_caught

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock for the block; blocks may overlap."""
        if not self._pauses:
            self._left = self.scope.deadline - self._clock()
            self.scope.deadline = math.inf
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                self.scope.deadline = self._clock() + self._left
