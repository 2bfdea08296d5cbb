"""All connections of one daemon (or one test): what they may call, and how they end together."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable

from dragoman_protocol.errors import RpcError
from dragoman_protocol.lifecycle import ServerInfo

from dragomand.transport import memory
from dragomand.transport.interface import Transport

from .connection import Connection
from .lifecycle import Grant, Opening
from .route import Route
from .routes import Routes

LAST_S = 1.0
"""How long, in seconds, aborted connections and cancelled handlers may take after the deadline is over."""


class Server:
    """Answers any number of connections. A `Door` to the transports.

    An end in order: `draining = True`, `finished`, `cancel_running`, `finished` again, `flush_and_close`.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        info: ServerInfo,
        grant: Grant,
        logger: logging.Logger,
        clock: Callable[[], float],
        features: Iterable[str] = (),
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Answer *routes*.

        *info*: who `initialize` says we are. *grant*: from the scopes asked for (None: not said) and the
        peer's process id to those granted. *clock*: seconds, monotonic. *features*: tags for `initialize`.
        *on_change*: called, and must return at once, when the number of connections, of running or of
        waiting requests changed.
        """
        self._routes = Routes(routes)
        self._opening = Opening(info, grant, sorted(self._routes.by_name), list(features))
        self._logger = logger
        self._clock = clock
        self.on_change = on_change
        self._ids = itertools.count(1)
        self._open: set[Connection] = set()
        self._draining = False
        self._waiters: set[asyncio.Future[None]] = set()
        self.running = 0
        """Requests whose handlers run now; `inline` ones never show."""
        self.queued = 0
        """Requests that came and have not begun."""

    # -- Door

    def accept(self, transport: Transport) -> Connection:
        """Begin a connection."""
        return self._begin(transport, None)

    def turn_away(self, transport: Transport, limit: int) -> Connection:
        """Begin a connection whose first request is answered `too_many_clients`."""
        text = f"The daemon has {limit} connections open, as many as it may have; close some and retry."
        return self._begin(transport, RpcError("too_many_clients", text, limit=limit, actual=len(self._open)))

    def connect_memory(self, *, peer_pid: int | None = None) -> memory.MemoryEnd:
        """Make a connection in memory and return its far end."""
        return memory.connect(self, peer_pid=peer_pid)

    def broadcast(self, method: str, params: object, capability: str) -> None:
        """Send a notification (a small, rare one) to every connection whose client has said *capability*."""
        for connection in list(self._open):
            if connection.capabilities.get(capability) is True:
                connection.notify(method, params)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    # -- the end

    @property
    def draining(self) -> bool:
        """While set, what is running is finished and other requests are answered `draining`.

        `inline` methods, and those of routes that say so, are still answered: a running turn may be waiting
        for a permission. Setting it also answers what waits.
        """
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        if draining:
            for connection in list(self._open):
                connection.refuse_waiting()

    async def finished(self, timeout_s: float | None) -> bool:
        """Wait until no request runs or waits; False if *timeout_s* seconds (None: any) were not enough."""
        return await self._until(self._is_idle, timeout_s)

    def cancel_running(self) -> None:
        """Cancel every running request; each still gets its one response."""
        for connection in list(self._open):
            connection.cancel_running()

    async def flush_and_close(self, timeout_s: float) -> bool:
        """Close every connection, once its client has read what is unsent, and wait for every handler.

        What still runs is cancelled and answered `draining`. After *timeout_s* seconds the rest is thrown
        away. Returns whether everything ended in order. New connections are the transports' to refuse.
        """
        for connection in list(self._open):
            connection.close(RpcError("draining"))
        if await self._until(self._is_over, timeout_s):
            return True
        for connection in list(self._open):
            connection.abort()
        if not await self._until(self._is_over, LAST_S):
            self._logger.error("handlers do not end", extra={"running": self.running})
        return False

    # -- inside

    def _begin(self, transport: Transport, turned_away: RpcError | None) -> Connection:
        connection = Connection(
            id=f"c{next(self._ids)}",
            transport=transport,
            routes=self._routes,
            opening=self._opening,
            logger=self._logger,
            clock=self._clock,
            changed=self._changed,
            is_draining=lambda: self._draining,
            forget=self._forget,
            turned_away=turned_away,
        )
        self._open.add(connection)
        self._changed(0, 0)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._changed(0, 0)

    def _changed(self, running: int, queued: int) -> None:
        self.running += running
        self.queued += queued
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        if self.on_change is not None:
            self.on_change()

    def _is_idle(self) -> bool:
        return not self.running and not self.queued

    def _is_over(self) -> bool:
        return not self._open and self._is_idle()

    async def _until(self, reached: Callable[[], bool], timeout_s: float | None) -> bool:
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not reached():
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            waiter = loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=left)
            finally:
                self._waiters.discard(waiter)
        return True
