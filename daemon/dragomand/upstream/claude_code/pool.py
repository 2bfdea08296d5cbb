"""The warm pool: processes that are started before anybody asks, because somebody asked for their like.

A use of a key makes it wanted for a while; wanted keys get spares, the most recently used first, one each,
then one of no folder (which can be claimed for any), then more where several were used at once. A spare has
run no turn for anybody. It ends when it is too old, when a more recent key needs its place, when memory is
short, and when the executable, the user's settings or the credential change.

The pool decides; how a spare is started is handed in. Starts that somebody waits for come first.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from dragomand.process import memory
from dragomand.upstream.claude_code.run import ClaudeCodeRun
from dragomand.upstream.interface import PoolState, RunSpec, SpareState, UpstreamError

_MOST_KEYS = 64
_USUAL_BYTES = 120 << 20  # of a spare that has only just been started

EndReason = Literal["used", "expired", "evicted", "pressure", "outdated", "died", "failed"]
"""What became of a spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How much may be kept warm."""

    max_spare: int = 2
    ttl_s: float = 300.0
    """How long a spare, and the memory of a use, lasts."""
    max_bytes: int = 1 << 30
    """How much all spares may hold."""
    min_free_bytes: int = 1 << 30
    """How much memory must be free for a spare to be started."""
    generic: bool = True
    """Whether one spare may be of no folder."""
    rehearse: bool = True
    """Whether a spare goes through a turn that is taken back, where the gateway can answer it."""
    reuse: bool = False
    """Whether a process serves several conversations of one client, one after the other."""
    most_kept: int = 8
    keep_s: float = 30.0
    """How many of these wait for the next conversation, and how long."""
    fill_delay_s: float = 1.0
    """How long after the first use of a key its spare is started."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a spare is made of."""

    key: str
    spec: RunSpec
    """Without what is chosen late."""
    generic: bool = False
    """Of no folder: it is claimed when it is used."""
    rehearsed: bool = False
    """It goes through a turn before it is used."""


@dataclass(slots=True, eq=False)
class Spare:
    """A process nobody uses yet."""

    recipe: Recipe
    born: float
    starting: "asyncio.Task[ClaudeCodeRun]"
    run: ClaudeCodeRun | None = None
    """Once it is ready."""
    expiry: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class _Demand:
    recipe: Recipe
    generic: Recipe | None
    used_at: float
    uses: int = 0
    running: int = 0
    peak: int = 0


