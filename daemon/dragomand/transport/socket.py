"""The unix socket: every connection of it is one peer, and a peer is a process of the same user."""

import asyncio
import os
import socket
import sys
from typing import Any, cast

from dragoman.locate import peer_pid, peer_uid

from .hang_ups import HangUps
from .interface import Door
from .stream import StreamProtocol

BACKLOG = 1024
"""Connections that may wait to be accepted."""
TURNED_AWAY = 32
"""How many connections above the limit are told so at a time; beyond, they are closed without a word."""
TURN_AWAY_S = 5.0
"""How long, in seconds, one above the limit may take to ask and be told."""


class SocketServer:
    """One listening socket and its connections. `serve_socket` makes it."""

    def __init__(self, door: Door, max_connections: int) -> None:
        """Bring at most *max_connections* at a time to *door*."""
        self.door = door
        self.max_connections = max_connections
        self.open = 0
        """Connections accepted and not lost."""
        self.turned_away = 0
        """Of those above the limit, how many are open now."""
        self.hang_ups = HangUps()
        self._accepting: asyncio.Server | None = None

    async def listen(self, listening: socket.socket) -> None:
        """Accept connections of *listening* from now on."""
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        # From 3.13 on asyncio would remove the socket's file at the end; that is `process.listen`'s to do.
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._accepting = await loop.create_unix_server(
            lambda: SocketConnection(self), sock=listening, backlog=BACKLOG, **keep
        )

    async def adopt(self, accepted: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere (`Listener.withdraw`)."""
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: SocketConnection(self), accepted)

    def close(self) -> None:
        """Accept no more and close the listening socket; connections go on. Twice is no harm."""
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None


async def serve_socket(door: Door, listening: socket.socket, *, max_connections: int = 256) -> SocketServer:
    """Bring every connection of *listening* (bound and listening already) to *door*."""
    server = SocketServer(door, max_connections)
    await server.listen(listening)
    return server


class SocketConnection(StreamProtocol):
    """One connection."""

    def __init__(self, server: SocketServer) -> None:
        """Begin one of *server*'s."""
        super().__init__()
        self._server = server
        self._above_limit = False
        self._deadline: asyncio.TimerHandle | None = None
        self._fd = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let in a process of the same user, if there is room."""
        stream = cast(asyncio.Transport, transport)
        peer = stream.get_extra_info("socket")
        server = self._server
        server.open += 1
        self._use(stream)
        if peer_uid(peer) != os.getuid():
            stream.abort()
            return
        self.peer_pid = peer_pid(peer)
        self._fd = peer.fileno()
        if server.open - server.turned_away <= server.max_connections:
            self._receiver = server.door.accept(self)
        elif server.turned_away < TURNED_AWAY:
            server.turned_away += 1
            self._above_limit = True
            self._deadline = asyncio.get_running_loop().call_later(TURN_AWAY_S, stream.abort)
            self._receiver = server.door.turn_away(self, server.max_connections)
        else:
            stream.abort()

    def eof_received(self) -> bool:
        """Tell one that is gone from one that only sends no more."""
        if self._server.hang_ups.watch(self._fd, self):
            return super().eof_received()
        self.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        server = self._server
        server.open -= 1
        server.turned_away -= self._above_limit
        server.hang_ups.forget(self)
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
