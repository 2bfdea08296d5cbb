"""Neither a restart nor a kill loosens a limit: what was written, and what comes of it in another life."""

import asyncio
import logging
from typing import Any

import pytest
from dragomand.engine.admission import Admission, Keeper, Permit, replay
from dragomand.policy.rate_limiter import Window
from dragomand.upstream.interface import Failure

LOGGER = logging.getLogger("test.kept")


class Kept:
    """A store that can be full."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.writes = 0
        self.full = False

    async def get_state(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def set_state(self, key: str, value: bytes) -> None:
        if self.full:
            raise OSError("the disk is full")
        self.writes += 1
        self.values[key] = value


async def another_life(at: Any, store: Kept, **figures: Any) -> tuple[Admission, Keeper]:
    door = at.door(**figures)
    keeper = Keeper(door, store, LOGGER)
    await keeper.load()
    return door, keeper


def failing(door: Admission, *args: Any, **facts: Any) -> Any:
    def end(permit: Permit) -> None:
        door.hearing.failed(permit, Failure(*args, **facts))

    return end


@pytest.mark.parametrize("killed", [True, False])
def test_pauses_quotas_refusals_breakers_survive(at: Any, killed: bool) -> None:
    async def run() -> None:
        store = Kept()
        door, keeper = await another_life(at, store, chance=0.5)
        keeping = asyncio.create_task(keeper.keep())
        throttled = failing(door, "throttle", "slow", status=429, retry_after_ms=100_000)
        resets_at = at.WALL + 7200
        quota = failing(door, "quota", "spent", status=429, resets_at=resets_at, window="seven_day_opus")
        refused = failing(door, "auth", "invalid key", status=401)
        overload = failing(door, "overload", "HTTP 503", status=503)
        await at.Guest(door, kind="call", models="haiku", stays_s=0.0, end=throttled).task
        await at.Guest(door, kind="call", models="opus", stays_s=0.0, end=quota).task
        await at.Guest(door, kind="call", credential="other", stays_s=0.0, end=refused).task
        for _ in range(5):
            await at.Guest(door, kind="call", models="sonnet", stays_s=0.0, end=overload).task
        await asyncio.sleep(1.0)
        if killed:
            keeping.cancel()
        else:
            await keeper.close()
            await keeping
        door, _ = await another_life(at, store, chance=0.5)
        ask: dict[str, Any] = {"kind": "call", "timeout_s": 30.0}
        error = await at.Guest(door, models="haiku", **ask).refused()
        assert (error.kind, round(error.data["retry_after_ms"] / 1000)) == ("throttled", 104)
        error = await at.Guest(door, models="opus", **ask).refused()
        assert (error.kind, round(error.data["resets_at"])) == ("quota_exhausted", resets_at + 30)
        assert (await at.Guest(door, credential="other", **ask).refused()).kind == "auth_failed"
        error = await at.Guest(door, models="sonnet", **ask).refused()
        assert (error.kind, round(error.data["retry_after_ms"] / 1000)) == ("circuit_open", 59)
        assert "HTTP 503" in str(error)

    at.run(run())


@pytest.mark.parametrize("killed", [True, False])
def test_what_the_provider_grants_is_not_granted_twice(at: Any, killed: bool) -> None:
    """However often the daemon is killed, in any minute no more is sent than burst and rate allow."""

    async def run() -> None:
        store = Kept()
        sent: list[float] = []
        loop = asyncio.get_running_loop()
        for _ in range(6):
            door, keeper = await another_life(at, store)
            keeping = asyncio.create_task(keeper.keep())

            def told(permit: Permit, door: Admission = door) -> None:
                assert permit.pool is not None
                assert permit.charge is not None
                sent.append(loop.time())
                windows = {"requests": Window(60, None, None)}
                permit.pool.limiter.learn(permit.charge.order, windows, loop.time(), at.WALL)
                door.call_gate.on_used()
                permit.succeeded = True

            calls = [at.Guest(door, kind="call", stays_s=0.01, end=told) for _ in range(20)]
            await asyncio.sleep(8.0)
            for call in calls:
                call.task.cancel()
            await asyncio.gather(*(call.task for call in calls), return_exceptions=True)
            if killed:
                keeping.cancel()
            else:
                await keeper.close()
        for begin in sent[20:]:
            assert sum(begin <= each < begin + 30 for each in sent[20:]) <= 10 + 30 + 1

    at.run(run())


def test_when_turns_began_counts_in_the_next_life(at: Any) -> None:
    """04.2, 04.3: the 61st of a minute waits, whoever started the daemon when."""

    async def run() -> None:
        door = at.door(max_running=100, queries_per_minute=60, queries_per_hour=100)
        wall = at.WALL + asyncio.get_running_loop().time()
        starts = [wall - 4000.0] * 50 + [wall - 30.0] * 30 + [wall - 10.0] * 40 + [wall + 5.0] * 10
        replay(door, "apiKey", starts)
        guests = [at.Guest(door, stays_s=0.0, timeout_s=3600.0) for _ in range(30)]
        await asyncio.gather(*(guest.task for guest in guests))
        # 80 in the last minute, half a minute's refill: 20 short of none; the hour has 20 left.
        assert sum(guest.waited_s < 0.01 for guest in guests) <= 10
        assert sum(guest.waited_s < 30 for guest in guests) <= 60 + 30 - 80 + 20 + 1
        assert max(guest.waited_s for guest in guests) > 200  # the hour's

    at.run(run())


def test_a_full_disk_stops_nobody_and_nonsense_is_passed_over(
    at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        store = Kept()
        store.full = True
        store.values["limits/door"] = b"[]"
        door, keeper = await another_life(at, store)
        keeping = asyncio.create_task(keeper.keep())
        end = failing(door, "throttle", "slow", status=429, retry_after_ms=10_000)
        await at.Guest(door, kind="call", stays_s=0.0, end=end).task
        await asyncio.sleep(2.0)
        store.full = False
        door.apply(door.settings)
        await asyncio.sleep(2.0)
        assert store.writes == 1
        keeping.cancel()

    at.run(run())
    said = [record.message for record in caplog.records if record.name == "test.kept"]
    assert said == ["the state of the limits cannot be read; they begin anew", "limits are not written down"]


def test_a_steady_load_writes_little(at: Any) -> None:
    async def run() -> None:
        store = Kept()
        door, keeper = await another_life(
            at, store, requests_per_minute=600, max_queued=2000, max_queued_per_client=2000
        )
        keeping = asyncio.create_task(keeper.keep())
        calls = [at.Guest(door, kind="call", stays_s=0.01) for _ in range(1200)]
        await asyncio.gather(*(call.task for call in calls))
        assert round(asyncio.get_running_loop().time()) == 60
        assert store.writes <= 70
        keeping.cancel()

    at.run(run())
