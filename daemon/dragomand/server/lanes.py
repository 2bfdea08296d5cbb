"""Which of the waiting requests may begin next: a session's one after another, the others by arrival.

A request that waits for its session is not in the line; it joins the end of the line when its turn comes.
"""

import asyncio
from collections import OrderedDict
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


Line = OrderedDict[object, Incoming]


class Lanes:
    """The requests of one connection that have not begun, but for `inline` ones."""

    __slots__ = ("_line", "_sessions")

    def __init__(self) -> None:
        """Begin empty."""
        self._line: Line = OrderedDict()
        """May begin, oldest first."""
        self._sessions: dict[str, Line] = {}
        """For each session that is taken (its request runs or is in the line): who waits behind it."""

    def is_open(self, session: str | None) -> bool:
        """Whether a request for *session* (None: for none) would be the next to begin."""
        return not self._line and (session is None or session not in self._sessions)

    def take(self, session: str | None) -> None:
        """Note that a request for *session* begins without having waited."""
        if session is not None:
            self._sessions[session] = OrderedDict()

    def put(self, incoming: Incoming) -> None:
        """Let *incoming* wait."""
        session = incoming.session
        if session is None:
            self._line[incoming.request.id] = incoming
        elif session in self._sessions:
            self._sessions[session][incoming.request.id] = incoming
        else:
            self._sessions[session] = OrderedDict()
            self._line[incoming.request.id] = incoming

    def next(self) -> Incoming | None:
        """Take out the one to begin now; None if there is none."""
        return self._line.popitem(last=False)[1] if self._line else None

    def ended(self, session: str | None) -> None:
        """Note that the request that had *session* is over: the one behind it joins the line."""
        if session is None:
            return
        behind = self._sessions[session]
        if not behind:
            del self._sessions[session]
            return
        id, incoming = behind.popitem(last=False)
        self._line[id] = incoming

    def remove(self, incoming: Incoming) -> None:
        """Take *incoming*, which waits, out."""
        id = incoming.request.id
        if self._line.get(id) is incoming:
            del self._line[id]
            self.ended(incoming.session)
        else:
            assert incoming.session is not None
            del self._sessions[incoming.session][id]
