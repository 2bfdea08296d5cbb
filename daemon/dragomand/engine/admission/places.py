"""How many may run at once, and how many more where those who run wait for them.

Theory. Whoever holds a place may wait for something that it has started itself and that needs a place too:
a turn whose tool asks the daemon again. Were places simply counted, it could wait for itself. So each depth
(how many turns are above it) has a few places that only it can take: something at depth d waits only for what
runs at its own depth, which waits in turn only for what is deeper; the deepest waits for nobody.
"""

EWMA = 0.2


class Places:
    """Counts who is inside, by depth."""

    __slots__ = ("at", "limit", "mean_s", "nested", "running")

    def __init__(self, limit: int, nested: int) -> None:
        """Let *limit* inside at once, and where there is no room *nested* of each depth below the first."""
        self.limit = limit
        self.nested = nested
        self.running = 0
        self.at: dict[int, int] = {}
        """How many are inside of each depth below the first."""
        self.mean_s: float | None = None
        """How long one stays, lately; None until somebody has left."""

    def has_room(self, depth: int) -> bool:
        """Whether one of *depth* may enter now."""
        if self.running < self.limit:
            return True
        return depth > 0 and self.at.get(depth, 0) < self.nested

    def enter(self, depth: int) -> None:
        """One enters."""
        self.running += 1
        if depth:
            self.at[depth] = self.at.get(depth, 0) + 1

    def leave(self, depth: int, stayed_s: float) -> None:
        """One leaves after *stayed_s*. Raises `RuntimeError` if nobody is inside."""
        if not self.running:
            raise RuntimeError("a permit was given back that had not been given out")
        self.running -= 1
        if depth:
            self.at[depth] -= 1
        mean = self.mean_s
        self.mean_s = stayed_s if mean is None else mean + EWMA * (stayed_s - mean)

    def each_s(self) -> float | None:
        """Return in how many seconds one place becomes free, as it was lately; None: unknown."""
        return None if self.mean_s is None else self.mean_s / max(self.limit, 1)

    def text(self, what: str, setting: str) -> str:
        """Say that there is no room."""
        return f"{self.running} {what}s are running, as many as may ({setting} = {self.limit})."
