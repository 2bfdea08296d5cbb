"""Shares in virtual time: equal clients, a person among batches, 10 000 who wait, a provider that fails."""

import asyncio
import random
from typing import Any

from dragomand.engine.admission import Admission, Permit, Share
from dragomand.engine.call import Call
from dragomand.engine.calls import Calls
from dragomand.engine.errors import EngineError
from dragomand.upstream.interface import Failure


def spent(tokens: int) -> Any:
    def end(permit: Permit) -> None:
        permit.succeeded, permit.input_tokens, permit.output_tokens = True, tokens, 0

    return end


def at_the_end(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share) - 1]


def test_four_batches_of_900_and_one_person(at: Any) -> None:
    """The person's p99 wait is at most 10 s; equal clients end within 5 % of each other."""

    async def run() -> None:
        door = at.door(max_running=8, max_queued=5000, max_queued_per_client=1000)
        chance = random.Random(4)
        ends: dict[str, float] = {}
        served: dict[str, int] = {}

        async def batch(client: str) -> None:
            async def job() -> None:
                stays_s = chance.uniform(5, 15)
                await at.Guest(door, client, priority="batch", stays_s=stays_s, end=spent(100)).task
                served[client] = served.get(client, 0) + 1
                if sum(served.values()) == 1800:  # half of all
                    assert max(served.values()) <= 1.05 * min(served.values())

            await asyncio.gather(*(job() for _ in range(900)))
            ends[client] = asyncio.get_running_loop().time()

        waits: list[float] = []

        async def person() -> None:
            while len(ends) < 4:
                guest = at.Guest(door, "person", stays_s=chance.uniform(2, 8), end=spent(100))
                await guest.task
                waits.append(guest.waited_s)
                await asyncio.sleep(chance.uniform(5, 40))

        await asyncio.gather(*(batch(f"batch-{n}") for n in range(4)), person())
        assert len(waits) > 100
        assert at_the_end(waits, 0.99) <= 10.0
        assert max(ends.values()) <= 1.05 * min(ends.values())

    at.run(run())


def test_what_counts_is_tokens_and_weight(at: Any) -> None:
    """00.69: a client with long calls gets as many tokens as one with short ones, not as many calls."""

    async def run() -> None:
        shares = {"heavy": Share(2.0)}
        door = at.door(max_calls=2, max_queued=2000, max_queued_per_client=1000, clients=shares)
        tokens = {"long": 0, "short": 0, "twice": 0}

        def end(client: str, amount: int) -> Any:
            def end(permit: Permit) -> None:
                tokens[client] += amount
                spent(amount)(permit)

            return end

        guests = [
            at.Guest(
                door, client, kind="call", priority="batch", stays_s=1.0, end=end(client, amount), name=name
            )
            for client, amount, name in (("long", 1000, ""), ("short", 100, ""), ("twice", 100, "heavy"))
            for _ in range(400)
        ]
        await asyncio.sleep(250.0)
        now = dict(tokens)
        for guest in guests:
            guest.task.cancel()
        await asyncio.gather(*(guest.task for guest in guests), return_exceptions=True)
        assert abs(now["long"] - now["short"]) <= 0.15 * now["short"]
        assert 1.8 <= now["twice"] / now["short"] <= 2.2

    at.run(run())


def test_a_clients_class_can_be_set(at: Any) -> None:
    async def run() -> None:
        door = at.door(max_running=1, clients={"ci": Share(priority="batch")})
        inside = at.Guest(door)
        await at.settle()
        machine = at.Guest(door, "m", name="ci")
        person = at.Guest(door, "p", name="editor")
        await at.settle()
        await inside.go()
        await at.settle()
        assert (machine.inside.is_set(), person.inside.is_set()) == (False, True)
        await person.go()
        await machine.go()

    at.run(run())


