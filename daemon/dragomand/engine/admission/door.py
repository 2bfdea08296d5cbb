"""The one door: who may run a turn or make an API call now, who waits, who is turned away.

Two kinds of permit, each with a line of its own. A turn's: a place for its process, a rate, money. A call's:
a place, the provider's rates, the breaker. A turn whose calls go through the gateway holds no call permit
between its calls; what descends from a turn that holds a place has places of its own depth (`places`):
nothing can wait for itself.

State and counting are pure (`policy`); the lines add waiting. A permit is settled on every path because it is
an async context manager: return, error, cancellation.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from dragoman_protocol.breaker import BreakerInfo

from .alarm import Alarm
from .asked import Asked, WaitingSink, untold
from .call_gate import CallGate
from .hearing import Hearing
from .line import Line
from .permit import Permit
from .pool import Pools, ProviderBreaker
from .settings import DoorSettings
from .turn_gate import TurnGate


class Admission:
    """Owner of all admission state; shared by every client."""

    def __init__(
        self,
        settings: DoorSettings,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Begin with nothing known.

        *clock* is monotonic seconds that go on while the machine sleeps (where there are such), *wall* gives
        Unix seconds, *chance* a random number from 0 to 1.
        """
        self.settings = settings
        self.clock = clock
        self.wall = wall
        self._depths: dict[str, int] = {}
        """How many turns are above each one that runs."""
        self.pools = Pools(settings, clock)
        self.turn_gate = TurnGate(self.pools, settings, clock=clock, wall=wall)
        self.call_gate = CallGate(self.pools, settings, chance=chance, wall=wall)
        self.hearing = Hearing(
            self.pools,
            clock=clock,
            wall=wall,
            chance=chance,
            changed=self._changed,
            used=lambda: self.call_gate.on_used(),
        )
        self._idle = asyncio.Event()
        self._idle.set()
        self._alarm = Alarm(clock, self._ring)
        lines: dict[str, Any] = {
            "clock": clock, "alarm": self._alarm, "on_enter": self._idle.clear, "on_empty": self._note_idle,
        }  # fmt: skip
        self.turns = Line(self.turn_gate, settings, depth_of=self._depth_of_turn, **lines)
        self.calls = Line(self.call_gate, settings, depth_of=self._depth_of_call, **lines)
        self.on_idle: Callable[[], None] | None = None
        """Called, and must return at once, when the last turn or call has ended and none waits."""
        self.on_breaker: Callable[[BreakerInfo], None] = lambda _: None
        """Told of each change; must return at once."""
        self.on_change: Callable[[], None] = lambda: None
        """Something that outlives the daemon has changed."""

    @property
    def running(self) -> int:
        """Turns that hold a permit."""
        return self.turns.running

    @property
    def queued(self) -> int:
        """Turns that wait for one."""
        return self.turns.queued

    @property
    def calls_running(self) -> int:
        """Calls that hold a permit."""
        return self.calls.running

    @property
    def calls_queued(self) -> int:
        """Calls that wait for one."""
        return self.calls.queued

    # -- who may

    def admit(self, asked: Asked, waiting: WaitingSink = untold) -> AbstractAsyncContextManager[Permit]:
        """Wait for a turn's permit; hold it for the block.

        Raises `EngineError`. At once: `queue_full` (a bound of the queue), `circuit_open`, `auth_failed`,
        `budget_exhausted`, and what says that its turn would come after its deadline: `rate_limited`,
        `throttled`, `quota_exhausted`, `queue_timeout`. At the deadline: `queue_timeout`.
        """
        return _TurnEntry(self.turns, self._classed(asked), waiting, self._depths)

    def admit_call(self, asked: Asked, waiting: WaitingSink = untold) -> AbstractAsyncContextManager[Permit]:
        """Wait for the permit of one API call, and hold it for the block; otherwise like `admit`."""
        return _CallEntry(self.calls, self._classed(asked), waiting, self._ring)

    async def until_idle(self) -> None:
        """Wait until no turn or call holds a permit and none waits for one."""
        await self._idle.wait()

    async def room(self, client: str) -> None:
        """Wait until *client* may line a turn up without being refused. The place is not reserved."""
        await self.turns.room(client)

    # -- what people do

    def credential_changed(self, name: str) -> None:
        """The credential is another one now, or was verified: what waits for it goes on."""
        known = self.pools.credential(name)
        known.resume()
        known.restore()
        self._changed()

    def is_refused(self, name: str) -> bool:
        """Whether the provider refused the credential, as far as is known."""
        known = self.pools.credentials.get(name)
        return known is not None and known.refused

    def breakers(self) -> list[BreakerInfo]:
        """Return every breaker that has counted something."""
        now, wall = self.clock(), self.wall()
        return [provider.info(now, wall) for provider in self.pools.breakers.values()]

    def reset_breakers(self, host: str | None = None, models: str | None = None) -> int:
        """Close breakers; without *host* let refused credentials and used up quotas be tried, too.

        Returns how many were not closed.
        """
        now, reset = self.clock(), 0
        for provider in self.pools.breakers.values():
            if host in (None, provider.host) and models in (None, provider.models):
                reset += provider.breaker.state(now) != "closed"
                provider.breaker.reset()
                self._tell_breaker(provider, now)
        for credential in self.pools.credentials.values() if host is None else ():
            reset += credential.restore()
            credential.resume()
        self._changed()
        return reset

    def apply(self, settings: DoorSettings) -> None:
        """Take new figures; what they let in goes in."""
        self.settings = settings
        self.pools.apply(settings)
        for part in (self.turn_gate, self.call_gate, self.turns, self.calls):
            part.apply(settings)
        self._changed()

    def close(self) -> None:
        """Nothing changes by time any more."""
        self._alarm.stop()

    # -- within

    def _classed(self, asked: Asked) -> Asked:
        share = self.settings.clients.get(asked.name) if self.settings.clients else None
        if share is None or share.priority in (None, asked.priority):
            return asked
        return Asked(**{**{name: getattr(asked, name) for name in Asked.__struct_fields__},
                        "priority": share.priority})  # fmt: skip

    def _depth_of_turn(self, asked: Asked) -> int:
        return 0 if asked.parent is None else self._depths.get(asked.parent, -1) + 1

    def _depth_of_call(self, asked: Asked) -> int:
        return 0 if asked.turn_id is None else self._depths.get(asked.turn_id, 0)

    def _changed(self) -> None:
        """What outlives the daemon is different, and somebody may be let in."""
        self.on_change()
        self._ring(self.clock())

    def _ring(self, now: float) -> None:
        """Something may have changed: let in who may go."""
        if self.pools.breakers:
            for provider in self.pools.breakers.values():
                self._tell_breaker(provider, now)
        for credential in self.pools.credentials.values():
            if credential.told_parked and not credential.parked:
                credential.told_parked = False
                self.hearing.on_parked(credential.name, None, "")
        self.turns.serve(now)
        self.calls.serve(now)

    def _tell_breaker(self, provider: ProviderBreaker, now: float) -> None:
        state = provider.breaker.state(now)
        if state != provider.told:
            if provider.told == "closed":
                provider.opened_at = self.wall()
            provider.told = state
            self.on_change()
            self.on_breaker(provider.info(now, self.wall()))

    def _note_idle(self) -> None:
        for line in (self.turns, self.calls):
            if line.running or line.queued:
                return
        self._idle.set()
        if self.on_idle is not None:
            self.on_idle()


