"""What the asyncio transports have in common: one `Protocol` between an asyncio stream and a receiver."""

import asyncio

from .interface import SOFT_BYTES, Receiver


class StreamProtocol(asyncio.Protocol):
    """Passes what asyncio tells on to the receiver, and is the receiver's transport.

    A subclass makes the receiver in `connection_made`, once the other end is known to be welcome.
    """

    def __init__(self) -> None:
        """Begin without a connection."""
        self.peer_pid: int | None = None
        self._stream: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._reading = True
        self._ended = False
        """Nothing more can come; to read on would only bring the end again."""

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Pass on what came in."""
        if self._receiver is not None:
            self._receiver.received(data)

    def eof_received(self) -> bool:
        """Keep the connection: the other end may have shut only its own half."""
        if not self._ended and self._receiver is not None:
            self._ended = True
            self._receiver.ended()
        return True

    def pause_writing(self) -> None:
        """Pass it on."""
        if self._receiver is not None:
            self._receiver.stalled()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self._receiver is not None:
            self._receiver.flowing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on; why makes no difference to anybody."""
        self._stream = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost()

    # -- Transport

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self._stream is not None:
            self._stream.write(data)

    def unsent(self) -> int:
        """Return how many bytes wait."""
        return self._stream.get_write_buffer_size() if self._stream is not None else 0

    def pause_reading(self) -> None:
        """Take nothing more from the other end."""
        if self._reading and not self._ended and self._stream is not None:
            self._reading = False
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and not self._ended and self._stream is not None:
            self._reading = True
            self._stream.resume_reading()

    def close(self) -> None:
        """Send what is unsent, then close."""
        if self._stream is not None:
            self._stream.close()

    def abort(self) -> None:
        """Close at once."""
        if self._stream is not None:
            self._stream.abort()

    # -- for subclasses

    def _use(self, stream: asyncio.Transport) -> None:
        self._stream = stream
        stream.set_write_buffer_limits(high=SOFT_BYTES, low=SOFT_BYTES // 4)
