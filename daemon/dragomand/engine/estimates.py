"""What a turn will probably cost: what is reserved of a budget before it runs.

A moving mean of what turns of the same upstream and model did cost, each new one with a weight of one eighth;
before any has ended, a guess. Never more than the turn's own cap. Money in millionths of a dollar.
"""

WEIGHT = 8
"""A new cost moves the mean by this part of the difference."""
GUESS = {"claude_code": 50_000, "messages_api": 10_000, "gateway": 10_000}
"""Before anything is known: five cents a turn, one cent a call."""
MOST_MODELS = 256
"""So many pairs are remembered; the oldest is forgotten."""


class Estimates:
    """Means by upstream and model."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._means: dict[tuple[str, str], int] = {}

    def of(self, upstream: str, model: str | None, cap: int | None = None) -> int:
        """Return what a turn of *model* (None: the upstream's choice) will probably cost, at most *cap*."""
        mean = self._means.get((upstream, model or ""), GUESS.get(upstream, 0))
        return mean if cap is None else min(mean, cap)

    def learn(self, upstream: str, model: str | None, cost: int) -> None:
        """A turn has cost this much. *model* is as it was asked for, so that the next such turn finds it."""
        key = (upstream, model or "")
        known = self._means.pop(key, None)
        self._means[key] = cost if known is None else known + (cost - known) // WEIGHT
        if len(self._means) > MOST_MODELS:
            del self._means[next(iter(self._means))]
