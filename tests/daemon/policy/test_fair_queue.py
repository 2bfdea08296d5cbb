"""The queue, as tables and as a state machine against a model that is slow and obvious."""

import copy
import sys
from itertools import count
from typing import Any

import pytest
from dragomand.policy.client_lines import Lines
from dragomand.policy.fair_queue import BATCH_EVERY, PRESENT_S, FairQueue, Priority, served
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

CLIENTS = ("ann", "bob", "cem")


def filled(
    *waiting: tuple[str, Priority, str], max_queued: int = 100, max_per_client: int = 100
) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(max_queued=max_queued, max_per_client=max_per_client)
    for client, priority, item in waiting:
        assert queue.put(client, priority, item) is None
    return queue


def drained(queue: FairQueue[str]) -> list[str]:
    taken = []
    while (item := queue.next()) is not None:
        taken.append(item)
    return taken


def test_nobody_is_next_when_nobody_waits() -> None:
    queue = filled()
    assert queue.next() is None
    assert not queue


def test_one_client_is_served_in_the_order_of_arrival() -> None:
    queue = filled(("ann", "interactive", "1"), ("ann", "interactive", "2"), ("ann", "interactive", "3"))
    assert drained(queue) == ["1", "2", "3"]


def test_clients_take_turns_whoever_came_with_more() -> None:
    ann = [("ann", "interactive", f"a{n}") for n in range(4)]
    queue = filled(
        *ann, ("bob", "interactive", "b0"), ("cem", "interactive", "c0"), ("cem", "interactive", "c1")
    )
    assert drained(queue) == ["a0", "b0", "c0", "a1", "c1", "a2", "a3"]


def test_a_thousand_items_delay_another_clients_only_one_by_one_item() -> None:
    queue = filled(*[("ann", "batch", f"a{n}") for n in range(1000)], max_queued=2000, max_per_client=2000)
    queue.next()
    queue.put("bob", "batch", "b")
    assert [queue.next(), queue.next()] == ["a1", "b"]


def test_a_client_that_comes_back_waits_behind_those_who_wait() -> None:
    queue = filled(("ann", "batch", "a0"), ("bob", "batch", "b0"), ("bob", "batch", "b1"))
    assert queue.next() == "a0"
    queue.put("ann", "batch", "a1")
    assert drained(queue) == ["b0", "a1", "b1"]


def test_interactive_goes_first_and_batch_gets_every_fifth() -> None:
    people = [("ann", "interactive", f"i{n}") for n in range(12)]
    jobs = [("bob", "batch", f"b{n}") for n in range(4)]
    assert drained(filled(*jobs, *people)) == (
        ["i0", "i1", "i2", "i3", "b0", "i4", "i5", "i6", "i7", "b1", "i8", "i9", "i10", "i11", "b2", "b3"]
    )


def test_grants_without_a_waiting_batch_do_not_count_towards_its_share() -> None:
    queue = filled(*[("ann", "interactive", f"i{n}") for n in range(12)])
    assert [queue.next() for _ in range(6)] == ["i0", "i1", "i2", "i3", "i4", "i5"]
    queue.put("bob", "batch", "b")
    assert [queue.next() for _ in range(5)] == ["i6", "i7", "i8", "i9", "b"]


@pytest.mark.parametrize(
    ("max_queued", "max_per_client", "client", "refused"),
    [
        (2, 2, "ann", "queue"),
        (2, 5, "cem", "queue"),
        (9, 1, "ann", "client"),
        (9, 1, "cem", None),
        (3, 2, "ann", None),
    ],
)
def test_bounds_on_arrival(max_queued: int, max_per_client: int, client: str, refused: str | None) -> None:
    queue = filled(
        ("ann", "interactive", "a"),
        ("bob", "batch", "b"),
        max_queued=max_queued,
        max_per_client=max_per_client,
    )
    assert queue.put(client, "interactive", "new") == refused
    assert len(queue) == (2 if refused else 3)


