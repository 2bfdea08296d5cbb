"""How fast a queue moves, to say when somebody's turn will be.

Theory. The mean time between two grants, exponentially smoothed, of those intervals only at whose
beginning somebody was left waiting: the others measure idleness. Whoever has n before it is then expected
after (n + 1) such intervals. It is a forecast, not a promise.
"""

SMOOTHING = 0.1


class Pace:
    """The pace of one queue's grants. Times are seconds of one monotonic clock."""

    __slots__ = ("_interval", "_since")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._interval: float | None = None
        self._since: float | None = None

    def granted(self, now: float, left: int) -> None:
        """Note a grant after which *left* items still wait."""
        if self._since is not None and now >= self._since:
            took = now - self._since
            known = self._interval
            self._interval = took if known is None else known + SMOOTHING * (took - known)
        self._since = now if left else None

    def expected(self, ahead: int) -> float | None:
        """Return the seconds until the turn of whoever has *ahead* others before it; None: nobody knows."""
        return None if self._interval is None else (ahead + 1) * self._interval
