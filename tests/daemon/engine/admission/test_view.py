"""The door as it is told: its state, and why what waits does."""

import asyncio
from typing import Any

from dragomand.engine.admission import Permit, explained, state_of
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import Allowance, LimitsHeard, Window


def test_nothing_is_going_on(at: Any) -> None:
    async def run() -> None:
        door = at.door()
        state = state_of(door)
        assert (state.running, state.queued, state.parked, state.pools, state.buckets) == (0, 0, 0, [], [])
        assert (state.waiting_for_auth, state.human_active, state.retry_budget) == (False, False, 10.0)
        assert explained(door, None).waiting == []

    at.run(run())


def test_state(at: Any) -> None:
    async def run() -> None:
        door = at.door(max_running=4, queries_per_minute=60, requests_per_minute=1000)

        def told(permit: Permit) -> None:
            allowance = Allowance(60, 50, None)
            windows = (Window("five_hour", "allowed", at.WALL + 100, 0.5),)
            said = LimitsHeard(1, at.WALL, 200, requests=allowance, windows=windows, absurd=1)
            door.hearing.of_call(permit, said)
            permit.succeeded = True

        def spent(permit: Permit) -> None:
            facts: dict[str, Any] = {"resets_at": at.WALL + 50, "window": "seven_day_opus"}
            door.hearing.failed(permit, Failure("quota", "spent", status=429, **facts))

        turn = at.Guest(door, turn_id="t-1")
        await at.Guest(door, kind="call", models="haiku", stays_s=0.0, end=told).task
        call = at.Guest(door, kind="call", models="haiku")
        await at.Guest(door, kind="call", models="opus", stays_s=0.0, end=spent).task
        waiting = [at.Guest(door, "bob", kind="call", models="opus", priority="batch") for _ in range(3)]
        await at.settle()
        state = state_of(door)
        assert (state.running, state.calls_running, state.calls_queued) == (1, 1, 3)
        assert (state.parked, state.parked_until, state.human_active) == (3, at.WALL + 50, True)
        (bucket,) = state.buckets
        assert (bucket.name, bucket.source, round(bucket.level)) == ("queriesPerMinute", "settings", 59)
        _, haiku, opus = state.pools
        assert (haiku.models, haiku.running, haiku.waiting, haiku.ignored) == ("haiku", 1, 0, 1)
        assert [(each.name, each.source) for each in haiku.buckets] == [
            ("requestsPerMinute", "settings"), ("requests", "provider"),
        ]  # fmt: skip
        assert (opus.models, opus.waiting, opus.breaker) == ("opus", 3, None)
        assert {(each.name, each.status, each.utilization) for each in state.windows} == {
            ("five_hour", "allowed", 0.5), ("seven_day_opus", "rejected", None),
        }  # fmt: skip
        for guest in waiting:
            guest.task.cancel()
        await turn.go()
        await call.go()

    at.run(run())


def test_a_used_up_quota_is_told_before_anybody_waits_for_it(at: Any) -> None:
    """Who looks knows until when, and does not have to send something to find out."""

    async def run() -> None:
        door = at.door()

        def spent(window: str, after: float) -> Any:
            facts: dict[str, Any] = {"resets_at": at.WALL + after, "window": window}
            return lambda permit: door.hearing.failed(permit, Failure("quota", "spent", status=429, **facts))

        await at.Guest(door, kind="call", models="opus", stays_s=0.0, end=spent("seven_day_opus", 50.0)).task
        assert (state_of(door).parked, state_of(door).parked_until) == (0, at.WALL + 50)
        await at.Guest(door, kind="call", models="haiku", stays_s=0.0, end=spent("five_hour", 90.0)).task
        assert (state_of(door).parked, state_of(door).parked_until) == (0, at.WALL + 90)
        await asyncio.sleep(60.0)
        assert state_of(door).parked_until == at.WALL + 90
        await asyncio.sleep(31.0)
        assert state_of(door).parked_until is None, "the next call tries"

    at.run(run())


def test_why_each_waits_and_who_holds_the_places(at: Any) -> None:
    """04.12, and whose is whose business."""

    async def run() -> None:
        door = at.door(max_running=1)
        await at.Guest(door, stays_s=10.0).task
        inside = at.Guest(door, "ann", name="editor", turn_id="t-1")
        mine = at.Guest(door, "bob", session_id="s-1", turn_id="t-2", timeout_s=600.0)
        others = [at.Guest(door, "cid", priority="batch", turn_id=f"t-{n}") for n in (3, 4)]
        await asyncio.sleep(5.0)
        found = explained(door, None)
        assert [each.turn_id for each in found.waiting] == ["t-2", "t-3", "t-4"]
        first = found.waiting[0]
        assert (first.kind, first.client, first.reason, first.position) == ("turn", "bob", "concurrency", 0)
        assert first.text == "1 turns are running, as many as may (limits.maxRunning = 1)."
        assert first.waited_ms == 5000
        assert first.expires_at == at.WALL + 15.0 + 595.0
        assert [round((each.expected_at or 0) - at.WALL - 15) for each in found.waiting] == [10, 20, 30]
        (holder,) = found.holders
        assert (holder.client, holder.name, holder.kind, holder.turn_id) == ("ann", "editor", "turn", "t-1")
        assert holder.since == at.WALL + 10.0
        seen = explained(door, "bob")
        assert [each.turn_id for each in seen.waiting] == ["t-2"]
        assert [each.turn_id for each in seen.holders] == [None], "whose turn it is is not bob's business"
        assert explained(door, None, session_id="s-1").waiting == [first]
        assert explained(door, None, turn_id="t-9").waiting == []
        for guest in (mine, *others):
            guest.task.cancel()
        await inside.go()

    at.run(run())


def test_a_late_one_is_refused_as_it_comes_when_it_is_known_how_long_turns_take(at: Any) -> None:
    async def run() -> None:
        door = at.door(max_running=1)
        await at.Guest(door, stays_s=100.0).task
        inside = at.Guest(door)
        await at.settle()
        error = await at.Guest(door, timeout_s=60.0).refused()
        assert (error.kind, error.data["retry_after_ms"]) == ("queue_timeout", 100_000)
        await inside.go()

    at.run(run())
