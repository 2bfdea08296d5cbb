"""Who is next: two classes, and within a class the client that has been served least.

Theory. A virtual token counter for each client (Sheng et al. 2024, "Fairness in serving large language
models"): what a client is served, divided by its weight, is added to its counter, and the waiting client
with the lowest one is next; equal ones take turns. Each grant adds the cost that was expected, `charge`
the difference when the real one is known. A client that comes back is lifted to the lowest counter among
those who wait (or, if nobody does, to that of the client who left last), so being away saves nothing up.
Two clients who both wait all the time are therefore never further apart than what one grant of each can
cost. A client has a counter in each class: what people wait for does not depend on what their jobs took.

Between the classes `interactive` goes first; `batch` is served at least once in `BATCH_EVERY` grants while
it waits, so it can be slowed but not starved. The queue is work conserving but for one thing: the last
free slot is held for people while one was active in the last five minutes, unless it is the only one, or
batch's turn. Bounds hold on arrival: one in all, one for each client. Parked items keep their place and
count.

Every operation but `position` takes O(log n), amortised.
"""

import math
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, Literal, TypeVar

from .client_lines import Entry, Line, Lines

T = TypeVar("T")

Priority = Literal["interactive", "batch"]
"""The class an item waits in."""

Refusal = Literal["queue", "client"]
"""Which bound was reached: the queue's, or the client's own."""

BATCH_EVERY = 5
"""While batch items wait, at least every fifth grant is theirs (20 %)."""
PRESENT_S = 300.0
"""How long after it did something a person counts as present."""
OUTPUT_WEIGHT = 5.0


def served(uncached_input: float, output: float) -> float:
    """Return what a call's tokens count as: *uncached_input* + 5 x *output*."""
    return uncached_input + OUTPUT_WEIGHT * output


