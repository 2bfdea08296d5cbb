"""The door in virtual time: rates, pauses, quotas, credentials, breakers, nesting; 04.17 to 04.19."""

import asyncio
from typing import Any

from dragomand.engine.admission import Permit
from dragomand.engine.errors import EngineError
from dragomand.upstream.interface import Failure
from msgspec.structs import replace


def ok(permit: Permit) -> None:
    permit.succeeded = True


def overloaded(permit: Permit) -> None:
    permit.failure = "overload"


def test_the_61st_query_of_a_minute_waits(at: Any) -> None:
    """04.17, 04.2, TS.23, 03.27: it is not refused, it waits for its second; likewise the 62nd."""

    async def run() -> None:
        door = at.door(max_running=100, queries_per_minute=60)
        guests = [at.Guest(door, stays_s=0.0) for _ in range(62)]
        await asyncio.gather(*(guest.task for guest in guests))
        assert [guest.waited_s for guest in guests[:60]] == [0.0] * 60
        assert [round(guest.waited_s, 1) for guest in guests[60:]] == [1.0, 2.0]
        told = guests[60].told[0]
        assert (told.reason, told.position) == ("rate", 0)
        assert told.text == "limits.queriesPerMinute is used up: 60 at once and 60 a minute; next in 1.0 s."
        assert told.expected_in_s is not None
        assert round(told.expected_in_s, 1) == 1.0
        assert guests[61].told[0].expected_in_s == 2.0
        assert guests[60].permit.queued_ms in (1000, 1001)
        assert set(guests[60].permit.reasons) == {"rate"}

    at.run(run())


def test_one_whose_deadline_is_nearer_than_its_turn_is_refused_at_once(at: Any) -> None:
    """04.5, 04.12: `rate_limited`, with when to come again."""

    async def run() -> None:
        door = at.door(max_running=100, queries_per_hour=2)
        for _ in range(2):
            await at.Guest(door, stays_s=0.0).task
        error = await at.Guest(door, timeout_s=60.0).refused()
        assert asyncio.get_running_loop().time() == 0.0
        assert error.kind == "rate_limited"
        assert error.data["retry_after_ms"] == 1_800_000
        assert (door.running, door.queued) == (0, 0)

    at.run(run())


def test_the_breaker_opens_refuses_at_once_and_closes_again(at: Any) -> None:
    """04.18, 04.6 to 04.11, 00.31, 00.32."""

    async def run() -> None:
        door = at.door(chance=0.5)
        changes: list[str] = []
        door.on_breaker = lambda info: changes.append(info.state)
        for _ in range(5):
            await at.Guest(door, kind="call", stays_s=0.1, end=overloaded).task
        assert changes == ["open"]
        for kind in ("call", "turn"):
            error = await at.Guest(door, kind=kind).refused()
            assert error.kind == "circuit_open"
            assert str(error).startswith("Circuit breaker open, service degraded")
            assert 59_000 <= error.data["retry_after_ms"] <= 60_000
        await asyncio.sleep(60.0)
        trials = [at.Guest(door, kind="call", stays_s=1.0, end=ok) for _ in range(3)]
        await at.settle()
        assert [trial.inside.is_set() for trial in trials] == [True, True, False]
        assert trials[2].told[0].reason == "breaker"
        await asyncio.gather(*(trial.task for trial in trials))
        assert changes == ["open", "half_open", "closed"]
        assert trials[2].waited_s == 1.0  # recovery within one half-open window

    at.run(run())


def test_batch_waits_until_the_provider_is_back(at: Any) -> None:
    async def run() -> None:
        door = at.door(chance=0.5)
        for _ in range(5):
            await at.Guest(door, kind="call", stays_s=0.0, end=overloaded).task
        jobs = [at.Guest(door, kind="call", priority="batch", stays_s=1.0, end=ok) for _ in range(5)]
        await asyncio.gather(*(job.task for job in jobs))
        assert [round(job.waited_s) for job in jobs] == [60, 60, 61, 61, 61]
        assert {told.reason for job in jobs for told in job.told} == {"breaker"}

    at.run(run())


