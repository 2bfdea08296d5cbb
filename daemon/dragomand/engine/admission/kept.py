"""What of the door outlives the daemon: neither a restart nor a kill is a way round a limit.

Pauses, parked quotas, refused credentials and open breakers are written as soon as they are known; what
calls have taken of a rate is written off a second ahead (`policy.lease`), and again when that is used up.
Turns need no such care: when they began is in the store with each of them, and is counted anew at the start.
"""

import logging
from collections.abc import Iterable
from typing import Protocol

import anyio
import msgspec

from dragomand.policy.parking import ParkingKept
from dragomand.policy.rate_limiter import Estimate, LimiterKept

from .door import Admission
from .pool import Pool, ProviderBreaker
from .turn_gate import HOUR_S, ONE

KEY = "limits/door"
APART_S = 0.05
"""How long, in seconds, two writes are apart at least: a kill forgets what was let in since, no more."""
NOTHING = Estimate()


class StateStore(Protocol):
    """Keeps bytes by name."""

    async def get_state(self, key: str) -> bytes | None:
        """Return what is kept; None if nothing is."""

    async def set_state(self, key: str, value: bytes) -> None:
        """Keep it, safely."""


class _Pool(msgspec.Struct):
    credential: str
    models: str
    limiter: LimiterKept
    ceiling: int


class _Breaker(msgspec.Struct):
    host: str
    models: str
    opened: int
    retry_at: float
    opened_at: float | None
    reason: str | None


class _Credential(msgspec.Struct):
    name: str
    refused: str | None
    windows: dict[str, list[ParkingKept]]


class _Door(msgspec.Struct):
    pools: list[_Pool] = []
    breakers: list[_Breaker] = []
    credentials: list[_Credential] = []
    retries: int | None = None


class Keeper:
    """Writes a door's state down, and takes it up again."""

    def __init__(self, door: Admission, store: StateStore, logger: logging.Logger) -> None:
        """Keep *door* in *store*."""
        self._door = door
        self._store = store
        self._logger = logger
        self._changed = anyio.Event()
        self._keeping = anyio.CancelScope()
        door.on_change = door.call_gate.on_used = self._note

    async def load(self) -> None:
        """Take up what an earlier life has written. What cannot be read is passed over."""
        kept = await self._store.get_state(KEY)
        if kept is None:
            return
        try:
            found = msgspec.json.decode(kept, type=_Door)
        except msgspec.MsgspecError:
            self._logger.warning("the state of the limits cannot be read; they begin anew")
            return
        restore(self._door, found)

    async def keep(self) -> None:
        """Write whenever something has changed, until `close`."""
        with self._keeping:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                await self._write(clean=False)
                await anyio.sleep(APART_S)

    async def write(self) -> None:
        """Write it down now, for what must be kept before anybody hears of it."""
        await self._write(clean=False)

    async def close(self) -> None:
        """Write it all down for the last time: nothing is let in any more, so nothing is written off."""
        self._keeping.cancel()
        await self._write(clean=True)

    async def _write(self, *, clean: bool) -> None:
        try:
            await self._store.set_state(KEY, msgspec.json.encode(gathered(self._door, clean=clean)))
        except Exception as failed:  # noqa: BLE001 - a full disk must not stop what goes on in memory
            self._logger.warning("limits are not written down", extra={"reason": str(failed)})

    def _note(self) -> None:
        self._changed.set()


def replay(door: Admission, credential: str, starts: Iterable[float]) -> None:
    """Count turns that began at *starts* (Unix seconds, oldest first) in an earlier life."""
    now, wall = door.clock(), door.wall()
    rate = door.turn_gate.rate_since(credential, now - HOUR_S)
    for start in starts:
        at = min(now, now - (wall - start))
        if at > now - HOUR_S:
            rate.finish(rate.take(ONE, at), at, succeeded=None)


def gathered(door: Admission, *, clean: bool) -> _Door:
    """Return what is to be written. Not *clean*: with a second's tokens written off."""
    now, wall = door.clock(), door.wall()

    def limiter(pool: Pool) -> LimiterKept:
        return pool.limiter.snapshot(now, wall) if clean else pool.limiter.lease(NOTHING, now, wall)

    return _Door(
        pools=[
            _Pool(pool.credential.name, pool.models, limiter(pool), pool.ceiling.limit) for pool in door.pools
        ],
        breakers=[
            _kept_breaker(each, now, wall)
            for each in door.pools.breakers.values()
            if each.breaker.state(now) != "closed"
        ],
        credentials=[
            _Credential(
                each.name,
                each.reason,
                {family: parking.snapshot() for family, parking in each.parkings.items()},
            )
            for each in door.pools.credentials.values()
            if not each.clear or each.parkings
        ],
        retries=door.call_gate.retries.tenths,
    )


def _kept_breaker(provider: ProviderBreaker, now: float, wall: float) -> _Breaker:
    seen = provider.breaker.snapshot(now)
    again = wall + seen.retry_after
    return _Breaker(provider.host, provider.models, seen.opened, again, provider.opened_at, provider.reason)


def restore(door: Admission, kept: _Door) -> None:
    """Go on from what was written."""
    now, wall = door.clock(), door.wall()
    for each in kept.pools:
        pool = door.pools.get(each.credential, each.models)
        pool.limiter.restore(each.limiter, now, wall)
        pool.ceiling.limit = min(max(each.ceiling, pool.ceiling.least), pool.ceiling.most)
    for breaker in kept.breakers:
        provider = door.pools.breaker(breaker.host, breaker.models)
        provider.breaker.restore(breaker.opened, breaker.retry_at - wall, now)
        provider.opened_at, provider.reason = breaker.opened_at, breaker.reason
        provider.told = provider.breaker.state(now)
    for credential in kept.credentials:
        door.pools.credential(credential.name).take_up(credential.refused, credential.windows, now, wall)
    if kept.retries is not None:
        door.call_gate.retries.restore(kept.retries)

