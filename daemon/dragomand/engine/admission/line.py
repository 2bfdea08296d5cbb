"""Who waits for one kind of permit, and who is let in when something changes.

Waiting happens outside any lock and ends with the grant, with the deadline, or with the caller's
cancellation, whichever is first. What waits costs nothing: it is looked at when a permit comes back, when
somebody arrives, and at the one instant (`alarm`) at which the next thing is known to change. Each pool of
models and each depth has a lane, so that what waits for one provider's pause keeps nobody else waiting.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import anyio

from dragomand.engine.errors import EngineError
from dragomand.policy.fair_queue import PRESENT_S

from .alarm import Alarm
from .asked import Asked, Blocked, WaitingSink
from .lane import Lane, Ticket
from .permit import Permit
from .places import Places
from .refusals import queue_full, too_deep, too_late, waited_in_vain
from .settings import DoorSettings

MOST_EMPTY_LANES = 64
PASSED_OVER = 4
"""After so many grants to other lanes a lane comes first, whatever waits in it."""


class Gate(Protocol):
    """Decides on one kind of permit."""

    what: str
    places: Places

    def blocks(self, asked: Asked, depth: int, now: float) -> Blocked | None:
        """Return what keeps it from being let in now."""

    def begin(self, asked: Asked, depth: int, now: float) -> Permit:
        """Let in what nothing blocks. Raises `EngineError` if it may not be paid for."""

    def end(self, permit: Permit, now: float) -> float | None:
        """Take a permit back; returns what it took in the queue's measure, None: unknown."""


