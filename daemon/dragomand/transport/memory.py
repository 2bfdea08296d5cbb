"""A connection without a system underneath: the far end writes bytes and awaits bytes, in the same loop."""

import asyncio
from collections import deque

from .interface import SOFT_BYTES, Door, Receiver


class MemoryTransport:
    """The near end, as the server sees it. `connect` makes both ends.

    Each direction is delivered by the loop in order, never inside the call that wrote it.
    """

    peer_pid: int | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a pair."""
        self.far = MemoryEnd(self, loop)
        self._loop = loop
        self._receiver: Receiver | None = None
        self._reading = True
        self._incoming: deque[bytes | None] = deque()
        self._delivering = False
        self._stalled = False
        self._closing = False
        self._lost = False

    def begin(self, receiver: Receiver) -> None:
        """Tell *receiver* of this connection from now on."""
        self._receiver = receiver

    def write(self, data: bytes) -> None:
        """Hand *data* to the far end."""
        if self._closing or self._lost:
            return
        self.far._buffer += data
        self.far._arrived.set()
        if not self._stalled and len(self.far._buffer) > SOFT_BYTES and self._receiver is not None:
            self._stalled = True
            self._receiver.stalled()

    def unsent(self) -> int:
        """Return how many bytes the far end has not read."""
        return len(self.far._buffer)

    def pause_reading(self) -> None:
        """Deliver nothing more for now."""
        self._reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        self._reading = True
        self._schedule()

    def close(self) -> None:
        """End once the far end has read everything."""
        self._closing = True
        self._incoming.clear()
        self.far._arrived.set()
        if not self.far._buffer:
            self._lose()

    def abort(self) -> None:
        """End now."""
        self._closing = True
        self._incoming.clear()
        self.far._buffer.clear()
        self._lose()

    # -- what the far end does

    def _arrive(self, data: bytes | None) -> None:
        if not self._closing:
            self._incoming.append(data)
            self._schedule()

    def _has_read(self) -> None:
        if self._stalled and len(self.far._buffer) <= SOFT_BYTES // 4:
            self._stalled = False
            if not self._lost and self._receiver is not None:
                self._receiver.flowing()
        if self._closing and not self.far._buffer:
            self._lose()

    def _schedule(self) -> None:
        if self._incoming and not self._delivering:
            self._delivering = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._delivering = False
        while self._incoming and self._reading and self._receiver is not None:
            data = self._incoming.popleft()
            if data is None:
                self._receiver.ended()
            else:
                self._receiver.received(data)

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self.far._arrived.set()
            self._loop.call_soon(self._tell_lost)

    def _tell_lost(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost()


class MemoryEnd:
    """The far end, as a client sees it."""

    def __init__(self, near: MemoryTransport, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the far half of *near*."""
        self._near = near
        self._buffer = bytearray()
        self._arrived = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing can be read any more."""
        return self._near._closing and not self._buffer

    @property
    def unread(self) -> int:
        """How many bytes have come and were not read."""
        return len(self._buffer)

    def write(self, data: bytes) -> None:
        """Send *data*; it is delivered when the loop runs. Nobody takes it once the connection is closed."""
        self._near._arrive(bytes(data))

    def end(self) -> None:
        """Send no more; what comes can still be read."""
        self._near._arrive(None)

    def close(self) -> None:
        """Leave, in both directions."""
        self._near.abort()

    async def read(self, most: int = -1) -> bytes:
        """Return what has come (at most *most* bytes), waiting for it; empty at the end.

        The caller bounds the wait.
        """
        while not self._buffer and not self._near._closing:
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._buffer if most < 0 else self._buffer[:most])
        del self._buffer[: len(data)]
        self._near._has_read()
        return data


def connect(door: Door, *, peer_pid: int | None = None) -> MemoryEnd:
    """Bring a new connection to *door* and return its far end. The loop must be running."""
    near = MemoryTransport(asyncio.get_running_loop())
    near.peer_pid = peer_pid
    near.begin(door.accept(near))
    return near.far
