"""What a credential has used of its quotas: a subscription's windows, and a spend cap."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dragoman_sim.script import Limits, Window

NAMES = {"5h": "five_hour", "7d": "seven_day", "7d_oi": "seven_day_overage_included"}
"""The long names of windows, as `representative-claim` has them."""
_PREFIX = "anthropic-ratelimit-unified-"


def long_name(short: str) -> str:
    """Return the name that goes with the *short* one of headers: `seven_day_opus` with `7d_opus`."""
    if short in NAMES:
        return NAMES[short]
    span, line, rest = short.partition("_")
    return f"{NAMES.get(span, span)}{line}{rest}"


@dataclass(slots=True)
class _Used:
    """One window; it begins with the first request and begins anew after its time."""

    window: Window
    ends: float = -math.inf
    requests: int = 0
    tokens: int = 0

    def roll(self, now: float) -> None:
        if now >= self.ends:
            self.ends, self.requests, self.tokens = now + self.window.seconds, 0, 0

    @property
    def utilization(self) -> float:
        window = self.window
        shares = [
            used / most
            for used, most in ((self.requests, window.max_requests), (self.tokens, window.max_tokens))
            if most
        ]
        return max(shares, default=0.0)

    @property
    def status(self) -> str:
        if self.utilization >= 1:
            return "rejected"
        return "allowed_warning" if self.utilization >= self.window.warn_at else "allowed"


@dataclass(slots=True)
class Quota:
    """The quotas of one credential. Time is an argument: seconds of one monotonic clock."""

    limits: Limits
    spent_tokens: int = 0
    _windows: list[_Used] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing used."""
        self._windows = [_Used(window) for window in self.limits.windows]

    def used_up_for(self, now: float) -> float | None:
        """Return how many seconds the windows refuse; None while they do not."""
        for used in self._windows:
            used.roll(now)
        refusing = [used.ends - now for used in self._windows if used.utilization >= 1]
        return max(refusing) if refusing and not self.limits.overage else None

    @property
    def spent(self) -> bool:
        """Whether the spend cap is reached."""
        cap = self.limits.spend_tokens
        return cap is not None and self.spent_tokens >= cap

    def charge(self, requests: int, tokens: int, now: float) -> None:
        """Count what was used."""
        self.spent_tokens += tokens
        for used in self._windows:
            used.roll(now)
            used.requests += requests
            used.tokens += tokens

    def headers(self, now: float, wall: float) -> list[tuple[str, str]]:
        """Return `anthropic-ratelimit-unified-*`; *wall* is Unix time, for the resets."""
        if not self._windows:
            return []
        for used in self._windows:
            used.roll(now)
        deciding = max(self._windows, key=lambda used: (used.utilization, used.ends))
        over = self.limits.overage
        headers = [
            (f"{_PREFIX}status", deciding.status),
            (f"{_PREFIX}reset", _reset(deciding, now, wall)),
            (f"{_PREFIX}representative-claim", long_name(deciding.window.name)),
            (f"{_PREFIX}overage-status", "allowed" if over else "rejected"),
        ]
        if not over:
            headers.append((f"{_PREFIX}overage-disabled-reason", "out_of_credits"))
        for used in self._windows:
            prefix = f"{_PREFIX}{used.window.name}-"
            headers += [
                (f"{prefix}status", used.status),
                (f"{prefix}reset", _reset(used, now, wall)),
                (f"{prefix}utilization", f"{used.utilization:.4g}"),
            ]
            if used.status != "allowed":
                passed = 1.0 if used.utilization >= 1 else used.window.warn_at
                headers.append((f"{prefix}surpassed-threshold", f"{passed:g}"))
        return headers


def _reset(used: _Used, now: float, wall: float) -> str:
    return str(math.ceil(wall + used.ends - now))
