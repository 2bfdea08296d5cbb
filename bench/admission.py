"""What the door costs: to be let in and settled while nobody waits, and what those who wait cost the others.

CPU time of one process, no sockets and no store: the engine's `Admission` alone, with every bound set (rates,
budget of places, breaker, the provider's own limits learned). Several rounds, the best of them: the rest is
the machine's. Absolute figures are the machine's; the second table's ratio is the door's.

    python bench/admission.py            tables
    python bench/admission.py --json     one JSON object
    python bench/admission.py --check    exit 1 where an aim is missed
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from dragomand.engine.admission import Admission, Asked, DoorSettings, Permit
from dragomand.policy.rate_limiter import Window
from dragomand.upstream.interface import Failure

TIMES = 5_000
ROUNDS = 5
WAITING = 10_000
AIMS = {"turn": 20.0, "call": 20.0, "beside": 1.25, "apart": 1.05}
"""At most so many microseconds; at most so many times what it costs beside few who wait; equal clients at
most so far apart."""
FEW = 10
FIGURES = {"queries_per_minute": 10**8, "queries_per_hour": 10**9, "input_tokens_per_minute": 10**10}
LEARNED = {name: Window(1e9, 1e9 - 1, None) for name in ("requests", "input-tokens", "output-tokens")}
Work = Callable[[], Awaitable[None]]


def door(**figures: Any) -> Admission:
    """A door with every bound set, none of which is reached."""
    return Admission(DoorSettings(**{**FIGURES, **figures}), clock=time.monotonic)


async def learned(of: Admission) -> None:
    """Let one call hear of the provider's limits."""
    async with of.admit_call(Asked(client="first")) as permit:
        assert permit.pool is not None
        assert permit.charge is not None
        permit.pool.limiter.learn(permit.charge.order, LEARNED, time.monotonic(), time.time())
        permit.succeeded = True


def turn(of: Admission) -> Work:
    """A turn that does nothing."""
    asked = Asked(client="bench", turn_id="t")

    async def work() -> None:
        async with of.admit(asked):
            pass

    return work


def call(of: Admission) -> Work:
    """A call that is answered at once."""
    asked = Asked(client="bench", models="haiku", input_tokens=1_000)

    async def work() -> None:
        async with of.admit_call(asked) as permit:
            permit.succeeded, permit.input_tokens, permit.output_tokens = True, 900, 100

    return work


async def microseconds(work: Work) -> float:
    """CPU time of *work*, the best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(TIMES):
            await work()
        best = min(best, (time.process_time() - began) / TIMES)
    return best * 1e6


async def wait_for(of: Admission, count: int) -> list["asyncio.Task[None]"]:
    """Let *count* calls of seven clients wait for a quota that is used up for a day."""

    async def use_up() -> None:
        async with of.admit_call(Asked(client="first", models="opus")) as permit:
            facts: dict[str, Any] = {"resets_at": time.time() + 86_400, "window": "seven_day_opus"}
            of.hearing.failed(permit, Failure("quota", "used up", status=429, **facts))

    async def wait(at: int) -> None:
        asked = Asked(client=f"client-{at % 7}", models="opus", priority="batch")
        async with of.admit_call(asked):
            raise AssertionError("nobody may be let in")

    await use_up()
    tasks = [asyncio.create_task(wait(at)) for at in range(count)]
    while of.calls.queued < count:  # noqa: ASYNC110 - they wait for nothing but their turn of the loop
        await asyncio.sleep(0)
    return tasks


async def beside_those_who_wait() -> dict[str, float]:
    """What a call of another pool costs beside few and many who wait for a quota."""
    found = {}
    for name, count in (("few", FEW), ("many", WAITING)):
        of = door(max_queued=2 * WAITING, max_queued_per_client=2 * WAITING)
        waiting = await wait_for(of, count)
        found[name] = await microseconds(call(of))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return found


async def apart() -> dict[str, float]:
    """How equal clients share ten places, of which each has a thousand calls waiting: most over least."""
    of = door(max_calls=10, max_queued=2 * WAITING, max_queued_per_client=2 * WAITING)
    served = dict.fromkeys((f"client-{at}" for at in range(10)), 0)
    order: list[str] = []

    async def one(client: str) -> None:
        async with of.admit_call(Asked(client=client, models="haiku", priority="batch")) as permit:
            await asyncio.sleep(0)
            _end(permit)
        order.append(client)

    began = time.process_time()
    await asyncio.gather(*(one(client) for _ in range(WAITING // 10) for client in served))
    took = (time.process_time() - began) / WAITING
    for client in order[: WAITING // 2]:
        served[client] += 1
    return {"apart": max(served.values()) / min(served.values()), "waited_for": took * 1e6}


def _end(permit: Permit) -> None:
    permit.succeeded, permit.input_tokens, permit.output_tokens = True, 900, 100


async def measured() -> dict[str, float]:
    """Everything, by name."""
    of = door()
    await learned(of)
    found = {"turn": await microseconds(turn(of)), "call": await microseconds(call(of))}
    return {**found, **await beside_those_who_wait(), **await apart()}


def missed(found: dict[str, float]) -> list[str]:
    """Which aims were."""
    ratio = found["many"] / found["few"]
    reached = {"turn": found["turn"], "call": found["call"], "beside": ratio, "apart": found["apart"]}
    return [f"{name}: {reached[name]:.2f}, aim {aim:g}" for name, aim in AIMS.items() if reached[name] > aim]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    found = asyncio.run(measured())
    if chosen.json:
        print(json.dumps({name: round(value, 3) for name, value in found.items()}))
    else:
        print("let in and settled, nobody waits               CPU µs")
        print(f"  a turn                                       {found['turn']:6.1f}")
        print(f"  a call                                       {found['call']:6.1f}")
        print(f"a call of another pool, {FEW} wait for a quota     {found['few']:6.1f}")
        print(f"  {WAITING} wait for it                           {found['many']:6.1f}")
        print(f"a call that waited among {WAITING}              {found['waited_for']:6.1f}")
        print(f"ten equal clients: most served / least         {found['apart']:6.3f}")
    wrong = missed(found)
    for each in wrong:
        print(f"missed: {each}", file=sys.stderr)
    return 1 if chosen.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