def test_the_last_place_is_kept_for_people_who_were_there_lately(at: Any) -> None:
    async def run() -> None:
        door = at.door(max_running=3)
        await at.Guest(door, "person", stays_s=0.0).task
        jobs = [at.Guest(door, priority="batch") for _ in range(3)]
        await at.settle()
        assert [job.inside.is_set() for job in jobs] == [True, True, False]
        assert (jobs[2].told[0].reason, jobs[2].told[0].position) == ("reserved", 0)
        person = at.Guest(door, "person")
        await at.settle()
        assert person.inside.is_set()
        await person.go()
        await asyncio.sleep(299.0)
        assert not jobs[2].inside.is_set()
        await asyncio.sleep(2.0)
        assert jobs[2].inside.is_set()
        for job in jobs:
            await job.go()

    at.run(run())


def test_thousands_who_wait_cost_the_others_nothing(at: Any) -> None:
    """Those of another pool go as if nobody waited, and nothing wakes up meanwhile but for the one alarm."""

    async def run() -> None:
        door: Admission = at.door(max_calls=50, max_queued=20_000, max_queued_per_client=20_000)

        def used_up(permit: Permit) -> None:
            facts: dict[str, Any] = {"resets_at": at.WALL + 3600, "window": "seven_day_opus"}
            door.hearing.failed(permit, Failure("quota", "spent", **facts))

        await at.Guest(door, kind="call", models="opus", stays_s=0.0, end=used_up).task
        call: dict[str, Any] = {"kind": "call"}
        waiting = [
            at.Guest(door, f"c{n % 7}", models="opus", priority="batch", stays_s=0.0, end=spent(1), **call)
            for n in range(3_000)
        ]
        await at.settle()
        assert door.calls.queued == 3_000
        looks: list[float] = []
        serve = door.calls.serve
        door.calls.serve = lambda now, **how: (looks.append(now), serve(now, **how))[1]  # type: ignore[assignment]
        others = [at.Guest(door, kind="call", models="haiku", stays_s=1.0, end=spent(1)) for _ in range(50)]
        await asyncio.gather(*(other.task for other in others))
        assert {other.waited_s for other in others} == {0.0}
        looks.clear()
        await asyncio.sleep(600.0)
        assert len(looks) <= 11  # once a minute, in case the machine has slept
        await asyncio.sleep(3600.0)
        assert all(guest.task.done() for guest in waiting)

    at.run(run())


def test_a_provider_that_fails_is_asked_little_more_than_once_a_request(at: Any) -> None:
    """Attempts are at most 1.1 times the requests plus 10; recovery within one half-open window (04.19)."""

    async def run() -> None:
        door = at.door(max_calls=100, calls_at_start=100, chance=0.5, attempts=3)
        calls = Calls(door, clock=door.wall, queue_timeout_s=30.0)
        grant, _ = calls.grant("a program")
        fails, attempts = True, 0
        answered: list[float] = []

        async def once(call: Call) -> None:
            nonlocal attempts
            attempts += 1
            await asyncio.sleep(0.1)
            call.status = 503 if fails else 200
            call.failure = Failure("overload", "503", status=503) if fails else None
            call.finished = not fails
            if not fails:
                answered.append(asyncio.get_running_loop().time())

        async def request() -> str | None:
            try:
                await calls.carry_out(lambda: calls.call(grant), once)
            except EngineError as error:
                return error.kind
            return None

        refused = []
        for _ in range(60):
            refused.append(await request())
            await asyncio.sleep(1.0)
        assert attempts <= 1.1 * 60 + 10
        assert refused.count("circuit_open") > 40
        (breaker,) = door.breakers()
        assert breaker.state == "open"
        fails = False
        await asyncio.sleep(door.pools.get("apiKey", "default").provider.breaker.refusal(door.clock()) or 0)
        back = asyncio.get_running_loop().time()
        assert await asyncio.gather(*(request() for _ in range(20))) == [None] * 20
        assert max(answered) - back <= 1.0
        assert door.breakers()[0].state == "closed"

    at.run(run())
