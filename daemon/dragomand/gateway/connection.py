"""One connection of a caller's: how many there are, and how long a request's head may take to come.

A program that opens connections and says little, or nothing, holds no more than its share of them.
"""

import asyncio
import logging
from typing import cast

from aiohttp import web

HEAD_S = 15.0
"""How long, in seconds, the head of a request may take from its first byte."""
FIRST_S = 60.0
"""How long, in seconds, a new connection may say nothing: some are made before they are needed."""
KEEP_S = 600.0
"""How long, in seconds, a connection may rest between two requests."""
MOST_CONNECTIONS = 256
"""Connections beyond it are closed at once."""
MOST_HEADER = 64 * 1024
"""The longest line of a head, in bytes."""


class Connection(web.RequestHandler):
    """aiohttp's own, with deadlines of ours."""

    __slots__ = ("_answering", "_has_begun", "_head", "_server")

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, logger: logging.Logger
    ) -> None:
        """Serve a connection of *server*'s."""
        super().__init__(
            server,
            loop=loop,
            logger=logger,
            keepalive_timeout=KEEP_S,
            access_log=None,  # type: ignore[arg-type]  # so it is switched off
            max_field_size=MOST_HEADER,
            max_line_size=MOST_HEADER,
            lingering_time=0,
        )
        self._server = server
        self._head: asyncio.TimerHandle | None = None
        self._answering = False
        self._has_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        if len(self._server.connections) >= MOST_CONNECTIONS:
            cast(asyncio.Transport, transport).abort()
        super().connection_made(transport)
        self._wait(FIRST_S)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; what comes between two requests begins the next one's head."""
        if not self._answering and not self._has_begun:
            self._has_begun = True
            self._wait(HEAD_S)
        super().data_received(data)

    def begin(self) -> None:
        """A request's head is complete."""
        self._answering, self._has_begun = True, False
        self._stop_waiting()

    def end(self) -> None:
        """It was answered."""
        self._answering = False

    def _wait(self, span_s: float) -> None:
        self._stop_waiting()
        self._head = asyncio.get_running_loop().call_later(span_s, self._too_late)

    def _stop_waiting(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_late(self) -> None:
        self._head = None
        if self.transport is not None:
            self.transport.abort()
