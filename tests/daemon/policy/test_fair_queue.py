"""The queue, as tables and as a state machine against a model that is slow and obvious."""

from itertools import count

import pytest
from dragomand.policy.fair_queue import BATCH_EVERY, FairQueue, Priority
from hypothesis import settings
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


def test_what_is_not_bounded_is_never_refused_and_counts() -> None:
    queue = filled(("ann", "interactive", "1"), max_queued=1, max_per_client=1)
    assert queue.put("ann", "interactive", "2") == "queue"
    assert queue.put("ann", "interactive", "3", bounded=False) is None
    assert (len(queue), queue.waiting_of("ann")) == (2, 2)
    assert drained(queue) == ["1", "3"]


def test_removing_is_by_identity() -> None:
    first, twin = [1], [1]
    queue: FairQueue[list[int]] = FairQueue(max_queued=9, max_per_client=9)
    queue.put("ann", "interactive", first)
    queue.put("ann", "batch", twin)
    assert queue.remove(twin)
    assert not queue.remove(twin)
    assert queue.next() is first
    assert not queue.remove(first)


class Against(RuleBasedStateMachine):
    """A list of who waits, searched anew for each grant."""

    @initialize(max_queued=st.integers(1, 8), max_per_client=st.integers(1, 5))
    def begin(self, max_queued: int, max_per_client: int) -> None:
        self.queue: FairQueue[int] = FairQueue(max_queued=max_queued, max_per_client=max_per_client)
        self.waiting: list[tuple[str, Priority, int]] = []
        self.places: dict[tuple[Priority, str], int] = {}
        """Where a client stands in the rotation of a class: lower is sooner."""
        self.ticks = count()
        self.items = count()
        self.since_batch = 0

    @rule(client=st.sampled_from(CLIENTS), priority=st.sampled_from(["interactive", "batch"]))
    def put(self, client: str, priority: Priority) -> None:
        item = next(self.items)
        refused = self.queue.put(client, priority, item)
        if len(self.waiting) >= self.queue.max_queued:
            assert refused == "queue"
        elif sum(entry[0] == client for entry in self.waiting) >= self.queue.max_per_client:
            assert refused == "client"
        else:
            assert refused is None
            self.places.setdefault((priority, client), next(self.ticks))
            self.waiting.append((client, priority, item))

    @rule()
    def take(self) -> None:
        item = self.queue.next()
        if not self.waiting:
            assert item is None
            return
        batch_waits = any(priority == "batch" for _, priority, _ in self.waiting)
        people_wait = any(priority == "interactive" for _, priority, _ in self.waiting)
        batch = batch_waits and (not people_wait or self.since_batch == BATCH_EVERY - 1)
        chosen: Priority = "batch" if batch else "interactive"
        client = min(
            (place, client) for (priority, client), place in self.places.items() if priority == chosen
        )[1]
        expected = next(entry for entry in self.waiting if entry[:2] == (client, chosen))
        assert item == expected[2]
        self.since_batch = self.since_batch + 1 if batch_waits and not batch else 0
        assert self.since_batch < BATCH_EVERY, "a waiting batch was passed over too often"
        self.places[chosen, client] = next(self.ticks)
        self._gone(expected)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(entry[2])
        self._gone(entry)
        assert not self.queue.remove(entry[2])

    @invariant()
    def counts(self) -> None:
        assert len(self.queue) == len(self.waiting) <= self.queue.max_queued
        for client in CLIENTS:
            mine = sum(entry[0] == client for entry in self.waiting)
            assert self.queue.waiting_of(client) == mine <= self.queue.max_per_client

    def _gone(self, entry: tuple[str, Priority, int]) -> None:
        self.waiting.remove(entry)
        if not any(other[:2] == entry[:2] for other in self.waiting):
            self.places.pop((entry[1], entry[0]), None)


class TestAgainstTheModel(Against.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