@dataclass(slots=True)
class Pool:
    """The spares of one daemon."""

    settings: PoolSettings
    begin: Callable[[Recipe], Awaitable[ClaudeCodeRun]]
    """Starts a process by a recipe; raises `UpstreamError`."""
    may_begin: Callable[[], bool]
    """Whether a start would be in nobody's way; `unblocked` is to be called when that changes."""
    is_sound: Callable[[Recipe], bool] = lambda _: True
    """Whether a start by a recipe is not expected to crash."""
    available: Callable[[], int | None] = memory.available_bytes
    counts: dict[str, int] = field(default_factory=dict)
    """How often: `warm`, `cold`, and each `EndReason`."""
    _spares: list[Spare] = field(default_factory=list)
    _demands: dict[str, _Demand] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _timer_at: float = 0.0
    _not_before: float = 0.0
    _closing: set["asyncio.Task[None]"] = field(default_factory=set)
    _world: str | None = None
    _closed: bool = False
    _blocked: bool = False
    _held_back: Literal["memory", "starts", "crashes"] | None = None

    # using

    def take(self, *keys: str) -> Spare | None:
        """Take a spare out of the pool: a ready one by the order of *keys*, else one that is starting."""
        for ready in (True, False):
            for key in keys:
                for spare in reversed(self._spares):
                    if spare.recipe.key == key and (spare.run is not None) == ready:
                        self._remove(spare)
                        return spare
        return None

    def give_back(self, spare: Spare) -> None:
        """Put back a spare that was not used after all."""
        if self._closed:
            self._end_run(spare)
        else:
            self._add(spare)

    def use(self, recipe: Recipe, generic: Recipe | None) -> Callable[[], None]:
        """Note a use, warm or cold; call what is returned when its first turn is over."""
        now = _now()
        demand = self._demands.pop(recipe.key, None) or _Demand(recipe, generic, now)
        self._demands[recipe.key] = demand
        if len(self._demands) > _MOST_KEYS:
            del self._demands[next(iter(self._demands))]
        demand.generic = generic
        demand.used_at = now
        demand.uses += 1
        demand.running += 1
        demand.peak = max(demand.peak, demand.running)
        delay = 0.0 if demand.uses > 1 else self.settings.fill_delay_s

        def over() -> None:
            demand.running -= 1
            self._balance_in(delay)

        self._balance_in(max(1.0, 2 * delay))  # a long turn: others may ask meanwhile
        return over

    def forget(self, recipe: Recipe) -> None:
        """It turned out that no spare can be made by *recipe*: keep none in stock."""
        self._demands.pop(recipe.key, None)

    def count(self, what: Literal["warm", "cold"] | EndReason) -> None:
        """Count something that happened."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def in_world(self, world: str) -> None:
        """Say what everything looks like now; spares of another world are ended."""
        if world != self._world:
            self._world = world
            self.drop("outdated")

    @property
    def world(self) -> str | None:
        """What everything looked like last."""
        return self._world

    # ending

    def lost(self, run: ClaudeCodeRun) -> bool:
        """A process has gone; tells whether it was one of the spares."""
        for spare in self._spares:
            if spare.run is run:
                self._remove(spare)
                self.count("died")
                self._balance_in(self.settings.fill_delay_s)
                return True
        return False

    def drop(self, why: EndReason) -> None:
        """End every spare; under pressure none is started for a while."""
        if why == "pressure":
            self._not_before = _now() + 60.0
        for spare in list(self._spares):
            self._end(spare, why)

    async def close(self) -> None:
        """End every spare, and start no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for spare in list(self._spares):
            self._remove(spare)
            self._end_run(spare)
        await asyncio.gather(*self._closing, return_exceptions=True)

    # filling

    def balance(self) -> None:
        """Start what is missing, as far as there is room."""
        if self._closed or self._world is None:
            return
        unwanted = list(self._spares)
        missing: list[Recipe] = []
        for recipe in self._wanted():
            spare = next((each for each in unwanted if each.recipe.key == recipe.key), None)
            if spare is None:
                missing.append(recipe)
            else:
                unwanted.remove(spare)
        sound = [recipe for recipe in missing if self.is_sound(recipe)]
        self._held_back = "crashes" if len(sound) < len(missing) else None
        for recipe in sound:
            self._blocked = not self.may_begin()
            if self._blocked or not self._room(unwanted):
                self._held_back = "starts" if self._blocked else "memory"
                return
            self._begin(recipe)

    def unblocked(self) -> None:
        """A start would be in nobody's way now: go on if one had to wait for that."""
        if self._blocked:
            self._blocked = False
            self.balance()

    def state(self) -> PoolState:
        """Return what is there, for a person to look at."""
        spares = [
            SpareState(
                key=spare.recipe.key[:12],
                cwd=None if spare.recipe.generic else str(spare.recipe.spec.cwd),
                ready=spare.run is not None,
                age_s=_now() - spare.born,
                memory_bytes=self._held(spare),
                rehearsed=spare.run is not None and spare.run.rehearsed,
            )
            for spare in self._spares
        ]
        return PoolState(
            max_spare=self.settings.max_spare,
            spares=spares,
            keys=len(self._demands),
            warm=self.counts.get("warm", 0),
            cold=self.counts.get("cold", 0),
            ended={name: n for name, n in self.counts.items() if name not in ("warm", "cold", "used")},
            held_back=self._held_back,
        )

    def _wanted(self) -> list[Recipe]:
        """Return what should be there, the most important first."""
        since = _now() - self.settings.ttl_s
        self._demands = {
            key: demand for key, demand in self._demands.items() if demand.used_at >= since or demand.running
        }
        recent = list(reversed(self._demands.values()))
        wanted = [demand.recipe for demand in recent]
        if self.settings.generic and recent and recent[0].generic is not None:
            wanted.insert(max(1, self.settings.max_spare - 1), recent[0].generic)
        for demand in recent:
            wanted += [demand.recipe] * (demand.peak - 1)
        return wanted[: self.settings.max_spare]

    def _room(self, unwanted: list[Spare]) -> bool:
        """Whether one more may be started; an unwanted one gives way."""
        available, now = self.available(), _now()
        if now < self._not_before or (available is not None and available < self.settings.min_free_bytes):
            return False
        while unwanted and self._is_full():
            self._end(unwanted.pop(0), "evicted")
        return not self._is_full()

    def _is_full(self) -> bool:
        held = sum(self._held(spare) or _USUAL_BYTES for spare in self._spares) + _USUAL_BYTES
        return len(self._spares) >= self.settings.max_spare or held > self.settings.max_bytes

    def _begin(self, recipe: Recipe) -> None:
        loop = asyncio.get_running_loop()

        async def begin() -> ClaudeCodeRun:
            return await self.begin(recipe)

        spare = Spare(recipe, loop.time(), loop.create_task(begin(), name="start a spare"))
        self._add(spare)
        spare.starting.add_done_callback(lambda done: self._begun(spare, done))

    def _begun(self, spare: Spare, done: "asyncio.Task[ClaudeCodeRun]") -> None:
        if done.cancelled() or done.exception() is not None:
            if spare in self._spares:
                self._remove(spare)
                self.count("failed")
            if spare.recipe.generic:  # it may not be known here; whoever uses the pool next says
                for demand in self._demands.values():
                    demand.generic = None
        else:
            spare.run = done.result()

    def _add(self, spare: Spare) -> None:
        left = max(0.0, spare.born + self.settings.ttl_s - _now())
        spare.expiry = asyncio.get_running_loop().call_later(left, self._expire, spare)
        self._spares.append(spare)

    def _remove(self, spare: Spare) -> None:
        self._spares.remove(spare)
        if spare.expiry is not None:
            spare.expiry.cancel()

    def _expire(self, spare: Spare) -> None:
        self._end(spare, "expired")
        self._balance_in(0.0)

    def _end(self, spare: Spare, why: EndReason) -> None:
        self._remove(spare)
        self.count(why)
        self._end_run(spare)

    def _end_run(self, spare: Spare) -> None:
        async def end() -> None:
            if spare.run is None:
                spare.starting.cancel()
            with contextlib.suppress(asyncio.CancelledError, UpstreamError):
                await (await spare.starting).close()

        task = asyncio.get_running_loop().create_task(end(), name="end a spare")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _balance_in(self, seconds: float) -> None:
        """Look after the pool soon; the earliest time that anybody asked for counts."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if self._closed or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_at(at, self._balance_now)

    def _balance_now(self) -> None:
        self._timer = None
        self.balance()

    @staticmethod
    def _held(spare: Spare) -> int | None:
        pid = None if spare.run is None else spare.run.pid
        return None if pid is None else memory.held_bytes(pid)


def _now() -> float:
    return asyncio.get_running_loop().time()
