"""Who is next: two classes, and within a class every client in its turn.

Theory. Round robin over clients (Nagle 1987): each waiting client has a line of its own, and the lines are
served one item each in rotation, so a client with a thousand items delays another one's only item by at most
one item per client. Between the classes `interactive` goes first; `batch` is served at least once in
`BATCH_EVERY` grants while it waits, so it can be slowed but not starved. The queue is work conserving: `next`
is None only when nobody waits. Bounds hold on arrival: one in all, one for each client.
"""

from collections import OrderedDict, deque
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Priority = Literal["interactive", "batch"]
"""The class an item waits in."""

Refusal = Literal["queue", "client"]
"""Which bound was reached: the queue's, or the client's own."""

BATCH_EVERY = 5
"""While batch items wait, at least every fifth grant is theirs (20 %)."""


class FairQueue(Generic[T]):
    """Items that wait, each belonging to a client and a class. Items are told apart by identity."""

    def __init__(self, *, max_queued: int, max_per_client: int) -> None:
        """Hold at most *max_queued* items, of one client at most *max_per_client*."""
        self.max_queued = max_queued
        self.max_per_client = max_per_client
        self._lines: dict[Priority, OrderedDict[str, deque[T]]] = {
            "interactive": OrderedDict(),
            "batch": OrderedDict(),
        }
        self._waiting: dict[str, int] = {}
        self._since_batch = 0

    def __len__(self) -> int:
        """How many items wait."""
        return sum(self._waiting.values())

    def waiting_of(self, client: str) -> int:
        """How many items of *client* wait."""
        return self._waiting.get(client, 0)

    def has_room(self, client: str) -> bool:
        """Whether an item of *client* would be taken now."""
        return len(self) < self.max_queued and self.waiting_of(client) < self.max_per_client

    def put(self, client: str, priority: Priority, item: T, *, bounded: bool = True) -> Refusal | None:
        """Line *item* up; returns which bound refused it, or None when it waits now.

        One that is not *bounded* is never refused: something else bounds how many there can be.
        """
        if bounded and len(self) >= self.max_queued:
            return "queue"
        if bounded and self.waiting_of(client) >= self.max_per_client:
            return "client"
        self._lines[priority].setdefault(client, deque()).append(item)
        self._waiting[client] = self.waiting_of(client) + 1
        return None

    def next(self) -> T | None:
        """Take out whose turn it is; None when nobody waits."""
        batch_waits = bool(self._lines["batch"])
        batch_due = batch_waits and self._since_batch >= BATCH_EVERY - 1
        order: tuple[Priority, Priority] = ("batch", "interactive") if batch_due else ("interactive", "batch")
        for priority in order:
            lines = self._lines[priority]
            if lines:
                client, line = next(iter(lines.items()))
                item = line.popleft()
                self._took(priority, client)
                if client in lines:
                    lines.move_to_end(client)
                self._since_batch = self._since_batch + 1 if batch_waits and priority != "batch" else 0
                return item
        return None

    def remove(self, item: T) -> bool:
        """Take *item* out of the middle (its caller gave up); tells whether it waited."""
        for priority, lines in self._lines.items():
            for client, line in lines.items():
                for at, candidate in enumerate(line):
                    if candidate is item:
                        del line[at]
                        self._took(priority, client)
                        return True
        return False

    def _took(self, priority: Priority, client: str) -> None:
        if not self._lines[priority][client]:
            del self._lines[priority][client]
        left = self._waiting[client] - 1
        if left:
            self._waiting[client] = left
        else:
            del self._waiting[client]
