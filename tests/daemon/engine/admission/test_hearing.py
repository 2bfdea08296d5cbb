"""What the provider says, and what the door does: four classes, four mechanisms."""

import asyncio
from typing import Any

import pytest
from dragomand.engine.admission import Permit
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import Allowance, LimitsHeard, Window


def heard(status: int = 200, **facts: Any) -> LimitsHeard:
    return LimitsHeard(1, 1_800_000_000.0, status, **facts)


@pytest.mark.parametrize("category", ["caller", "crash", "protocol", "mismatch", "missing"])
def test_what_is_nobodys_business_changes_nothing(at: Any, category: Any) -> None:
    async def run() -> None:
        door = at.door(failure_threshold=1)

        def end(permit: Permit) -> None:
            door.hearing.failed(permit, Failure(category, "it is so", status=400))

        for _ in range(10):
            await at.Guest(door, kind="call", stays_s=0.0, end=end).task
        guest = at.Guest(door, kind="call", stays_s=0.0)
        await guest.task
        assert guest.waited_s == 0
        assert door.breakers()[0].state == "closed"

    at.run(run())


def test_the_providers_own_limits_are_kept(at: Any) -> None:
    async def run() -> None:
        door = at.door()

        def end(permit: Permit) -> None:
            door.hearing.of_call(permit, heard(requests=Allowance(60, None, None), absurd=2))
            permit.succeeded = True

        await at.Guest(door, kind="call", stays_s=0.0, end=end).task
        guests = [at.Guest(door, kind="call", stays_s=0.0) for _ in range(12)]
        await asyncio.gather(*(guest.task for guest in guests))
        assert [round(guest.waited_s) for guest in guests] == [0] * 10 + [1, 2]
        assert guests[-1].told[0].text.startswith("The provider's limit of requests is used up")
        assert door.pools.get("apiKey", "default").limiter.absurd == 2

    at.run(run())


def test_a_push_back_lowers_how_many_are_asked_at_once(at: Any) -> None:
    async def run() -> None:
        door = at.door(max_calls=20)
        pool = door.pools.get("apiKey", "default")

        def end(permit: Permit) -> None:
            door.hearing.failed(permit, Failure("overload", "busy", status=529))

        await at.Guest(door, kind="call", stays_s=0.0, end=end).task
        assert pool.ceiling.limit == 14
        await at.Guest(door, kind="call", stays_s=0.0, end=end).task
        assert pool.ceiling.limit == 14, "once in ten seconds"

    at.run(run())


def test_windows_are_told_of_and_only_a_refusal_parks(at: Any) -> None:
    """What Claude Code says with a subscription, of calls that the daemon does not see."""

    async def run() -> None:
        door = at.door()
        parked: list[Any] = []
        door.hearing.on_parked = lambda *facts: parked.append(facts)
        resets_at = at.WALL + 3600
        window = Window("five_hour", "allowed_warning", resets_at, 0.9)
        door.hearing.overheard("claudeLogin", "opus", heard(windows=(window,)))
        await at.Guest(door, credential="claudeLogin", stays_s=0.0).task
        assert parked == []
        used_up = Failure("quota", "used up", status=429, resets_at=resets_at, window="five_hour")
        for _ in range(2):  # it is heard twice, and told once
            door.hearing.overheard("claudeLogin", "opus", heard(429, windows=(window,), failure=used_up))
        assert parked == [("claudeLogin", resets_at, "five_hour")]
        job = at.Guest(door, credential="claudeLogin", priority="batch", stays_s=0.0)
        other = at.Guest(door, credential="apiKey", stays_s=0.0)
        await other.task
        await job.task
        assert (other.waited_s, job.waited_s >= 3600) == (0, True)

    at.run(run())


def test_a_trial_is_over_when_its_answer_begins(at: Any) -> None:
    """A long answer keeps nobody else waiting: who let it in lets others in."""

    async def run() -> None:
        door = at.door()

        def end(permit: Permit) -> None:
            door.hearing.failed(permit, Failure("throttle", "slow", status=429, retry_after_ms=5000))

        await at.Guest(door, kind="call", stays_s=0.0, end=end).task
        first = at.Guest(door, kind="call")
        second = at.Guest(door, kind="call", stays_s=0.0)
        await first.inside.wait()
        await at.settle()
        assert not second.inside.is_set()
        door.hearing.of_call(first.permit, heard())
        await second.task
        assert round(second.waited_s) == 5
        await first.go()

    at.run(run())


def test_that_a_quota_is_there_again_is_told_once_whoever_found_out(at: Any) -> None:
    async def run() -> None:
        door = at.door()
        parked: list[Any] = []
        door.hearing.on_parked = lambda *facts: parked.append(facts)
        resets_at = at.WALL + 3600

        def used_up(permit: Permit) -> None:
            window = Failure("quota", "used up", status=429, resets_at=resets_at, window="five_hour")
            door.hearing.failed(permit, window)

        def succeeds(permit: Permit) -> None:
            permit.succeeded = True

        await at.Guest(door, kind="call", stays_s=0.0, end=used_up).task
        await at.Guest(door, kind="call", priority="batch", stays_s=0.0, end=succeeds).task
        assert parked == [("apiKey", resets_at, "five_hour"), ("apiKey", None, "")]
        await at.Guest(door, kind="call", stays_s=0.0, end=used_up).task
        assert door.reset_breakers() == 0
        door.credential_changed("apiKey")
        assert [until is None for _, until, _ in parked] == [False, True, False, True]

    at.run(run())
