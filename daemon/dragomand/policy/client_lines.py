"""The lines of one class: one for each client, and the client that has been served least first.

Theory. The half of `fair_queue` that knows nothing of classes and bounds: counters, lifting, and heaps. An
entry that is taken out of the middle, and the place of a line that has moved, stay in their heaps and are
skipped when they come up; when they are the larger part they are cleared away. So each operation takes
O(log n), amortised, and memory is at most twice what waits.
"""

from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_AWAY = 1024
"""How many clients' counters are kept in a class while they do not wait; the highest are."""


class Entry(Generic[T]):
    """An item and its place."""

    __slots__ = ("arrived", "cost", "item", "line", "waits")

    def __init__(self, item: T, line: "Line[T]", arrived: int, cost: float) -> None:
        """Arrive as the *arrived*-th; serving it counts as *cost*."""
        self.item = item
        self.line = line
        self.arrived = arrived
        self.cost = cost
        self.waits = True
        """False: taken out, or parked."""

    def __lt__(self, other: "Entry[T]") -> bool:
        """Whoever arrived first is first."""
        return self.arrived < other.arrived


class Line(Generic[T]):
    """What one client has waiting in one class."""

    __slots__ = ("client", "counter", "entries", "group", "key", "turn", "waiting")

    def __init__(self, client: str, group: "Lines[T]", counter: float) -> None:
        """Begin at *counter* with nothing."""
        self.client = client
        self.group = group
        self.counter = counter
        self.entries: list[Entry[T]] = []
        self.waiting = 0
        self.turn = next(group.turns)
        """Who of equal counters is first: the one whose last turn is longer ago. No two lines share one."""
        self.key: tuple[float, int, Line[T]] | None = None
        """Its entry in the heap of the class that counts; None: it does not wait."""

    def first(self) -> Entry[T]:
        """Return the oldest that waits; there is one."""
        while not self.entries[0].waits:
            heappop(self.entries)
        return self.entries[0]

    def tidy(self) -> None:
        """Clear away what does not wait, when it is the larger part."""
        if len(self.entries) > 2 * self.waiting + 16:
            self.entries = [entry for entry in self.entries if entry.waits]
            heapify(self.entries)


class Lines(Generic[T]):
    """The lines of one class, by counter."""

    __slots__ = ("away", "heap", "last", "lines", "turns", "waiting")

    def __init__(self) -> None:
        """Begin with nobody."""
        self.lines: dict[str, Line[T]] = {}
        self.heap: list[tuple[float, int, Line[T]]] = []
        self.away: dict[str, float] = {}
        """Counters of clients that do not wait; one that is missing is at the floor, or below."""
        self.last: tuple[str, float] = ("", 0.0)
        """Who left last, and its counter then."""
        self.turns = count(1)
        self.waiting = 0

    def line(self, client: str) -> Line[T]:
        """Return the line of *client*, lifted if it comes back."""
        line = self.lines.get(client)
        if line is None:
            counter = max(self.away.get(client, 0.0), self.floor())
            self.away.pop(client, None)
            line = self.lines[client] = Line(client, self, counter)
        return line

    def floor(self) -> float:
        """Return the counter that nobody who comes back is below."""
        if self.waiting:
            return self.next().counter
        client, then = self.last
        return self.away.get(client, then)

    def next(self) -> Line[T]:
        """Return the line whose turn it is; somebody waits."""
        while self.heap[0][2].key is not self.heap[0]:
            heappop(self.heap)
        return self.heap[0][2]

    def add(self, line: Line[T], entry: Entry[T]) -> None:
        """Line *entry* up; it is new: one that was taken out is never lined up again."""
        heappush(line.entries, entry)
        line.waiting += 1
        self.waiting += 1
        if line.key is None:
            self.place(line)

    def take(self, entry: Entry[T]) -> None:
        """Take *entry* out of its line."""
        entry.waits = False
        line = entry.line
        line.waiting -= 1
        self.waiting -= 1
        if line.waiting:
            line.tidy()
        else:
            line.key = None
            del self.lines[line.client]
            self.away[line.client] = line.counter
            self.last = (line.client, line.counter)
            self._forget()
        self._tidy()

    def place(self, line: Line[T]) -> None:
        """Put *line* where its counter says."""
        line.key = (line.counter, line.turn, line)
        heappush(self.heap, line.key)
        self._tidy()

    def charge(self, client: str, amount: float) -> None:
        """Add *amount* to the counter of *client*, who may be away."""
        line = self.lines.get(client)
        if line is not None:
            line.counter += amount
            self.place(line)
        else:
            self.away[client] = self.away.get(client, self.floor()) + amount
            self._forget()

    def _tidy(self) -> None:
        if len(self.heap) > 2 * len(self.lines) + 16:
            self.heap = [key for key in self.heap if key[2].key is key]
            heapify(self.heap)

    def _forget(self) -> None:
        if len(self.away) > 2 * MOST_AWAY:
            highest = sorted(self.away.items(), key=lambda known: known[1])[-MOST_AWAY:]
            self.away = dict(highest)
