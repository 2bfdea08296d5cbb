"""Who is gone, and who only sends no more.

A client that was killed and one that only shut its half (`printf … | dragoman stdio`) both look like the end
of the stream. The first must have its work cancelled, the second must have its answers: the kernel tells them
apart by a hang-up event, for which the half-closed connections wait in an epoll of their own.
"""

import asyncio
import os
import select
import sys

from .stream import StreamProtocol


class HangUps:
    """Waits, for connections that ended their half, until the other half is gone too.

    Only Linux can: elsewhere a connection that is gone is noticed when something is written to it.
    """

    def __init__(self, platform: str = sys.platform) -> None:
        """Begin with none; the epoll is made for the first."""
        self._can_wait = platform == "linux"
        self._epoll: select.epoll | None = None
        self._watched: dict[StreamProtocol, int] = {}
        self._by_fd: dict[int, StreamProtocol] = {}

    def watch(self, fd: int, connection: StreamProtocol) -> bool:
        """Abort *connection* when its other end is gone; False if it is gone already."""
        poll = select.poll()
        poll.register(fd, 0)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
            return False
        if not self._can_wait:
            return True
        # The descriptor's own life ends before asyncio says so, and its number is used again: watch a copy.
        copy = os.dup(fd)
        self._opened().register(copy, 0)
        self._watched[connection] = copy
        self._by_fd[copy] = connection
        return True

    def forget(self, connection: StreamProtocol) -> None:
        """Stop watching *connection*."""
        copy = self._watched.pop(connection, None)
        if copy is None or self._epoll is None:
            return
        del self._by_fd[copy]
        self._epoll.unregister(copy)
        os.close(copy)
        if not self._watched:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _opened(self) -> "select.epoll":
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._hung_up)
        return self._epoll

    def _hung_up(self) -> None:
        assert self._epoll is not None
        for copy, _ in self._epoll.poll(0):
            self._epoll.modify(copy, select.EPOLLET)  # told once is enough; `forget` follows
            self._by_fd[copy].abort()
