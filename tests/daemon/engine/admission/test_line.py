"""The door: grants, bounds, deadlines, cancellation; no permit is lost or given twice."""

import asyncio
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pytest
from dragomand.engine.admission import Admission, Asked, DoorSettings, Permit, Told
from dragomand.engine.errors import EngineError
from hypothesis import given, settings
from hypothesis import strategies as st


def door(max_running: int = 1, max_queued: int = 10, max_queued_per_client: int = 10) -> Admission:
    figures = DoorSettings(
        max_running=max_running,
        max_queued=max_queued,
        max_queued_per_client=max_queued_per_client,
        keep_for_people=False,
    )
    return Admission(figures, clock=asyncio.get_running_loop().time)


class Guest:
    """Somebody who enters, stays until told to leave, and notes what became of it."""

    def __init__(
        self,
        admission: Admission,
        client: str = "ann",
        priority: Any = "interactive",
        timeout_s: float | None = None,
    ) -> None:
        self.told: list[Told] = []
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.permit: Permit | None = None
        asked = Asked(client=client, priority=priority, timeout_s=timeout_s)
        self._door: AbstractAsyncContextManager[Permit] = admission.admit(asked, self.told.append)
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> None:
        async with self._door as permit:
            self.permit = permit
            self.inside.set()
            await self.leave.wait()

    async def go(self) -> None:
        self.leave.set()
        await self.task


