"""Who is let in: the API's own limits of every kind, the words of each refusal, and what came of it all."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any

from dragoman_sim.faults import NAMED
from dragoman_sim.quota import Quota
from dragoman_sim.ratelimit import RateLimit
from dragoman_sim.records import Record
from dragoman_sim.script import Limits, RetryAfter, Status

FLIGHT_S = 0.1
"""So long, in seconds, after a refusal requests still come that were sent before it was heard of."""
_TOLERANCE_S = 0.005


@dataclass(slots=True)
class Counts:
    """What came to `/v1/messages`, and what became of it."""

    requests: int = 0
    admitted: int = 0
    throttled: int = 0
    """Refused by a limit a minute (429)."""
    quota: int = 0
    """Refused by a window or a spend cap."""
    early: int = 0
    """Came before the pause was over that an earlier refusal had asked for, and after it was heard of."""


@dataclass(slots=True)
class _Credential:
    """What is kept of one credential."""

    quota: Quota
    counts: Counts
    paused_until: float = -math.inf
    """The end of the longest pause that was heard of."""
    on_their_way: deque[tuple[float, float]] = field(default_factory=deque)
    """Pauses that cannot have been heard of yet: when each was asked for, and its end."""

    def is_early(self, now: float) -> bool:
        """Tell whether who comes now should have waited."""
        while self.on_their_way and self.on_their_way[0][0] + FLIGHT_S < now:
            self.paused_until = max(self.paused_until, self.on_their_way.popleft()[1])
        return now < self.paused_until - _TOLERANCE_S


class Door:
    """The limits of every credential. Time is an argument: seconds of one monotonic clock."""

    def __init__(self, limits: Limits) -> None:
        """Apply *limits*."""
        self._limits = limits
        self._rates = RateLimit(limits)
        self._of: dict[str, _Credential] = {}

    def admit(self, record: Record, input_tokens: int, now: float) -> Status | None:
        """Let a request in: None. Or return the answer that refuses it, and nothing is taken."""
        of = self._credential(record)
        of.counts.requests += 1
        of.counts.early += of.is_early(now)
        refusal, pause_s = self._refusal(record, of, input_tokens, now)
        if refusal is None:
            of.counts.admitted += 1
            of.quota.charge(1, input_tokens, now)
        elif pause_s is not None:
            of.on_their_way.append((now, now + pause_s))
        return refusal

    def settle(self, record: Record, output_tokens: int, now: float) -> None:
        """Charge what was generated."""
        self._rates.settle(record.credential_digest or "", output_tokens, now)
        self._credential(record).quota.charge(0, output_tokens, now)

    def headers(self, record: Record, now: float) -> list[tuple[str, str]]:
        """Return what the answer says of the limits: of a subscription the windows, else those a minute."""
        wall = time.time()
        of = self._of.get(record.credential_digest or "")
        told = of.quota.headers(now, wall) if of is not None and _is_subscription(record) else []
        return told or self._rates.headers(record.credential_digest or "", now, wall)

    def counts(self) -> dict[str, Any]:
        """Return the counts of each credential (by its digest), and of all."""
        each = {name: asdict(of.counts) for name, of in self._of.items()}
        total = {name: sum(one[name] for one in each.values()) for name in asdict(Counts())}
        return {"total": total, "credentials": each}

    def _credential(self, record: Record) -> _Credential:
        name = record.credential_digest or ""
        found = self._of.get(name)
        if found is None:
            found = self._of[name] = _Credential(Quota(self._limits), Counts())
        return found

    def _refusal(
        self, record: Record, of: _Credential, input_tokens: int, now: float
    ) -> tuple[Status | None, float | None]:
        """Return the refusal, and the pause that it asks for."""
        if self._limits.enforce and of.quota.spent:
            of.counts.quota += 1
            return self._spent(), None
        left = of.quota.used_up_for(now) if _is_subscription(record) else None
        if left is not None and self._limits.enforce:
            of.counts.quota += 1
            text = "This request would exceed your account's rate limit. Please try again later."
            return Status(429, message=text, retry_after=math.ceil(left)), math.ceil(left)
        wait = self._rates.admit(record.credential_digest or "", input_tokens, now)
        if wait is None:
            return None, None
        of.counts.throttled += 1
        return self._throttle(wait)

    def _throttle(self, wait: float) -> tuple[Status, float | None]:
        form: RetryAfter = self._limits.retry_after
        if form == "none":
            return Status(429), None
        if form == "ms":
            exact = math.ceil(wait * 1000)
            return Status(429, headers={"retry-after-ms": str(exact)}), exact / 1000
        if form == "date":
            wall = time.time()
            at = math.ceil(wall + wait)
            return Status(429, retry_after=formatdate(at, usegmt=True)), at - wall
        return Status(429, retry_after=math.ceil(wait)), math.ceil(wait)

    def _spent(self) -> Status:
        name = {"cap": "spend_cap", "limit": "spend_limit_400", "balance": "payment_required"}
        fault = NAMED[name[self._limits.spend_answer]]
        assert isinstance(fault, Status)
        return fault


def _is_subscription(record: Record) -> bool:
    """Tell whether the credential is a subscription's token: those come as `Authorization: Bearer`."""
    return record.credential == "authorization"
