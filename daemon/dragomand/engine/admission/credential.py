"""What is known of one credential: whether it was refused, and whether its quota is used up.

A refused credential (401, 403) is let alone at once: a call that cannot succeed costs time, and may cost
the account. What can wait for hours (batch) waits on; a person is told what to do. Now and then one call
tries. A used up quota parks everything until the instant that the provider gave; one call finds out
(`policy.parking`).
"""

from datetime import datetime

from dragomand.engine.errors import EngineError
from dragomand.policy.parking import Parked, Parking

from .asked import Asked, Blocked

NEXT_STEP = "Replace it (`dragoman auth status` says which it is); a minute later it is tried again."


class Credential:
    """One credential's state; shared by all its pools. *now* is the door's clock, *wall* Unix seconds."""

    __slots__ = ("_probe", "_probe_at", "_reason", "clear", "name", "parking", "probe_s")

    def __init__(self, name: str, *, probe_s: float, reserved_share: float = 0.0) -> None:
        """Begin with a good one."""
        self.name = name
        self.parking = Parking(reserved_share)
        self.probe_s = probe_s
        self.clear = not reserved_share
        """Whether nothing at all is known against it: nothing else needs to be asked."""
        self._reason: str | None = None
        self._probe_at = 0.0
        self._probe: object | None = None

    @property
    def refused(self) -> bool:
        """Whether the provider refused it."""
        return self._reason is not None

    def blocks(self, asked: Asked, now: float, wall: float) -> Blocked | None:
        """Return why nothing may be sent with it now."""
        if self.clear:
            return None
        if self._reason is not None and (now < self._probe_at or self._probe is not None):
            return self._blocked_by_refusal(asked, now)
        parked = self.parking.when(wall, batch=asked.priority == "batch")
        return None if parked is None else _blocked_by_quota(self.name, parked, now, wall)

    def begin(self, permit: object, wall: float) -> int:
        """A call is sent that nothing blocks; returns the number of a call that tries the quota, or 0."""
        if self._reason is not None and self._probe is None:
            self._probe = permit
        return self.parking.begin(wall)

    def ended(self, permit: object, trial: int, *, succeeded: bool) -> None:
        """A call has ended, after `refuse` or `use_up` if it was told one of them."""
        if succeeded and self._reason is not None:
            self.restore()
        if self._probe is permit:
            self._probe = None
        if trial:
            self.parking.ended(trial, succeeded=succeeded)
        self._look()

    def refuse(self, reason: str, now: float) -> bool:
        """The provider refused it; tells whether that is news."""
        news = self._reason is None
        self._reason = reason
        self._probe_at = now + self.probe_s
        self._probe = None
        self.clear = False
        return news

    def restore(self) -> bool:
        """It is good again, or another one; tells whether it was not."""
        was = self._reason is not None
        self._reason = self._probe = None
        self._look()
        return was

    def parked_until(self, window: str) -> float | None:
        """Return until when (Unix seconds) *window* parks what waits; None: it does not."""
        for kept in self.parking.snapshot():
            if kept.window == window:
                return kept.parked_until
        return None

    def use_up(self, window: str, resets_at: float | None, chance: float, wall: float) -> Parked:
        """Its quota is used up."""
        self.clear = False
        return self.parking.reject(window, wall, chance, resets_at)

    def observe(self, window: str, used: float | None, resets_at: float | None, wall: float) -> None:
        """A window's state was told."""
        self.parking.observe(window, wall, used=used, resets_at=resets_at)
        self._look()

    def resume(self) -> bool:
        """Somebody knows that the quota is there again; tells whether it was parked."""
        was = self.parking.resume()
        self._look()
        return was

    def reserve(self, share: float) -> None:
        """Keep *share* of each window for people."""
        self.parking.reserved_share = share
        self._look()

    def _look(self) -> None:
        parked = any(kept.parked_until is not None for kept in self.parking.snapshot())
        self.clear = self._reason is None and not parked and not self.parking.reserved_share

    def _blocked_by_refusal(self, asked: Asked, now: float) -> Blocked:
        text = f"The provider refused the credential {self.name}: {self._reason}"
        refusal = None
        if asked.priority == "interactive":
            wait_ms = max(1, round((self._probe_at - now) * 1000))
            refusal = EngineError("auth_failed", f"{text} {NEXT_STEP}", retry_after_ms=wait_ms)
        until = self._probe_at if self._probe is None else None
        return Blocked("auth", f"{text} It waits for another one, or a try.", until, refusal)


def _blocked_by_quota(name: str, parked: Parked, now: float, wall: float) -> Blocked:
    if parked.until == float("inf"):
        text = f"One call tries whether the quota {parked.window} of {name} is there again."
        return Blocked("quota", text)
    at = datetime.fromtimestamp(parked.until).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = f"The quota {parked.window} of {name} is used up; what waits goes on by itself at {at}."
    return Blocked("quota", text, now + parked.until - wall, resets_at=parked.until)