def test_a_pause_holds_for_the_whole_pool_then_one_tries(at: Any) -> None:
    """04.19 with a `retry-after`: nothing before it, then one, then twice as many for each success."""

    async def run() -> None:
        door = at.door(chance=1.0)

        def told_off(permit: Permit) -> None:
            door.hearing.failed(permit, Failure("throttle", "slow down", status=429, retry_after_ms=10_000))

        await at.Guest(door, kind="call", stays_s=0.0, end=told_off).task
        calls = [at.Guest(door, kind="call", stays_s=1.0, end=ok, timeout_s=60.0) for _ in range(7)]
        other = at.Guest(door, kind="call", models="haiku", stays_s=1.0)
        await asyncio.gather(other.task, *(call.task for call in calls))
        assert other.waited_s == 0.0  # another pool is not concerned
        assert [round(call.waited_s, 1) for call in calls] == [11.0, 12.0, 12.0, 13.0, 13.0, 13.0, 13.0]
        error = None
        await at.Guest(door, kind="call", stays_s=0.0, end=told_off).task
        error = await at.Guest(door, kind="call", timeout_s=5.0).refused()
        assert error.kind == "throttled"
        assert error.data["retry_after_ms"] == 11_000

    at.run(run())


def test_a_used_up_quota_parks_and_costs_one_call(at: Any) -> None:
    """Turns and calls go on by themselves at the reset; one call finds out; who cannot wait is told."""

    async def run() -> None:
        door = at.door(max_running=4)
        parked: list[Any] = []
        door.hearing.on_parked = lambda *facts: parked.append(facts)
        sent: list[float] = []
        resets_at = at.WALL + 4 * 3600

        def used_up(permit: Permit) -> None:
            sent.append(asyncio.get_running_loop().time())
            used = Failure("quota", "used up", status=429, resets_at=resets_at, window="five_hour")
            door.hearing.failed(permit, used)

        waiting = [at.Guest(door, "bob", priority="batch", stays_s=5.0) for _ in range(6)]
        await at.settle()
        await at.Guest(door, kind="call", stays_s=1.0, end=used_up).task
        assert parked == [("apiKey", resets_at, "five_hour")]
        jobs = [at.Guest(door, priority="batch", stays_s=5.0) for _ in range(10)]
        person = at.Guest(door, timeout_s=60.0)
        error = await person.refused()
        assert (error.kind, error.data["resets_at"]) == ("quota_exhausted", resets_at)
        assert asyncio.get_running_loop().time() == 1.0
        in_vain = await at.Guest(door, kind="call", timeout_s=60.0).refused()
        assert in_vain.kind == "quota_exhausted"
        await at.settle()
        assert waiting[4].told[-1].reason == "quota"  # it waited for a place before
        assert "five_hour of apiKey is used up" in jobs[0].told[0].text
        jobs[9].task.cancel()
        await asyncio.sleep(4 * 3600 - 2)
        assert not any(job.inside.is_set() for job in jobs)
        calls = [at.Guest(door, kind="call", priority="batch", stays_s=1.0, end=ok) for _ in range(3)]
        await asyncio.gather(*(job.task for job in [*jobs[:9], *waiting, *calls]))
        assert round(min(job.waited_s for job in jobs[:9])) == 4 * 3600 - 1
        assert sorted(round(call.waited_s) for call in calls) == [1, 2, 2]  # one tries, then the others
        assert len(sent) == 1

    at.run(run())


def test_a_refused_credential_is_let_alone(at: Any) -> None:
    """One notification; batch waits, people are told; one tries after a minute; a new one lets all go."""

    async def run() -> None:
        door = at.door(max_running=4, keep_for_people=False)
        news: list[Any] = []
        door.hearing.on_refused = lambda *facts: news.append(facts)

        def refused(permit: Permit) -> None:
            door.hearing.failed(permit, Failure("auth", "invalid x-api-key", status=401))

        for _ in range(2):
            await asyncio.gather(
                *(at.Guest(door, kind="call", stays_s=1.0, end=refused).task for _ in range(2))
            )
            job = at.Guest(door, priority="batch", stays_s=0.0)
            error = await at.Guest(door).refused()
            assert error.kind == "auth_failed"
            assert "invalid x-api-key" in str(error)
            assert not job.inside.is_set()
            job.task.cancel()
            await asyncio.sleep(60.0)
            break
        assert news == [("apiKey", "invalid x-api-key")]
        calls = [at.Guest(door, kind="call", priority="batch", stays_s=1.0, end=refused) for _ in range(3)]
        await at.settle()
        assert [call.inside.is_set() for call in calls] == [True, False, False]
        await calls[0].task
        assert len(news) == 1
        await asyncio.sleep(30.0)
        door.credential_changed("apiKey")
        await at.settle()
        assert all(call.inside.is_set() for call in calls)
        other = at.Guest(door, credential="claudeLogin", stays_s=0.0)
        await other.task
        await asyncio.gather(*(call.task for call in calls[1:]))

    at.run(run())