class _Entry:
    """Waits for a permit at the beginning of a block, gives it back at its end."""

    __slots__ = ("_asked", "_line", "_permit", "_waiting")

    def __init__(self, line: Line, asked: Asked, waiting: WaitingSink) -> None:
        self._line = line
        self._asked = asked
        self._waiting = waiting
        self._permit: Permit | None = None

    async def __aenter__(self) -> Permit:
        permit = self._line.enter(self._asked)
        if permit is None:
            permit = await self._line.wait(self._asked, self._waiting)
        self._permit = permit
        return permit

    async def __aexit__(self, *_: object) -> None:
        assert self._permit is not None
        self._line.leave(self._permit)


class _CallEntry(_Entry):
    """The same of a call, whose end may tell something that others wait for."""

    __slots__ = ("_ring",)

    def __init__(
        self, line: Line, asked: Asked, waiting: WaitingSink, ring: Callable[[float], None]
    ) -> None:
        super().__init__(line, asked, waiting)
        self._ring = ring

    async def __aexit__(self, *raised: object) -> None:
        permit = self._permit
        assert permit is not None
        assert permit.pool is not None
        pool = permit.pool
        tells = (
            permit.failure is not None
            or pool.provider.told != "closed"
            or pool.credential.is_tried(permit)
        )
        self._line.leave(permit)
        if tells:
            self._ring(self._line.clock())


class _TurnEntry(_Entry):
    """The same of a turn, which may have descendants."""

    __slots__ = ("_depths",)

    def __init__(self, line: Line, asked: Asked, waiting: WaitingSink, depths: dict[str, int]) -> None:
        super().__init__(line, asked, waiting)
        self._depths = depths

    async def __aenter__(self) -> Permit:
        permit = await super().__aenter__()
        if self._asked.turn_id is not None:
            self._depths[self._asked.turn_id] = permit.depth
        return permit

    async def __aexit__(self, *raised: object) -> None:
        if self._asked.turn_id is not None:
            self._depths.pop(self._asked.turn_id, None)
        await super().__aexit__(*raised)
