"""The breakers that stop the starting of Claude Code's processes, as they are told and closed (04.11)."""

from dragoman_protocol.breaker import BreakerInfo

from dragomand.upstream.interface import StartBreaker, Starting

HOST = "claudeCode"
"""What they are told as, where a provider's have its host."""


class StartBreakers:
    """Those of one upstream."""

    def __init__(self, starting: Starting) -> None:
        """*starting* owns them."""
        self._starting = starting

    def told(self) -> list[BreakerInfo]:
        """Return those that count something."""
        return [_told(each) for each in self._starting.start_breakers()]

    def reset(self, host: str | None, models: str | None) -> int:
        """Close them where *host* and *models* mean them; returns how many were not closed."""
        return 0 if host not in (None, HOST) or models else self._starting.reset_starts()


def _told(breaker: StartBreaker) -> BreakerInfo:
    # What exactly crashed may hold what is another client's own, so it is not told here.
    kind = "of several kinds" if breaker.of_all else "of one kind (settings, environment, folder)"
    reason = f"Claude Code crashed at its start, in starts {kind}; the errors of those turns say how."
    return BreakerInfo(
        host=HOST,
        models="",
        state=breaker.state,
        failures=breaker.failures,
        opened_at=breaker.opened_at,
        retry_at=breaker.retry_at,
        reason=None if breaker.state == "closed" else reason,
    )
