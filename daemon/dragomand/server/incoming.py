"""One request between its arrival and its answer."""

import asyncio
from typing import Any

from dragoman_protocol.peer import Request

from .routes import Prepared


class Incoming:
    """A request of the `session` or `free` lane, or an `inline` one that has to wait."""

    __slots__ = ("arrived_at", "cancelled", "request", "route", "session", "size", "task")

    def __init__(self, request: Request, route: Prepared, session: str | None, arrived_at: float) -> None:
        """Begin waiting."""
        self.request = request
        self.route = route
        self.session = session
        """The session whose requests must not overlap; None: none."""
        self.arrived_at = arrived_at
        """By the server's clock; 0 without trace."""
        self.size = 0
        """Bytes that it counts for while it waits."""
        self.task: asyncio.Task[Any] | None = None
        """While it runs."""
        self.cancelled = False
        """Whether its task was cancelled by us."""
