"""What a connection has to say and has not said yet, bounded in bytes.

Everything said in one turn of the event loop leaves in one write. Above `SOFT_BYTES` unsent, ephemeral events
are left out and the client is not read (`full`); above `HARD_BYTES`, or when nothing has left for `STUCK_S`,
durable events are refused too. Responses and single notifications are always taken: what bounds them is that
a client that does not read its answers is not asked for more questions.
"""

from collections.abc import Callable

from dragomand.transport.interface import SOFT_BYTES, Transport

HARD_BYTES = 16 * 1024 * 1024
"""Unsent bytes above which durable events are refused."""
STUCK_S = 30.0
"""Seconds without progress after which durable events are refused."""
_WRITE_BYTES = 256 * 1024


class Outbox:
    """The outgoing half of one connection."""

    __slots__ = ("_clock", "_left_at", "_left_bytes", "_parts", "_schedule", "_scheduled", "_size", "_taken",
                 "_transport", "full", "gathering")  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        *,
        schedule: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
    ) -> None:
        """Write to *transport*; *schedule* calls back soon (`loop.call_soon`), *clock* tells seconds."""
        self._transport = transport
        self._schedule = schedule
        self._clock = clock
        self._parts: list[bytes] = []
        self._size = 0
        """Bytes in `_parts`."""
        self._scheduled = False
        """Whether a write is coming anyway."""
        self._taken = 0
        """Bytes handed to the transport so far."""
        self._left_bytes = -1
        """How many of them had left at `_left_at`, when some had not; -1: never looked."""
        self._left_at = 0.0
        self.full = False
        """Whether the transport holds more than `SOFT_BYTES`; set as the transport tells."""
        self.gathering = False
        """While set, nothing is scheduled, because `write` follows for sure."""

    def add(self, data: bytes) -> None:
        """Say *data*, soon, whatever is unsent."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > _WRITE_BYTES:
            self.write()
        elif not self.gathering and not self._scheduled:
            self._scheduled = True
            self._schedule(self.write)

    def write(self) -> None:
        """Hand over everything now."""
        self._scheduled = False
        parts = self._parts
        if not parts:
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._taken += len(data)
        self._size = 0
        parts.clear()
        self._transport.write(data)

    def unsent(self) -> int:
        """Return how many bytes have not left."""
        return self._size + self._transport.unsent()

    def refuses(self, *, ephemeral: bool) -> bool:
        """Whether an event is not taken now."""
        waiting = self._transport.unsent()
        if not waiting:
            return False
        unsent = self._size + waiting
        if ephemeral:
            return unsent > SOFT_BYTES
        return unsent > HARD_BYTES or self._is_stuck(waiting)

    def _is_stuck(self, waiting: int) -> bool:
        # Looked at only here, so that responses cost nothing: some were waiting when we looked the last time,
        # and if none has left since, then none has left for at least as long.
        left = self._taken - waiting
        if left != self._left_bytes:
            self._left_bytes = left
            self._left_at = self._clock()
            return False
        return self._clock() - self._left_at >= STUCK_S
