"""What is known of one credential: whether it was refused, and whether its quota is used up.

A refused credential (401, 403) is let alone at once: a call that cannot succeed costs time, and may cost
the account. What can wait for hours (batch) waits on; a person is told what to do. Now and then one call
tries. A used up quota parks everything until the instant that the provider gave; one call finds out
(`policy.parking`).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from dragomand.engine.errors import EngineError
from dragomand.policy.parking import Parked, Parking, ParkingKept

from .asked import FAMILIES, Asked, Blocked

if TYPE_CHECKING:
    from .permit import Permit

NEXT_STEP = "Replace it (`dragoman auth status` says which it is); a minute later it is tried again."


Trial = tuple[tuple[Parking, int], ...]
"""Which windows a call tries, with its number there."""


class Credential:
    """One credential's state; shared by all its pools. *now* is the door's clock, *wall* Unix seconds."""

    __slots__ = ("_probe", "_probe_at", "_share", "clear", "name", "parkings", "probe_s", "reason",
                 "told_parked")  # fmt: skip

    def __init__(self, name: str, *, probe_s: float, reserved_share: float = 0.0) -> None:
        """Begin with a good one."""
        self.name = name
        self.parkings: dict[str, Parking] = {}
        """Usage windows by the family of models that they are for; most are for all (empty)."""
        self._share = reserved_share
        self.probe_s = probe_s
        self.clear = not reserved_share
        """Whether nothing at all is known against it: nothing else needs to be asked."""
        self.reason: str | None = None
        """What the provider said when it refused it; None: it is good, as far as is known."""
        self.told_parked = False
        """Whether it was told that a quota is used up, and not yet that it is there again."""
        self._probe_at = 0.0
        self._probe: object | None = None

    @property
    def refused(self) -> bool:
        """Whether the provider refused it."""
        return self.reason is not None

    def blocks(self, asked: Asked, now: float, wall: float) -> Blocked | None:
        """Return why nothing may be sent with it now."""
        if self.clear:
            return None
        if self.reason is not None and (now < self._probe_at or self._probe is not None):
            return self._blocked_by_refusal(asked, now)
        batch = asked.priority == "batch"
        for parking in self._concerned(asked.models):
            parked = parking.when(wall, batch=batch)
            if parked is not None:
                return _blocked_by_quota(self.name, parked, now, wall)
        return None

    def begin(self, permit: object, models: str, wall: float) -> Trial:
        """A call is sent that nothing blocks; returns what it tries, to be given back at its end."""
        if self.reason is not None and self._probe is None:
            self._probe = permit
        begun = [(parking, parking.begin(wall)) for parking in self._concerned(models)]
        return tuple((parking, number) for parking, number in begun if number)

    def is_tried(self, permit: "Permit") -> bool:
        """Whether others wait for what becomes of this call."""
        return self._probe is permit or bool(permit.trial)

    def ended(self, permit: object, trial: Trial, *, succeeded: bool) -> None:
        """A call has shown what it has to, after `refuse` or `use_up` if it was told one of them."""
        if self._probe is permit:
            self._probe = None
            if succeeded:
                self.restore()
        for parking, number in trial:
            parking.ended(number, succeeded=succeeded)
        self._look()

    def refuse(self, reason: str, now: float) -> bool:
        """The provider refused it; tells whether that is news."""
        news = self.reason is None
        self.reason = reason
        self._probe_at = now + self.probe_s
        self._probe = None
        self.clear = False
        return news

    def take_up(
        self, reason: str | None, windows: Mapping[str, list[ParkingKept]], now: float, wall: float
    ) -> None:
        """Go on from an earlier life."""
        for family, kept in windows.items():
            self.parkings.setdefault(family, Parking(self._share)).restore(kept, wall)
        if reason is not None:
            self.refuse(reason, now)
        self._look()
        self.told_parked = self.parked

    def restore(self) -> bool:
        """It is good again, or another one; tells whether it was not."""
        was = self.reason is not None
        self.reason = self._probe = None
        self._look()
        return was

    def parked_until(self, window: str) -> float | None:
        """Return until when (Unix seconds) *window* parks what waits; None: it does not."""
        for kept in self.parking_of(window).snapshot():
            if kept.window == window:
                return kept.parked_until
        return None

    def parked_instants(self, wall: float) -> list[float]:
        """Return until when (Unix seconds) its used up quotas park what comes, if anything does."""
        kept = (each.parked_until for parking in self.parkings.values() for each in parking.snapshot())
        return [until for until in kept if until is not None and until > wall]

    def use_up(self, window: str, resets_at: float | None, chance: float, wall: float) -> Parked:
        """Its quota is used up."""
        self.clear = False
        return self.parking_of(window).reject(window, wall, chance, resets_at)

    def observe(self, window: str, used: float | None, resets_at: float | None, wall: float) -> None:
        """A window's state was told."""
        self.parking_of(window).observe(window, wall, used=used, resets_at=resets_at)
        self._look()

    def resume(self) -> bool:
        """Somebody knows that the quota is there again; tells whether it was parked."""
        was = [parking.resume() for parking in self.parkings.values()]
        self._look()
        return any(was)

    def parking_of(self, window: str) -> Parking:
        """Return where *window* is kept: with those of its family, if its name tells of one."""
        family = next((each for each in FAMILIES if window.endswith(f"_{each}")), "")
        found = self.parkings.get(family)
        if found is None:
            found = self.parkings[family] = Parking(self._share)
        return found

    def reserve(self, share: float) -> None:
        """Keep *share* of each window for people."""
        self._share = share
        for parking in self.parkings.values():
            parking.reserved_share = share
        self._look()

    @property
    def parked(self) -> bool:
        """Whether a quota is used up, as far as is known."""
        return any(
            kept.parked_until is not None for parking in self.parkings.values() for kept in parking.snapshot()
        )

    def _look(self) -> None:
        self.clear = self.reason is None and not self.parked and not self._share

    def _concerned(self, models: str) -> list[Parking]:
        return [self.parkings[key] for key in ("", models) if key in self.parkings]

    def _blocked_by_refusal(self, asked: Asked, now: float) -> Blocked:
        text = f"The provider refused the credential {self.name}: {self.reason}"
        refusal = None
        if asked.priority == "interactive":
            wait_ms = max(1, round((self._probe_at - now) * 1000))
            refusal = EngineError("auth_failed", f"{text} {NEXT_STEP}", retry_after_ms=wait_ms)
        until = self._probe_at if self._probe is None else None
        return Blocked("auth", f"{text} It waits for another one, or a try.", until, refusal=refusal)


def _blocked_by_quota(name: str, parked: Parked, now: float, wall: float) -> Blocked:
    if parked.until == float("inf"):
        text = f"One call tries whether the quota {parked.window} of {name} is there again."
        return Blocked("quota", text)
    at = datetime.fromtimestamp(parked.until).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    text = f"The quota {parked.window} of {name} is used up; what waits goes on by itself at {at}."
    return Blocked("quota", text, now + parked.until - wall, resets_at=parked.until)
