"""One timer, for the nearest of all instants; also where the machine has slept."""

import asyncio
from typing import Any

from dragomand.engine.admission.alarm import Alarm


def test_it_rings_at_the_nearest_instant_and_then_at_the_next(at: Any) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        alarm = Alarm(loop.time, lambda now: rung.append(round(now, 2)))
        alarm.set("a", 30.0)
        alarm.set("b", 20.0)
        alarm.set("c", None)
        alarm.set("a", 30.0)
        await asyncio.sleep(100.0)
        assert rung == [20.0, 30.0]

    at.run(run())


def test_who_needs_it_no_longer_is_not_rung_for(at: Any) -> None:
    async def run() -> None:
        rung: list[float] = []
        alarm = Alarm(asyncio.get_running_loop().time, rung.append)
        alarm.set("a", 5.0)
        alarm.set("a", None)
        alarm.set("b", 6.0)
        alarm.stop()
        await asyncio.sleep(10.0)
        assert rung == []

    at.run(run())


def test_a_machine_that_slept_is_noticed_within_a_minute(at: Any) -> None:
    """The loop's clock stands still meanwhile, the door's does not: what has expired is dropped."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        asleep_s = 0.0
        rung: list[float] = []
        alarm = Alarm(lambda: loop.time() + asleep_s, rung.append)
        alarm.set("a", 3600.0)
        await asyncio.sleep(10.0)
        asleep_s = 7200.0
        await asyncio.sleep(61.0)
        assert [round(each) for each in rung] == [7260]
        alarm.stop()

    at.run(run())


def test_a_pause_that_ended_while_the_machine_slept_is_over(at: Any) -> None:
    async def run() -> None:
        from dragomand.engine.admission import Admission, Asked, DoorSettings
        from dragomand.upstream.interface import Failure

        loop = asyncio.get_running_loop()
        asleep_s = 0.0
        door = Admission(
            DoorSettings(),
            clock=lambda: loop.time() + asleep_s,
            wall=lambda: at.WALL + loop.time() + asleep_s,
            chance=lambda: 0.0,
        )
        async with door.admit_call(Asked(client="a")) as permit:
            slow = Failure("throttle", "slow down", status=429, retry_after_ms=3_600_000)
            door.hearing.failed(permit, slow)
        waiting = at.Guest(door, kind="call", stays_s=0.0)
        await asyncio.sleep(10.0)
        asleep_s = 7200.0
        await waiting.task
        assert waiting.waited_s < 70
        late = at.Guest(door, kind="call", stays_s=0.0)
        await late.task
        assert late.waited_s == 0

    at.run(run())
