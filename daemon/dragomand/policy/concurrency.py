"""How many turns may run at once: a fixed ceiling.

Theory. A counting semaphore without waiting: whoever cannot enter is told so and queues elsewhere. The rule
is `0 <= running <= ceiling` after every call; leaving without having entered is a bug and raises. Where the
ceiling comes from is not known here, so that one that moves (AIMD) can replace this one.
"""


class Ceiling:
    """Counts who is inside; at most *limit*."""

    def __init__(self, limit: int) -> None:
        """Let at most *limit* (1 or more) inside at once."""
        if limit < 1:
            raise ValueError(f"a ceiling of {limit} would let nobody in; it must be at least 1")
        self.limit = limit
        self.running = 0

    @property
    def free(self) -> int:
        """How many more may enter now."""
        return self.limit - self.running

    def enter(self) -> bool:
        """Enter if there is room; tells whether there was."""
        if self.running >= self.limit:
            return False
        self.running += 1
        return True

    def leave(self) -> None:
        """Leave. Raises `RuntimeError` if nobody is inside."""
        if not self.running:
            raise RuntimeError("a permit was given back that had not been given out")
        self.running -= 1