class Line:
    """One kind of permit: how many hold it, and who waits for it."""

    def __init__(
        self,
        gate: Gate,
        settings: DoorSettings,
        *,
        clock: Callable[[], float],
        alarm: Alarm,
        depth_of: Callable[[Asked], int],
        on_enter: Callable[[], None],
        on_empty: Callable[[], None],
    ) -> None:
        """Begin with nobody; *clock* is monotonic. *on_empty*: nobody holds a permit or waits any more."""
        self.gate = gate
        self.settings = settings
        self.clock = clock
        self.holding: dict[Permit, None] = {}
        """Who holds a permit, oldest first."""
        self.queued = 0
        self.person_at = float("-inf")
        """When somebody asked last that a person waits for."""
        self._alarm = alarm
        self._depth_of = depth_of
        self._on_enter = on_enter
        self._on_empty = on_empty
        self._lanes: dict[tuple[str, str, int], Lane] = {}
        self._of: dict[str, int] = {}
        self._grants = 0
        self._freed = asyncio.Event()

    @property
    def running(self) -> int:
        """How many hold a permit."""
        return self.gate.places.running

    @property
    def lanes(self) -> list[Lane]:
        """The lanes in which somebody waits."""
        return [lane for lane in self._lanes.values() if lane.waiting]

    @property
    def keyed_lanes(self) -> Mapping[tuple[str, str, int], Lane]:
        """Every lane, by credential, family of models, depth."""
        return self._lanes

    # -- in and out

    def enter(self, asked: Asked) -> Permit | None:
        """Return a permit if nobody is before *asked* and nothing blocks it. Raises `EngineError`."""
        now = self.clock()
        if asked.priority == "interactive":
            self.person_at = now
        depth = self._depth_of(asked) if asked.parent or asked.turn_id else 0
        if depth > self.settings.max_depth:
            return None
        if self.queued:
            lane = self._lanes.get((asked.credential, asked.models, depth))
            if lane is not None and lane.waiting:
                return None
        if asked.priority == "batch" and self._is_held(depth, now):
            return None
        if self.gate.blocks(asked, depth, now) is not None:
            return None
        return self._let_in(asked, depth, now)

    def leave(self, permit: Permit) -> None:
        """Take a permit back, and let in whoever that makes room for."""
        now = self.clock()
        del self.holding[permit]
        asked = permit.asked
        took = self.gate.end(permit, now)
        lane = self._lanes.get((asked.credential, asked.models, permit.depth))
        if lane is not None and took is not None:
            lane.charge(permit, took)
        if self.queued:
            self.serve(now, woken=False)
        else:
            self._look_empty()

    async def wait(self, asked: Asked, waiting: WaitingSink) -> Permit:
        """Wait for a permit. Raises `EngineError` when it is refused, or was waited for in vain."""
        now = self.clock()
        depth = self._depth_of(asked)
        if depth > self.settings.max_depth:
            raise too_deep(self.gate.what, depth, self.settings.max_depth)
        ticket = self._line_up(asked, depth, now)
        if ticket.permit is None:
            await self._until_called(ticket, waiting)
        if ticket.error is not None:
            raise ticket.error
        permit = ticket.permit
        if permit is None:
            self._give_up(ticket)
            raise waited_in_vain(self, ticket, self.clock())
        permit.queued_ms = round((permit.since - ticket.since) * 1000)
        permit.reasons = ticket.waited(permit.since)
        return permit

    async def room(self, client: str) -> None:
        """Wait until *client* may line up without being refused. The place is not reserved."""
        while self._fullness(client) is not None:
            await self._freed.wait()

    def serve(self, now: float, *, woken: bool = True) -> None:
        """Let in whoever may go now; called whenever that may have changed.

        Not *woken*: a permit came back, or somebody came or left; what the provider keeps waiting sleeps on.
        """
        if woken:
            for lane in self._lanes.values():
                lane.asleep = False
        while self.queued:
            found = self._next(now)
            if found is None:
                break
            lane, ticket = found
            self._took(ticket)
            let_in = self._try(ticket, lane.depth, now)
            lane.served()
            if let_in:
                self._count_grant(lane)
        self._alarm.set(self, self._next_at())
        self._look_empty()

    def apply(self, settings: DoorSettings) -> None:
        """Take new figures; who waits stays."""
        self.settings = settings
        for lane in self._lanes.values():
            lane.shares = settings.clients

    # -- within

    def _let_in(self, asked: Asked, depth: int, now: float) -> Permit:
        permit = self.gate.begin(asked, depth, now)
        self.holding[permit] = None
        self._on_enter()
        return permit

    def _try(self, ticket: Ticket, depth: int, now: float) -> bool:
        try:
            ticket.permit = self._let_in(ticket.asked, depth, now)
            ticket.permit.expected = ticket.cost
        except EngineError as refused:
            ticket.error = refused
        ticket.called.set()
        return ticket.error is None

    def _line_up(self, asked: Asked, depth: int, now: float) -> Ticket:
        """Give *asked* a place in its lane, and the permit if it may have one at once."""
        lane = self._lane(asked, depth)
        blocked = self.gate.blocks(asked, depth, now)
        if blocked is not None and blocked.refusal is not None:
            raise blocked.refusal
        full = self._fullness(asked.client) if asked.bounded else None
        ticket = Ticket(asked, lane, now)
        ticket.ahead = lane.ahead(asked)
        if full is None:
            lane.put(ticket)
            self.queued += 1
            self._of[asked.client] = self._of.get(asked.client, 0) + 1
            self._on_enter()
            self.serve(now, woken=False)
        if ticket.permit is None and ticket.error is None:
            if full is not None:
                raise queue_full(self, full)
            self._expect_in_time(ticket, now)
        return ticket

    def _expect_in_time(self, ticket: Ticket, now: float) -> None:
        """Refuse at once what would wait in vain."""
        timeout_s = ticket.asked.timeout_s
        expected_s = ticket.lane.expected_s(ticket.ahead, now, self.gate.places)
        if timeout_s is not None and expected_s is not None and expected_s > timeout_s:
            error = too_late(self, ticket, expected_s, timeout_s)
            self._give_up(ticket)
            raise error

    async def _until_called(self, ticket: Ticket, waiting: WaitingSink) -> None:
        ticket.sink = waiting
        try:
            ticket.tell(self.clock(), self.gate.places)
            with anyio.move_on_after(ticket.asked.timeout_s):
                await ticket.called.wait()
        except BaseException:
            self._give_up(ticket)
            raise

    def _give_up(self, ticket: Ticket) -> None:
        """Somebody waits no longer."""
        if ticket.permit is not None:
            # Called and cancelled in the same instant: the permit was ours, and goes on to the next.
            ticket.permit.sent = False
            self.leave(ticket.permit)
        elif ticket.lane.remove(ticket):
            self._took(ticket)
            self.serve(self.clock(), woken=False)

    def _took(self, ticket: Ticket) -> None:
        """One waits no longer, whatever became of it."""
        self.queued -= 1
        client = ticket.asked.client
        left = self._of[client] - 1
        if left:
            self._of[client] = left
        else:
            del self._of[client]
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()

    def _next(self, now: float) -> tuple[Lane, Ticket] | None:
        """Return who goes now, already out of its lane; None if nobody may."""
        places = self.gate.places
        for lane in self.in_order():
            if lane.asleep:
                continue
            held = self.settings.keep_for_people and not lane.depth
            free = places.limit - places.running if held else None
            ticket = lane.first(now, free, places.limit, self.person_at)
            if ticket is None:
                text = f"The last of {places.limit} places is kept for people; one was active lately."
                again = self.person_at + PRESENT_S + 0.001
                blocked: Blocked | None = Blocked("reserved", text, again, certain=False)
            else:
                blocked = self.gate.blocks(ticket.asked, lane.depth, now)
            if blocked is not None:
                self._block(lane, blocked, now)
            elif ticket is not None:
                return lane, lane.take(now, free, places.limit)
        return None

    def _block(self, lane: Lane, blocked: Blocked, now: float) -> None:
        if lane.block(blocked, now):
            for ticket in lane.too_late(blocked, now):
                wait_s = (blocked.until or now) - now
                ticket.error = too_late(self, ticket, wait_s, ticket.asked.timeout_s or 0)
                lane.remove(ticket)
                self._took(ticket)
                ticket.called.set()
            lane.tell(now, self.gate.places)

    def in_order(self) -> list[Lane]:
        """Return the lanes in which somebody waits, first who comes first."""
        lanes = self.lanes
        if len(lanes) > 1:
            lanes.sort(key=_rank)
        return lanes

    def _count_grant(self, lane: Lane) -> None:
        self._grants += 1
        for other in self._lanes.values():
            other.passed += 1
        lane.passed, lane.grant = 0, self._grants

    def _next_at(self) -> float | None:
        instants = [lane.until for lane in self._lanes.values() if lane.waiting and lane.until is not None]
        return min(instants, default=None)

    def _is_held(self, depth: int, now: float) -> bool:
        """Whether the only free place is kept for people."""
        places = self.gate.places
        if depth or not self.settings.keep_for_people:
            return False
        one_left = places.limit - places.running <= 1 < places.limit
        return one_left and now - self.person_at <= PRESENT_S

    def _lane(self, asked: Asked, depth: int) -> Lane:
        key = (asked.credential, asked.models, depth)
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) > MOST_EMPTY_LANES:
                self._lanes = {key: lane for key, lane in self._lanes.items() if lane.waiting}
            lane = self._lanes[key] = Lane(depth, self.settings.clients)
        return lane

    def _fullness(self, client: str) -> str | None:
        if self.queued >= self.settings.max_queued:
            return "queue"
        return "client" if self._of.get(client, 0) >= self.settings.max_queued_per_client else None

    def _look_empty(self) -> None:
        if not self.queued and not self.gate.places.running:
            self._on_empty()


def _rank(lane: Lane) -> tuple[int, bool, bool, int]:
    """Deeper ones first, for others wait for them; then who was passed over, then people, then in turn."""
    return -lane.depth, lane.passed < PASSED_OVER, not lane.has_people, lane.grant
