"""What the provider says of its limits, whoever heard it: both upstreams and the gateway tell it here."""

from dragoman_protocol.limits import RateLimitSnapshot, RateWindow

from dragomand.upstream.limits_heard import LimitsHeard, LimitsKnown, OnLimits, nobody


class ProviderLimits:
    """Keeps the newest word on every limit, and passes each on to whoever acts on it."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._known = LimitsKnown()
        self.on_heard: OnLimits = nobody
        """Is told everything that was heard, late words too: they carry their `sent_order`."""

    def hear(self, heard: LimitsHeard) -> None:
        """Take what was *heard*; returns at once."""
        if heard.says_something or heard.absurd:
            self._known.hear(heard)
            self.on_heard(heard)

    @property
    def absurd(self) -> int:
        """How many values were not believed."""
        return self._known.absurd

    @property
    def late(self) -> int:
        """How much was heard after something that was sent later."""
        return self._known.late

    def snapshot(self) -> RateLimitSnapshot | None:
        """Return the newest word on every limit; None if nothing was said yet."""
        newest = self._known.newest
        if newest is None:
            return None
        windows = {
            name: RateWindow(each.limit, each.remaining, each.resets_at)
            for name, each in self._known.allowances.items()
        }
        for name, window in self._known.windows.items():
            windows[name] = RateWindow(
                reset_at=window.resets_at, status=window.status, utilization=window.utilization
            )
        pause = newest.retry_after_s
        return RateLimitSnapshot(
            seen_at=newest.heard_at,
            status=newest.status,
            windows=windows,
            retry_after_ms=None if pause is None else round(pause * 1000),
        )
