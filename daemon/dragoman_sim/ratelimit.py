"""The API's own rate limits: real token buckets per credential, and the headers that tell of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from dragoman_sim.script import Limits

_MINUTE_S = 60.0


@dataclass(slots=True)
class _Bucket:
    """Refills continuously up to `capacity`; may go into debt."""

    per_minute: int
    capacity: float
    level: float
    at: float

    def refill(self, now: float) -> None:
        elapsed = max(0.0, now - self.at)
        self.level = min(self.capacity, self.level + elapsed * self.per_minute / _MINUTE_S)
        self.at = max(self.at, now)

    def wait_for(self, amount: float) -> float:
        """Seconds until *amount* is there; 0 if it is. No more than a full bucket is asked for."""
        missing = min(amount, self.capacity) - self.level
        return max(0.0, missing * _MINUTE_S / self.per_minute)


class RateLimit:
    """The buckets of every credential. Time is an argument: seconds of one monotonic clock."""

    def __init__(self, limits: Limits) -> None:
        """Apply *limits*."""
        self._limits = limits
        self._of: dict[str, dict[str, _Bucket]] = {}

    def admit(self, credential: str, input_tokens: int, now: float) -> float | None:
        """Take one request and its input from the buckets: None. Or seconds to wait, and nothing is taken.

        Output is only charged afterwards (`settle`), so its bucket refuses while it is in debt.
        """
        buckets = self._buckets(credential, now)
        wanted = {"requests": 1.0, "input-tokens": float(input_tokens), "output-tokens": 1.0}
        wait = max((bucket.wait_for(wanted[name]) for name, bucket in buckets.items()), default=0.0)
        if wait > 0 and self._limits.enforce:
            return wait
        for name, bucket in buckets.items():
            if name != "output-tokens":
                bucket.level -= wanted[name]
        return None

    def settle(self, credential: str, output_tokens: int, now: float) -> None:
        """Charge what was generated."""
        bucket = self._buckets(credential, now).get("output-tokens")
        if bucket is not None:
            bucket.level -= output_tokens

    def headers(self, credential: str, now: float, wall: float) -> list[tuple[str, str]]:
        """Return `anthropic-ratelimit-*-{limit,remaining,reset}`; *wall* is Unix time, for the resets."""
        headers: list[tuple[str, str]] = []
        for name, bucket in self._buckets(credential, now).items():
            full = wall + bucket.wait_for(bucket.capacity)
            reset = datetime.fromtimestamp(math.ceil(full), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            prefix = f"anthropic-ratelimit-{name}"
            headers += [
                (f"{prefix}-limit", str(bucket.per_minute)),
                (f"{prefix}-remaining", str(max(0, math.floor(bucket.level)))),
                (f"{prefix}-reset", reset),
            ]
        return headers

    def _buckets(self, credential: str, now: float) -> dict[str, _Bucket]:
        buckets = self._of.get(credential)
        if buckets is None:
            limits = self._limits
            given = {
                "requests": limits.requests_per_minute,
                "input-tokens": limits.input_tokens_per_minute,
                "output-tokens": limits.output_tokens_per_minute,
            }
            share = limits.burst_s / _MINUTE_S
            buckets = {
                name: _Bucket(size, max(1.0, size * share), max(1.0, size * share), now)
                for name, size in given.items()
                if size
            }
            self._of[credential] = buckets
        for bucket in buckets.values():
            bucket.refill(now)
        return buckets