def test_both_classes_count_towards_a_clients_bound() -> None:
    queue = filled(("ann", "interactive", "1"), ("ann", "batch", "2"), max_per_client=2)
    assert queue.waiting_of("ann") == 2
    assert queue.put("ann", "batch", "3") == "client"
    queue.next()
    assert queue.put("ann", "batch", "3") is None


def test_removing_is_by_identity() -> None:
    first, twin = [1], [1]
    queue: FairQueue[list[int]] = FairQueue(max_queued=9, max_per_client=9)
    queue.put("ann", "interactive", first)
    queue.put("ann", "batch", twin)
    assert queue.remove(twin)
    assert not queue.remove(twin)
    assert queue.next() is first
    assert not queue.remove(first)


def test_one_item_waits_once() -> None:
    item = object()
    queue: FairQueue[object] = FairQueue(max_queued=9, max_per_client=9)
    queue.put("ann", "batch", item)
    with pytest.raises(ValueError, match="the item waits already"):
        queue.put("bob", "batch", item)


# -- tokens, not items


def test_who_was_served_least_is_next() -> None:
    queue: FairQueue[str] = FairQueue(max_queued=9, max_per_client=9)
    for n, cost in enumerate((5000.0, 10.0, 10.0)):
        queue.put("ann", "batch", f"a{n}", cost)
    for n in range(3):
        queue.put("bob", "batch", f"b{n}", 2000.0)
    assert drained(queue) == ["a0", "b0", "b1", "b2", "a1", "a2"]


def test_what_it_really_took_counts() -> None:
    queue = filled(*[(client, "batch", f"{client[0]}{n}") for n in range(4) for client in ("ann", "bob")])
    assert queue.next() == "a0"
    queue.charge("ann", "batch", served(500, 100))
    assert [queue.next() for _ in range(4)] == ["b0", "b1", "b2", "b3"]
    queue = filled(*[(client, "batch", f"{client[0]}{n}") for n in range(4) for client in ("ann", "bob")])
    queue.charge("bob", "batch", 5)
    queue.charge("bob", "batch", -5)
    assert [queue.next() for _ in range(4)] == ["a0", "b0", "a1", "b1"]


def test_what_a_call_counts_as() -> None:
    assert served(1000, 200) == 2000


def test_being_away_saves_nothing_up() -> None:
    queue = filled(*[("ann", "batch", f"a{n}") for n in range(20)], ("bob", "batch", "b0"))
    taken = [queue.next() for _ in range(12)]
    assert taken.count("b0") == 1
    for n in range(1, 9):
        queue.put("bob", "batch", f"b{n}")
    assert [queue.next() for _ in range(4)] == ["a11", "b1", "a12", "b2"], "not eleven of bob's in a row"


def test_who_comes_after_everybody_has_left_begins_where_the_last_one_stood() -> None:
    queue = filled(("ann", "batch", "a0"))
    queue.next()
    queue.charge("ann", "batch", 1_000_000)
    for n in range(1, 3):
        queue.put("bob", "batch", f"b{n}")
        queue.put("ann", "batch", f"a{n}")
    assert drained(queue) == ["b1", "a1", "b2", "a2"], "bob owes ann nothing, and she him neither"


def test_a_persons_place_does_not_depend_on_what_her_jobs_took() -> None:
    queue = filled(("ann", "batch", "job"))
    queue.next()
    queue.charge("ann", "batch", 1_000_000)
    queue.put("ann", "interactive", "a0")
    queue.put("bob", "interactive", "b0")
    assert drained(queue) == ["a0", "b0"]


def test_weights_are_shares() -> None:
    jobs: list[tuple[str, Priority, str]] = [
        (client, "batch", f"{client[0]}{n}") for n in range(30) for client in ("ann", "bob")
    ]
    queue = filled(*jobs)
    queue.weigh("ann", 2)
    taken = [queue.next() or "" for _ in range(30)]
    assert sum(item.startswith("a") for item in taken) == 20
    queue.weigh("ann", 1)
    assert [queue.next() for _ in range(4)] == ["b10", "a20", "b11", "a21"]


