"""What a connection's two halves owe each other: the transport moves bytes, the receiver understands them.

Everything here is called on the event loop's thread and returns at once.
"""

from typing import Protocol

SOFT_BYTES = 4 * 1024 * 1024
"""Unsent bytes above which a transport calls `Receiver.stalled`; below a quarter it calls `flowing`."""


class Transport(Protocol):
    """Where a receiver's bytes go."""

    @property
    def peer_pid(self) -> int | None:
        """The process at the other end, where the system tells."""

    def write(self, data: bytes) -> None:
        """Send *data*, or keep it until it can be sent. Does nothing once the connection is lost."""

    def unsent(self) -> int:
        """Return how many bytes were written but have not left this process."""

    def pause_reading(self) -> None:
        """Take nothing more from the other end; a second call changes nothing."""

    def resume_reading(self) -> None:
        """Read again; without a pause it changes nothing."""

    def close(self) -> None:
        """Read no more, send what is unsent, then close; `Receiver.lost` follows."""

    def abort(self) -> None:
        """Close at once; unsent bytes are thrown away. `Receiver.lost` follows."""


class Receiver(Protocol):
    """What a transport tells of one connection."""

    def received(self, data: bytes) -> None:
        """Take bytes that came in (at most 256 KiB)."""

    def ended(self) -> None:
        """Note that the other end sends no more, and still listens; answers may be sent."""

    def stalled(self) -> None:
        """Note that more than `SOFT_BYTES` are unsent."""

    def flowing(self) -> None:
        """Note that most of what was unsent has left."""

    def lost(self) -> None:
        """Note that the connection is gone, in both directions. Called once, last."""


class Door(Protocol):
    """Who takes new connections: the server."""

    def accept(self, transport: Transport) -> Receiver:
        """Begin a connection."""

    def turn_away(self, transport: Transport, limit: int) -> Receiver:
        """Begin a connection that is only told that *limit* connections are open already."""