async def settle() -> None:
    """Let every task that can run do so: they wait for nothing but each other."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_finds_room_is_let_in_at_once() -> None:
    admission = door(max_running=2)
    first, second = Guest(admission), Guest(admission)
    await settle()
    assert first.inside.is_set()
    assert second.inside.is_set()
    assert (admission.running, admission.queued, first.told) == (2, 0, [])
    assert first.permit is not None
    assert first.permit.queued_ms == 0
    await first.go()
    await second.go()
    assert admission.running == 0


async def test_the_others_wait_are_told_so_once_and_enter_in_turn() -> None:
    admission = door()
    guests = [Guest(admission) for _ in range(4)]
    await settle()
    assert [guest.inside.is_set() for guest in guests] == [True, False, False, False]
    assert [[(told.reason, told.position) for told in guest.told] for guest in guests] == [
        [],
        [("concurrency", 0)],
        [("concurrency", 1)],
        [("concurrency", 2)],
    ]
    for at, guest in enumerate(guests):
        assert guest.inside.is_set()
        assert admission.queued == 3 - at
        await guest.go()
        await settle()
    assert (admission.running, admission.queued) == (0, 0)


async def test_nobody_overtakes_those_who_wait() -> None:
    admission = door()
    inside, waiting = Guest(admission), Guest(admission)
    await settle()
    inside.leave.set()
    late = Guest(admission)
    await settle()
    assert waiting.inside.is_set()
    assert not late.inside.is_set()
    for guest in (waiting, late):
        await guest.go()


@pytest.mark.parametrize(
    ("bounds", "limit", "says"),
    [
        ({"max_queued": 1}, 1, "1 turns wait already, as many as may"),
        ({"max_queued_per_client": 1}, 1, "This client has 1 turns waiting already"),
    ],
)
async def test_a_full_queue_refuses_at_once(bounds: dict[str, int], limit: int, says: str) -> None:
    admission = door(**bounds)
    inside, waiting, refused = Guest(admission), Guest(admission), Guest(admission)
    await settle()
    with pytest.raises(EngineError, match=says) as error:
        await refused.task
    assert (error.value.kind, error.value.data) == ("queue_full", {"queued": 1, "limit": limit})
    assert refused.told == []
    await inside.go()
    await waiting.go()
    assert (admission.running, admission.queued) == (0, 0)


async def test_another_client_may_still_queue_when_one_may_not() -> None:
    admission = door(max_queued_per_client=1)
    guests = [Guest(admission), Guest(admission), Guest(admission, "bob")]
    await settle()
    assert admission.queued == 2
    for guest in guests:
        await guest.go()


async def test_the_deadline_in_the_queue() -> None:
    admission = door()
    inside = Guest(admission)
    late = Guest(admission, timeout_s=0)
    with pytest.raises(EngineError, match="and was not admitted: 1 turns are running and 0 wait") as error:
        await late.task
    assert error.value.kind == "queue_timeout"
    assert error.value.data["waited_ms"] >= 0
    assert (admission.running, admission.queued) == (1, 0)
    await inside.go()


async def test_without_a_queue_a_deadline_of_zero_does_not_matter() -> None:
    guest = Guest(door(), timeout_s=0)
    await settle()
    assert guest.inside.is_set()
    await guest.go()


async def test_one_who_gives_up_leaves_its_place_to_the_next() -> None:
    admission = door()
    inside, impatient, patient = Guest(admission), Guest(admission), Guest(admission)
    await settle()
    impatient.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient.task
    assert admission.queued == 1
    await inside.go()
    await settle()
    assert patient.inside.is_set()
    await patient.go()
    assert (admission.running, admission.queued) == (0, 0)


async def test_cancelled_in_the_instant_of_the_grant() -> None:
    """The permit was given already when the cancellation comes: it goes on to the next."""
    admission = door()
    inside, unlucky, following = Guest(admission), Guest(admission), Guest(admission)
    await settle()
    inside.leave.set()
    await asyncio.sleep(0)  # the leaver runs: it hands its permit on
    assert admission.queued == 1
    assert not unlucky.inside.is_set()
    unlucky.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unlucky.task
    await settle()
    assert following.inside.is_set()
    assert (admission.running, admission.queued) == (1, 0)
    await following.go()
    assert admission.running == 0


@pytest.mark.parametrize("how", [RuntimeError("boom"), asyncio.CancelledError()])
async def test_a_permit_is_given_back_however_the_block_ends(how: BaseException) -> None:
    admission = door()
    with suppress(type(how)):
        async with admission.admit(Asked(client="ann", priority="batch")):
            raise how
    assert admission.running == 0


async def test_a_sink_that_fails_costs_no_place() -> None:
    admission = door()
    inside = Guest(admission)
    await settle()

    def fail(*_: Any) -> None:
        raise LookupError("sink")

    with pytest.raises(LookupError):
        async with admission.admit(Asked(client="ann", priority="batch"), fail):
            pytest.fail("was let in")
    assert admission.queued == 0
    await inside.go()
    assert admission.running == 0


async def test_room_is_waited_for() -> None:
    admission = door(max_queued=1)
    await admission.room("ann")
    inside, waiting = Guest(admission), Guest(admission)
    await settle()
    room = asyncio.create_task(admission.room("ann"))
    await settle()
    assert not room.done()
    await inside.go()
    await room
    waiting.task.cancel()
    await asyncio.wait([waiting.task])


async def test_room_comes_when_one_gives_up() -> None:
    admission = door(max_queued=1)
    inside, waiting = Guest(admission), Guest(admission)
    await settle()
    room = asyncio.create_task(admission.room("ann"))
    await settle()
    assert not room.done()
    waiting.task.cancel()
    await room
    await inside.go()


async def test_idle_is_told_and_can_be_waited_for() -> None:
    admission = door()
    told: list[int] = []
    admission.on_idle = lambda: told.append(admission.running)
    await admission.until_idle()
    first, second = Guest(admission), Guest(admission)
    await settle()
    idle = asyncio.create_task(admission.until_idle())
    await first.go()
    await settle()
    assert (told, idle.done()) == ([], False)
    await second.go()
    await idle
    assert told == [0]


steps = st.lists(
    st.tuples(st.sampled_from(["come", "leave", "cancel", "hurry"]), st.integers(0, 7), st.booleans()),
    max_size=40,
)


@settings(max_examples=120, deadline=None)
@given(max_running=st.integers(1, 3), max_queued=st.integers(1, 5), per_client=st.integers(1, 4), steps=steps)
def test_any_comings_and_goings(
    max_running: int, max_queued: int, per_client: int, steps: list[tuple[str, int, bool]]
) -> None:
    """Whatever happens in whatever order: never more inside than may, nobody waits beside a free place,
    every permit comes back, and each guest ends in exactly one way."""

    async def run() -> None:
        admission = door(max_running, max_queued, per_client)
        guests: list[Guest] = []
        most = 0
        for what, who, at_once in steps:
            here = [guest for guest in guests if not guest.task.done()]
            if what == "come":
                client, priority = "abc"[who % 3], "batch" if who % 2 else "interactive"
                guests.append(Guest(admission, client, priority, timeout_s=0 if who == 7 else None))
            elif what == "leave" and here:
                here[who % len(here)].leave.set()
            elif what == "cancel" and here:
                here[who % len(here)].task.cancel()
            elif what == "hurry":
                for guest in here[: who + 1]:
                    guest.leave.set()
                    guest.task.cancel()
            # Sometimes the next thing happens before anybody could react to this one.
            if not at_once:
                await settle()
                inside = sum(guest.inside.is_set() and not guest.task.done() for guest in guests)
                most = max(most, inside)
                assert admission.running == inside <= max_running
                assert admission.queued == 0 or admission.running == max_running
        for guest in guests:
            guest.leave.set()
        async with asyncio.timeout(30):
            ends = await asyncio.gather(*(guest.task for guest in guests), return_exceptions=True)
        assert all(
            end is None
            or isinstance(end, asyncio.CancelledError)
            or (isinstance(end, EngineError) and end.kind in ("queue_full", "queue_timeout"))
            for end in ends
        )
        assert (admission.running, admission.queued) == (0, 0)
        await admission.until_idle()
        # As many as may still can: no permit was lost.
        again = [Guest(admission) for _ in range(max_running)]
        await settle()
        assert all(guest.inside.is_set() for guest in again)
        for guest in again:
            await guest.go()

    asyncio.run(run())


async def test_calls_have_permits_of_their_own() -> None:
    admission = door(max_running=1)
    told: list[int] = []
    admission.on_idle = lambda: told.append(1)
    async with admission.admit_call(Asked(client="ann")):
        assert (admission.running, admission.calls_running, admission.calls_queued) == (0, 1, 0)
        turn = Guest(admission)
        await turn.inside.wait()  # a turn is not kept waiting by a call
        await turn.go()
        assert told == []  # a call is under way
        idle = asyncio.create_task(admission.until_idle())
        await settle()
        assert not idle.done()
    assert told == [1]
    await idle