@pytest.mark.parametrize("weight", [0, -1, float("inf"), float("nan")])
def test_a_weight_that_cannot_be(weight: float) -> None:
    with pytest.raises(ValueError, match="it must be above 0 and finite"):
        filled().weigh("ann", weight)


def test_four_equal_clients_get_equal_shares_within_five_percent() -> None:
    """900 jobs each, of sizes that differ by a factor of 30."""
    queue: FairQueue[tuple[str, int]] = FairQueue(max_queued=10_000, max_per_client=1000)
    for number in range(900):
        for client in "abcd":
            queue.put(client, "batch", (client, number), 100.0)
    tokens = dict.fromkeys("abcd", 0)
    for step in range(1800):
        client, number = queue.next() or ("", 0)
        really = 100 + (number * 977 + ord(client) * 131) % 2900
        tokens[client] += really
        queue.charge(client, "batch", really - 100)
        assert step < 400 or max(tokens.values()) <= 1.05 * min(tokens.values())


def test_four_batches_of_900_keep_a_person_waiting_less_than_ten_seconds() -> None:
    """Four slots, five seconds a call, a person who asks every seven seconds: virtual time."""
    queue: FairQueue[tuple[str, float]] = FairQueue(max_queued=10_000, max_per_client=1000)
    for number in range(900):
        for client in "abcd":
            queue.put(client, "batch", (client, -float(number)))
    ends, waits, now, asks = [0.0] * 4, [], 0.0, 0.0
    while len(waits) < 200:
        now, slot = min((end, slot) for slot, end in enumerate(ends))
        while asks <= now:
            queue.put("human", "interactive", ("human", asks))
            queue.person_active(asks)
            asks += 7.0
        client, since = queue.next(now, 1, 4) or ("nobody", 0.0)
        ends[slot] = now + (5.0 if client != "nobody" else 0.5)
        if client == "human":
            waits.append(now - since)
    assert sorted(waits)[-3] <= 10.0


# -- the slot for people


def test_the_last_slot_is_held_while_a_person_is_there() -> None:
    queue = filled(("ann", "batch", "a0"), ("ann", "batch", "a1"))
    assert queue.next(0.0, 1, 4) == "a0", "nobody has been there"
    queue.person_active(1000.0)
    queue.person_active(900.0)
    assert queue.next(1000.0 + PRESENT_S, 1, 4) is None
    assert queue.peek(1000.0 + PRESENT_S, 2, 4) == "a1"
    assert queue.peek(1000.0 + PRESENT_S, 1, 1) == "a1", "a slot that is the only one is held for nobody"
    assert queue.peek(1000.1 + PRESENT_S, 1, 4) == "a1"
    queue.put("bob", "interactive", "b0")
    assert queue.next(1000.0, 1, 4) == "b0"


def test_a_batch_whose_turn_it_is_gets_the_held_slot() -> None:
    queue = filled(("ann", "batch", "job"), *[("bob", "interactive", f"i{n}") for n in range(9)])
    queue.person_active(0.0)
    assert [queue.next(0.0, 1, 2) for _ in range(6)] == ["i0", "i1", "i2", "i3", "job", "i4"]


# -- parking and coming back


def test_what_is_parked_keeps_its_place_and_counts() -> None:
    queue = filled(("ann", "batch", "a0"), ("ann", "batch", "a1"), ("ann", "batch", "a2"), max_per_client=3)
    assert queue.park("a0")
    assert not queue.park("a0")
    assert not queue.park("elsewhere")
    assert (queue.parked, len(queue), queue.waiting_in("batch")) == (["a0"], 3, 2)
    assert sorted(queue) == ["a0", "a1", "a2"]
    assert queue.put("ann", "batch", "a3") == "client"
    assert not queue.has_room("ann")
    assert queue.position("a0") is None
    assert queue.next() == "a1"
    assert queue.unpark("a0")
    assert not queue.unpark("a0")
    assert drained(queue) == ["a0", "a2"]