class FairQueue(Generic[T]):
    """Items that wait, each belonging to a client and a class. Items are told apart by identity."""

    __slots__ = ("_arrivals", "_batch", "_entries", "_front", "_interactive", "_of", "_parked", "_person_at",
                 "_since_batch", "_weights", "max_per_client", "max_queued")  # fmt: skip

    def __init__(self, *, max_queued: int, max_per_client: int) -> None:
        """Hold at most *max_queued* items, of one client at most *max_per_client*. Both may be set."""
        self.max_queued = max_queued
        self.max_per_client = max_per_client
        self._interactive: Lines[T] = Lines()
        self._batch: Lines[T] = Lines()
        self._entries: dict[int, Entry[T]] = {}
        """By the identity of the item; the parked ones too."""
        self._of: dict[str, int] = {}
        self._parked: dict[int, Entry[T]] = {}
        self._weights: dict[str, float] = {}
        self._arrivals = count()
        self._front = count(-1, -1)
        self._since_batch = 0
        self._person_at = -math.inf

    # -- who waits

    def __len__(self) -> int:
        """How many items wait, the parked ones included."""
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        """Return the items in no certain order, the parked ones included."""
        return iter([entry.item for entry in self._entries.values()])

    def waiting_of(self, client: str) -> int:
        """How many items of *client* wait, the parked ones included."""
        return self._of.get(client, 0)

    def waiting_in(self, priority: Priority) -> int:
        """How many items of a class wait, the parked ones not included."""
        return self._class(priority).waiting

    def has_room(self, client: str) -> bool:
        """Whether an item of *client* would be taken now."""
        return len(self._entries) < self.max_queued and self.waiting_of(client) < self.max_per_client

    @property
    def parked(self) -> list[T]:
        """The items that are parked, longest first."""
        return [entry.item for entry in self._parked.values()]

    # -- coming and going

    def put(self, client: str, priority: Priority, item: T, cost: float = 1.0) -> Refusal | None:
        """Line *item* up; returns which bound refused it, or None when it waits now.

        *cost* is what serving it is expected to count as (see `served`); it is added when it is granted.
        """
        if len(self._entries) >= self.max_queued:
            return "queue"
        if self.waiting_of(client) >= self.max_per_client:
            return "client"
        self._add(client, priority, item, cost, next(self._arrivals))
        return None

    def put_back(self, client: str, priority: Priority, item: T, cost: float = 1.0) -> None:
        """Line an item that was granted up again, before all others of its client, and take its cost back.

        No bound refuses it: it has been let in already.
        """
        self._class(priority).charge(client, -cost / self._weight(client))
        self._add(client, priority, item, cost, next(self._front))

    def remove(self, item: T) -> bool:
        """Take *item* out of the middle (its caller gave up); tells whether it waited."""
        entry = self._entries.get(id(item))
        if entry is None:
            return False
        if self._parked.pop(id(item), None) is None:
            entry.line.group.take(entry)
        self._gone(entry)
        return True

    def park(self, item: T) -> bool:
        """Let *item* wait without getting a turn; tells whether it waited for one."""
        entry = self._entries.get(id(item))
        if entry is None or not entry.waits:
            return False
        entry.line.group.take(entry)
        self._parked[id(item)] = entry
        return True

    def unpark(self, item: T) -> bool:
        """Let a parked *item* wait for its turn again, at its old place in its client's line."""
        entry = self._parked.pop(id(item), None)
        if entry is None:
            return False
        group = entry.line.group
        line = group.line(entry.line.client)
        # A new entry: the old one may still be in the line, to be skipped.
        self._entries[id(item)] = again = Entry(item, line, entry.arrived, entry.cost)
        group.add(line, again)
        return True

    # -- whose turn it is

    def next(self, now: float = 0.0, free: int | None = None, slots: int | None = None) -> T | None:
        """Take out whose turn it is; None when nobody waits, or the last slot is held for people.

        *free* of *slots* are free (None: no slot is held); *now* is the clock of `person_active`.
        """
        group = self._turn_of(now, free, slots)
        if group is None:
            return None
        line = group.next()
        entry = line.first()
        batch = self._batch
        self._since_batch = self._since_batch + 1 if batch.waiting and group is not batch else 0
        line.counter += entry.cost / self._weight(line.client)
        line.turn = next(group.turns)
        group.take(entry)
        if line.waiting:
            group.place(line)
        self._gone(entry)
        return entry.item

    def peek(self, now: float = 0.0, free: int | None = None, slots: int | None = None) -> T | None:
        """Return what `next` would, and leave it there."""
        group = self._turn_of(now, free, slots)
        return None if group is None else group.next().first().item

    def person_active(self, now: float) -> None:
        """Note that a person did something."""
        self._person_at = max(self._person_at, now)

    def person_present(self, now: float) -> bool:
        """Whether a person did something in the last five minutes."""
        return now - self._person_at <= PRESENT_S

    # -- what was served

    def charge(self, client: str, priority: Priority, amount: float) -> None:
        """Add *amount* to what *client* was served beyond the cost of its items; negative: it was less."""
        self._class(priority).charge(client, amount / self._weight(client))

    def weigh(self, client: str, weight: float) -> None:
        """Give *client* *weight* times the share of others; 1 is forgotten."""
        if not 0 < weight < math.inf:
            raise ValueError(f"a weight of {weight} cannot be; it must be above 0 and finite")
        if weight == 1:
            self._weights.pop(client, None)
        else:
            self._weights[client] = weight

    # -- when it will be its turn

    def ahead(self, client: str, priority: Priority) -> int:
        """Return how many grants, roughly, come before one more item of *client*. O(1)."""
        group, line = self._class(priority), self._class(priority).lines.get(client)
        own = line.waiting if line is not None else 0
        lines = len(group.lines) + (line is None)
        same = min(group.waiting, (own + 1) * lines - 1)
        if priority == "batch":
            return same + min(self._interactive.waiting, (same + 1) * (BATCH_EVERY - 1))
        return same + min(self._batch.waiting, same // (BATCH_EVERY - 1) + 1)

    def position(self, item: T) -> int | None:
        """Return how many are granted before *item* if nothing else happens; None: it waits for no turn.

        O(n log n), for people who ask.
        """
        entry = self._entries.get(id(item))
        if entry is None or not entry.waits:
            return None
        return next(at for at, each in enumerate(self.in_order()) if each is item)

    def in_order(self) -> Iterator[T]:
        """Yield those who wait for a turn, next first, if nothing else happens.

        Plays the grants through on a copy: O(n log n) for all together.
        """
        lines = {group: self._copy(group) for group in (self._interactive, self._batch)}
        since, passed = self._since_batch, 0
        while lines[self._batch] or lines[self._interactive]:
            batch_waits = bool(lines[self._batch])
            due = batch_waits and (since >= BATCH_EVERY - 1 or not lines[self._interactive])
            group = self._batch if due else self._interactive
            since = since + 1 if batch_waits and not due else 0
            counter, _, line, entries = heappop(lines[group])
            first = entries.pop()
            yield first.item
            passed += 1
            if entries:
                counter += first.cost / self._weight(line.client)
                heappush(lines[group], (counter, passed + _LATER, line, entries))

    # -- within

    def _copy(self, group: Lines[T]) -> list[tuple[float, int, Line[T], list[Entry[T]]]]:
        heap = [
            (line.counter, line.turn, line, sorted((e for e in line.entries if e.waits), reverse=True))
            for line in group.lines.values()
        ]
        heapify(heap)
        return heap

    def _class(self, priority: Priority) -> Lines[T]:
        return self._interactive if priority == "interactive" else self._batch

    def _weight(self, client: str) -> float:
        return self._weights.get(client, 1.0) if self._weights else 1.0

    def _turn_of(self, now: float, free: int | None, slots: int | None) -> Lines[T] | None:
        batch = self._batch
        if batch.waiting and self._since_batch >= BATCH_EVERY - 1:
            return batch
        if self._interactive.waiting:
            return self._interactive
        held = free is not None and free <= 1 and slots != 1 and self.person_present(now)
        return batch if batch.waiting and not held else None

    def _add(self, client: str, priority: Priority, item: T, cost: float, arrived: int) -> None:
        if id(item) in self._entries:
            raise ValueError("the item waits already; it can wait once")
        group = self._class(priority)
        line = group.line(client)
        entry = Entry(item, line, arrived, cost)
        group.add(line, entry)
        self._entries[id(item)] = entry
        self._of[client] = self.waiting_of(client) + 1

    def _gone(self, entry: Entry[T]) -> None:
        del self._entries[id(entry.item)]
        client = entry.line.client
        left = self._of[client] - 1
        if left:
            self._of[client] = left
        else:
            del self._of[client]


_LATER = 1 << 60
"""Turns that are played through come after all that were."""
