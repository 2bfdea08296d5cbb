"""Those who wait for the same thing: one pool of models, one depth."""

import asyncio
from collections.abc import Mapping

from dragomand.engine.errors import EngineError
from dragomand.policy.fair_queue import FairQueue

from .asked import Asked, Blocked, Told, WaitingSink, untold
from .permit import Permit
from .places import Places
from .settings import Share

_NO_BOUND = 1 << 60
_STANDING = frozenset({"throttled", "quota", "auth", "breaker"})
"""Reasons that last, and that everybody in the lane has in common."""
TELL_EVERY_S = 1.0
"""Where the reason goes to and fro, those who wait are told at most so often."""
FIRST_COST = 1.0
_EWMA = 0.1


class Ticket:
    """One who waits."""

    __slots__ = ("ahead", "asked", "called", "cost", "error", "lane", "permit", "reason", "reason_since",
                 "reasons", "since", "sink")  # fmt: skip

    def __init__(self, asked: Asked, lane: "Lane", now: float) -> None:
        """Arrive at *now*."""
        self.asked = asked
        self.lane = lane
        self.since = now
        self.cost = lane.cost
        self.called = asyncio.Event()
        self.permit: Permit | None = None
        self.error: EngineError | None = None
        self.ahead = 0
        self.sink: WaitingSink = untold
        self.reason: str | None = None
        self.reason_since = now
        self.reasons: dict[str, float] = {}

    @property
    def deadline(self) -> float | None:
        """The door's clock when it is given up."""
        return None if self.asked.timeout_s is None else self.since + self.asked.timeout_s

    def note(self, reason: str, now: float) -> None:
        """It waits for *reason* from now on."""
        if self.reason is not None:
            self.reasons[self.reason] = self.reasons.get(self.reason, 0.0) + now - self.reason_since
        self.reason, self.reason_since = reason, now

    def waited(self, now: float) -> Mapping[str, int]:
        """Return for what it waited until now, in milliseconds."""
        if self.reason is not None:
            self.note(self.reason, now)
        return {reason: round(seconds * 1000) for reason, seconds in self.reasons.items()}

    def tell(self, now: float, places: Places) -> None:
        """Tell it why it waits."""
        blocked = self.lane.blocked
        if blocked is None:
            return
        self.note(blocked.reason, now)
        ahead = self.ahead
        self.sink(Told(blocked.reason, blocked.text, ahead, self.lane.expected_s(ahead, now, places)))


class Lane:
    """A fair queue, and what keeps its first from going."""

    __slots__ = (
        "asleep", "blocked", "cost", "depth", "grant", "passed", "queue", "shares", "told", "told_at",
    )  # fmt: skip

    def __init__(self, depth: int, shares: Mapping[str, Share]) -> None:
        """Begin empty; *shares* by the names that clients give themselves."""
        self.depth = depth
        self.shares = shares
        self.queue: FairQueue[Ticket] = FairQueue(max_queued=_NO_BOUND, max_per_client=_NO_BOUND)
        self.blocked: Blocked | None = None
        """Why the first does not go; None while nobody waits."""
        self.asleep = False
        """Whether only time, or word of the provider's, can let anybody go: permits that come back cannot."""
        self.cost = FIRST_COST
        """What one is expected to take, in the queue's measure: as lately."""
        self.grant = 0
        """The number of the last grant."""
        self.passed = 0
        """How many grants others have had since."""
        self.told = ""
        self.told_at = 0.0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self.queue)

    @property
    def has_people(self) -> bool:
        """Whether somebody waits that a person waits for."""
        return bool(self.queue.waiting_in("interactive"))

    @property
    def until(self) -> float | None:
        """When it is to be looked at again."""
        return None if self.blocked is None else self.blocked.until

    def put(self, ticket: Ticket) -> None:
        """Line up."""
        asked = ticket.asked
        share = self.shares.get(asked.name)
        self.queue.weigh(asked.client, 1.0 if share is None else share.weight)
        self.queue.put(asked.client, asked.priority, ticket, ticket.cost)
        self.asleep = False

    def remove(self, ticket: Ticket) -> bool:
        """Take one out of the middle; tells whether it waited."""
        found = self.queue.remove(ticket)
        self.asleep = False
        if not self.queue:
            self.blocked = None
        return found

    def ahead(self, asked: Asked) -> int:
        """Return how many would be served before one that arrives, roughly."""
        return self.queue.ahead(asked.client, asked.priority)

    def first(self, now: float, free: int | None, slots: int, person_at: float) -> Ticket | None:
        """Return whose turn it is; None: the last place is kept for people."""
        self.queue.person_active(person_at)
        return self.queue.peek(now, free, slots)

    def take(self, now: float, free: int | None, slots: int) -> Ticket:
        """Take out whose turn it is."""
        ticket = self.queue.next(now, free, slots)
        assert ticket is not None
        return ticket

    def served(self) -> None:
        """One was let in, or refused."""
        if not self.queue:
            self.blocked = None

    def charge(self, permit: Permit, took: float) -> None:
        """One that was let in took so much, in the queue's measure."""
        asked = permit.asked
        self.queue.charge(asked.client, asked.priority, took - permit.expected)
        self.cost = took if self.cost == FIRST_COST else self.cost + _EWMA * (took - self.cost)

    def block(self, blocked: Blocked, now: float) -> bool:
        """The first may not go; tells whether those who wait ought to know."""
        self.blocked = blocked
        is_trial = blocked.reason == "throttled" and blocked.until is None
        self.asleep = blocked.reason in _STANDING and not is_trial
        if blocked.reason == self.told:
            return False
        if blocked.reason not in _STANDING and self.told and now - self.told_at < TELL_EVERY_S:
            return False
        self.told, self.told_at = blocked.reason, now
        return True

    def too_late(self, blocked: Blocked, now: float) -> list[Ticket]:
        """Return those whose deadline is nearer than the end of what blocks them all."""
        until = blocked.until
        if blocked.reason not in _STANDING or until is None or not blocked.certain:
            return []
        return [each for each in self.queue if each.deadline is not None and each.deadline < until]

    def tell(self, now: float, places: Places) -> None:
        """Tell everybody in the lane why they wait."""
        for ticket in list(self.queue):
            ticket.tell(now, places)

    def expected_s(self, ahead: int, now: float, places: Places) -> float | None:
        """Return in how many seconds one with so many before it goes; None where nothing can be said."""
        blocked = self.blocked
        if blocked is None or not blocked.certain:
            return None
        if blocked.until is None:
            each = places.each_s() if blocked.reason == "concurrency" else None
            return None if each is None else (ahead + 1) * each
        return max(0.0, blocked.until - now) + ahead * (blocked.each_s or 0.0)

    def in_order(self) -> list[Ticket]:
        """Return those who wait, next first."""
        return list(self.queue.in_order())