def test_what_was_parked_waits_once() -> None:
    queue = filled(("ann", "batch", "a0"), ("ann", "batch", "a1"))
    for _ in range(3):
        queue.park("a0")
        queue.unpark("a0")
    assert [queue.position(item) for item in ("a0", "a1")] == [0, 1]
    assert drained(queue) == ["a0", "a1"]


def test_what_is_parked_can_be_given_up() -> None:
    queue = filled(("ann", "batch", "a0"))
    queue.park("a0")
    assert queue.next() is None
    assert queue.remove("a0")
    assert not queue.unpark("a0")
    assert len(queue) == queue.waiting_of("ann") == 0


def test_what_was_granted_in_vain_comes_back_to_the_front() -> None:
    queue = filled(("ann", "batch", "a0"), ("ann", "batch", "a1"), ("bob", "batch", "b0"), max_queued=3)
    assert queue.next() == "a0"
    queue.put("cem", "batch", "c0")
    queue.put_back("ann", "batch", "a0")
    assert len(queue) == 4, "no bound refuses what was let in"
    assert drained(queue) == ["b0", "a0", "c0", "a1"]


# -- forecasts


def test_how_many_come_before_one_that_would_arrive() -> None:
    queue = filled()
    assert [queue.ahead("ann", priority) for priority in ("interactive", "batch")] == [0, 0]
    queue = filled(*[("ann", "batch", f"a{n}") for n in range(50)])
    assert [queue.ahead(client, "batch") for client in ("ann", "bob")] == [50, 1]
    assert queue.ahead("bob", "interactive") == 1
    queue.put("cem", "interactive", "c0")
    assert queue.ahead("bob", "batch") == 2


# -- what it costs


def steps_of(queue: FairQueue[int], times: int) -> int:
    """How many lines of Python *times* grants, with all that belongs to them, take."""
    steps = 0

    def trace(*_: Any) -> Any:
        nonlocal steps
        steps += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(times):
            item = queue.next(0.0, 8, 8)
            assert item is not None
            queue.put(f"c{item % 1000}", "batch", item, 10.0)
            queue.charge(f"c{item % 1000}", "batch", 5.0)
            queue.ahead("ann", "batch")
            queue.remove(item)
            queue.put(f"c{item % 1000}", "batch", item, 10.0)
    finally:
        sys.settrace(before)
    return steps


def test_ten_thousand_who_wait_cost_no_more_steps_than_a_hundred() -> None:
    def with_waiting(most: int) -> FairQueue[int]:
        queue: FairQueue[int] = FairQueue(max_queued=20_000, max_per_client=20_000)
        for item in range(10_000, 10_000 + most):
            queue.put(f"c{item % 1000}", "batch", item, 10.0)
        return queue

    few, many = steps_of(with_waiting(100), 300), steps_of(with_waiting(10_000), 300)
    assert many < 3 * few


# -- against a model