def test_nothing_waits_for_itself(at: Any) -> None:
    """One place for turns, one for calls, and turns that start turns seven deep, three of each."""

    async def run() -> None:
        door = at.door(max_running=1, max_calls=1)
        ran: list[str] = []

        async def turn(name: str, parent: str | None, depth: int) -> None:
            asked = {"turn_id": name, "parent": parent, "timeout_s": 10_000.0}
            guest = at.Guest(door, kind="turn", **asked)
            await guest.inside.wait()
            # Without a gateway: its call's permit is held for its whole length.
            call = at.Guest(door, kind="call", turn_id=name, timeout_s=10_000.0, end=ok)
            await call.inside.wait()
            ran.append(name)
            if depth:
                below = [turn(f"{name}.{which}", name, depth - 1) for which in range(2)]
                await asyncio.gather(*below)
            await call.go()
            await guest.go()

        await asyncio.gather(*(turn(str(which), None, 5) for which in range(3)))
        assert len(ran) == 3 * (2**6 - 1)
        assert (door.running, door.calls_running) == (0, 0)
        await door.until_idle()

    at.run(run())


def test_turns_that_start_turns_for_ever_are_stopped(at: Any) -> None:
    async def run() -> None:
        door = at.door(max_running=1, max_depth=3)
        chain = [at.Guest(door, turn_id=f"t{d}", parent=f"t{d - 1}" if d else None) for d in range(4)]
        await at.settle()
        assert all(guest.inside.is_set() for guest in chain)
        error = await at.Guest(door, parent="t3").refused()
        assert error.kind == "queue_full"
        assert "limits.maxDepth" in str(error)
        for guest in chain:
            await guest.go()

    at.run(run())


def test_new_figures_hold_at_once_also_for_who_waits(at: Any) -> None:
    """04.15, 04.16: places, rates and the breaker, at run time; nobody is thrown out."""

    async def run() -> None:
        door = at.door(max_running=1, queries_per_minute=2)
        guests = [at.Guest(door) for _ in range(3)]
        await at.settle()
        assert [guest.inside.is_set() for guest in guests] == [True, False, False]
        await asyncio.sleep(2.0)  # reasons that go to and fro are told once a second
        door.apply(replace(door.settings, max_running=3))
        await at.settle()
        assert [guest.inside.is_set() for guest in guests] == [True, True, False]
        assert guests[2].told[-1].reason == "rate"
        await asyncio.sleep(2.0)
        door.apply(replace(door.settings, max_running=1, queries_per_minute=600))
        await asyncio.sleep(2.0)
        assert door.running == 2
        await guests[0].go()
        await at.settle()
        assert not guests[2].inside.is_set()
        door.apply(replace(door.settings, failure_threshold=1))
        await at.Guest(door, kind="call", stays_s=0.0, end=overloaded).task
        assert door.breakers()[0].state == "open"
        door.apply(replace(door.settings, max_running=2))
        await at.settle()
        assert not guests[2].inside.is_set()
        assert door.reset_breakers() == 1
        await at.settle()
        assert guests[2].inside.is_set()
        for guest in guests[1:]:
            await guest.go()
        door.close()

    at.run(run())


def test_what_cannot_be_paid_for_is_not_let_in(at: Any) -> None:
    """Money is put aside in the instant of the grant, and given back with the permit, on every path."""

    async def run() -> None:
        door = at.door(max_running=1)
        left, released = 2, 0

        class Reserved:
            def release(self) -> None:
                nonlocal released
                released += 1

        def reserve() -> Reserved:
            nonlocal left
            if not left:
                raise EngineError("budget_exhausted")
            left -= 1
            return Reserved()

        first = at.Guest(door, reserve=reserve)
        waiting = [at.Guest(door, reserve=reserve) for _ in range(3)]
        await at.settle()
        assert left == 1
        await first.go()
        await at.settle()
        assert waiting[0].inside.is_set()
        waiting[0].task.cancel()
        await at.settle()
        assert [(await guest.refused()).kind for guest in waiting[1:]] == ["budget_exhausted"] * 2
        assert (await at.Guest(door, reserve=reserve).refused()).kind == "budget_exhausted"
        assert (released, door.running, door.queued) == (2, 0, 0)

    at.run(run())