class Naive:
    """Lists, searched anew each time. Remembers every client for ever."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, Priority, int, int, float]] = []
        """Client, class, arrival, item, cost."""
        self.parked: list[tuple[str, Priority, int, int, float]] = []
        self.counters: dict[tuple[Priority, str], float] = {}
        self.turns: dict[tuple[Priority, str], int] = {}
        self.last: dict[Priority, str] = {}
        self.weights: dict[str, float] = {}
        self.ticks = 0
        self.since_batch = 0

    def tick(self) -> int:
        self.ticks += 1
        return self.ticks

    def of(self, priority: Priority) -> set[str]:
        return {client for client, of, *_ in self.waiting if of == priority}

    def floor(self, priority: Priority) -> float:
        there = [self.counters[priority, client] for client in self.of(priority)]
        return min(there) if there else self.counters.get((priority, self.last.get(priority, "")), 0.0)

    def add(self, entry: tuple[str, Priority, int, int, float]) -> None:
        client, priority = entry[:2]
        if client not in self.of(priority):
            lifted = max(self.counters.get((priority, client), 0.0), self.floor(priority))
            self.counters[priority, client] = lifted
            self.turns[priority, client] = self.tick()
        self.waiting.append(entry)

    def leave(self, entry: tuple[str, Priority, int, int, float]) -> None:
        self.waiting.remove(entry)
        if entry[0] not in self.of(entry[1]):
            self.last[entry[1]] = entry[0]

    def charge(self, client: str, priority: Priority, amount: float) -> None:
        known = self.counters.get((priority, client), self.floor(priority))
        self.counters[priority, client] = known + amount / self.weights.get(client, 1)

    def take(self, held: bool) -> tuple[str, Priority, int, int, float] | None:
        batch, people = bool(self.of("batch")), bool(self.of("interactive"))
        if not batch and not people:
            return None
        chosen: Priority = "interactive"
        if batch and (not people or self.since_batch == BATCH_EVERY - 1):
            if held and self.since_batch < BATCH_EVERY - 1:
                return None
            chosen = "batch"
        of = {
            client: (self.counters[chosen, client], self.turns[chosen, client]) for client in self.of(chosen)
        }
        client = min(of, key=lambda waits: of[waits])
        entry = min((e for e in self.waiting if e[:2] == (client, chosen)), key=lambda e: e[2])
        self.since_batch = self.since_batch + 1 if batch and chosen != "batch" else 0
        self.charge(client, chosen, entry[4])
        self.turns[chosen, client] = self.tick()
        self.leave(entry)
        return entry


COSTS = st.sampled_from([1.0, 2.0, 8.0])


class Against(RuleBasedStateMachine):
    subject: type[FairQueue[int]] = FairQueue

    @initialize(max_queued=st.integers(1, 9), max_per_client=st.integers(1, 5))
    def begin(self, max_queued: int, max_per_client: int) -> None:
        self.queue = self.subject(max_queued=max_queued, max_per_client=max_per_client)
        self.naive = Naive()
        self.items = count(1000)
        self.granted: list[tuple[str, Priority, int, int, float]] = []

    @rule(client=st.sampled_from(CLIENTS), priority=st.sampled_from(["interactive", "batch"]), cost=COSTS)
    def put(self, client: str, priority: Priority, cost: float) -> None:
        item = next(self.items)
        refused = self.queue.put(client, priority, item, cost)
        all_of_them = [*self.naive.waiting, *self.naive.parked]
        if len(all_of_them) >= self.queue.max_queued:
            assert refused == "queue"
        elif sum(entry[0] == client for entry in all_of_them) >= self.queue.max_per_client:
            assert refused == "client"
        else:
            assert refused is None
            self.naive.add((client, priority, item, item, cost))

    @rule(held=st.booleans())
    def take(self, held: bool) -> None:
        if held:
            self.queue.person_active(0.0)
        now = 0.0 if held else 2 * PRESENT_S
        expected = self.naive.take(held)
        peeked = self.queue.peek(now, 1, 2)
        item = self.queue.next(now, 1, 2)
        assert item == peeked == (None if expected is None else expected[3])
        if expected is not None:
            self.granted.append(expected)

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), amount=st.sampled_from([-2.0, 0.0, 3.0, 50.0]))
    def charge(self, data: Any, amount: float) -> None:
        client, priority, *_ = data.draw(st.sampled_from(self.granted))
        self.queue.charge(client, priority, amount)
        self.naive.charge(client, priority, amount)

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def come_back(self, data: Any) -> None:
        client, priority, _, item, cost = data.draw(st.sampled_from(self.granted))
        self.granted = [entry for entry in self.granted if entry[3] != item]
        self.queue.put_back(client, priority, item, cost)
        self.naive.charge(client, priority, -cost)
        self.naive.add((client, priority, -next(self.items), item, cost))

    @rule(client=st.sampled_from(CLIENTS), weight=st.sampled_from([1.0, 2.0, 0.5]))
    def weigh(self, client: str, weight: float) -> None:
        self.queue.weigh(client, weight)
        self.naive.weights[client] = weight

    @precondition(lambda self: self.naive.waiting or self.naive.parked)
    @rule(data=st.data())
    def give_up(self, data: Any) -> None:
        entry = data.draw(st.sampled_from([*self.naive.waiting, *self.naive.parked]))
        assert self.queue.remove(entry[3])
        assert not self.queue.remove(entry[3])
        if entry in self.naive.parked:
            self.naive.parked.remove(entry)
        else:
            self.naive.leave(entry)

    @precondition(lambda self: self.naive.waiting)
    @rule(data=st.data())
    def park(self, data: Any) -> None:
        entry = data.draw(st.sampled_from(self.naive.waiting))
        assert self.queue.park(entry[3])
        self.naive.leave(entry)
        self.naive.parked.append(entry)

    @precondition(lambda self: self.naive.parked)
    @rule(data=st.data())
    def unpark(self, data: Any) -> None:
        entry = data.draw(st.sampled_from(self.naive.parked))
        assert self.queue.unpark(entry[3])
        self.naive.parked.remove(entry)
        self.naive.add(entry)

    @precondition(lambda self: self.naive.waiting)
    @rule(data=st.data())
    def position(self, data: Any) -> None:
        entry = data.draw(st.sampled_from(self.naive.waiting))
        ahead, later = 0, copy.deepcopy(self.naive)
        while later.take(held=False) != entry:
            ahead += 1
        assert self.queue.position(entry[3]) == ahead

    @invariant()
    def counts(self) -> None:
        if not hasattr(self, "queue"):
            return
        all_of_them = [*self.naive.waiting, *self.naive.parked]
        assert len(self.queue) == len(all_of_them)
        assert self.queue.parked == [entry[3] for entry in self.naive.parked]
        for client in CLIENTS:
            assert self.queue.waiting_of(client) == sum(entry[0] == client for entry in all_of_them)
        for priority in ("interactive", "batch"):
            assert self.queue.waiting_in(priority) == sum(e[1] == priority for e in self.naive.waiting)


def test_against_the_model(play: Any) -> None:
    play(Against)


class _Grudging(FairQueue[int]):
    """Lets those who come back keep what they saved up."""

    __slots__ = ()

    def __init__(self, *, max_queued: int, max_per_client: int) -> None:
        super().__init__(max_queued=max_queued, max_per_client=max_per_client)
        self._batch = _NoLift()


class _NoLift(Lines[int]):
    __slots__ = ()

    def floor(self) -> float:
        return 0.0


class _Starving(FairQueue[int]):
    """Never makes room for batch."""

    __slots__ = ()

    def next(self, now: float = 0.0, free: int | None = None, slots: int | None = None) -> int | None:
        self._since_batch = 0
        return super().next(now, free, slots)


class _Leaking(FairQueue[int]):
    """Forgets to count who gave up."""

    __slots__ = ()

    def remove(self, item: int) -> bool:
        entry = self._entries.get(id(item))
        found = super().remove(item)
        if entry is not None:
            self._of[entry.line.client] = self.waiting_of(entry.line.client) + 1
        return found


@pytest.mark.parametrize("broken", [_Grudging, _Starving, _Leaking])
def test_the_model_catches(broken: type[FairQueue[int]], catches: Any) -> None:
    catches(type("Broken", (Against,), {"subject": broken}))


@given(
    st.lists(st.tuples(st.sampled_from(CLIENTS), st.integers(1, 40)), min_size=1, max_size=60),
)
def test_those_who_wait_all_the_time_are_never_further_apart_than_one_grant(
    jobs: list[tuple[str, int]],
) -> None:
    queue: FairQueue[tuple[str, int, int]] = FairQueue(max_queued=1000, max_per_client=1000)
    for number, (client, cost) in enumerate(jobs):
        queue.put(client, "batch", (client, cost, number), cost)
    took = dict.fromkeys({client for client, _ in jobs}, 0)
    left = {client: sum(other == client for other, _ in jobs) for client in took}
    while all(left.values()):
        client, cost, _ = queue.next() or ("", 0, 0)
        took[client] += cost
        left[client] -= 1
        assert max(took.values()) - min(took.values()) <= 40
