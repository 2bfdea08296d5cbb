"""One connection over stdin and stdout: `dragomand --private --stdio`, for tests and debugging.

The flags of a pipe or terminal are shared with whoever started us, so it is opened anew where the system can,
and otherwise put back at the end. What the loop cannot wait for (a regular file, `/dev/null`) never blocks,
so it is read and written directly; a terminal blocks only while a person holds it, and is written so too.
"""

import asyncio
import contextlib
import os
import select
import socket
import stat
from typing import cast

from .hang_ups import HangUps
from .interface import SOFT_BYTES, Door, Receiver
from .stream import StreamProtocol

_CHUNK = 256 * 1024


async def serve_stdio(door: Door, *, stdin: int = 0, stdout: int = 1) -> None:
    """Bring the connection over these file descriptors to *door*, and return when it is over.

    The descriptors themselves stay open.
    """
    one_socket = _is_one_socket(stdin, stdout)
    connection = SocketPair(door, stdin) if one_socket else StdioConnection(door, stdin, stdout)
    opening = asyncio.ensure_future(connection.open())
    try:
        await asyncio.shield(opening)
        await asyncio.shield(connection.over)
    finally:
        await (
            opening
        )  # takes a turn or two of the loop; cut off half-way, uvloop would leave descriptors behind
        connection.abort()


class StdioConnection:
    """A `Transport` made of two one-way streams."""

    peer_pid: int | None = None

    def __init__(self, door: Door, stdin: int, stdout: int) -> None:
        """Begin unopened."""
        self._door = door
        self._stdin = stdin
        self._stdout = stdout
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = self._loop.create_future()
        self._receiver: Receiver | None = None
        self._input: asyncio.ReadTransport | FileInput | None = None
        self._output: asyncio.WriteTransport | None = None
        self._file_output: int | None = None
        self._restore: list[int] = []

    async def open(self) -> None:
        """Open both streams and begin."""
        stdin, stdout = self._stdin, self._stdout
        own_output = os.dup(stdout) if os.isatty(stdout) else self._own(stdout, os.O_WRONLY)
        if _can_be_awaited(own_output) and not os.isatty(own_output):
            pipe = open(own_output, "wb", buffering=0)  # noqa: SIM115, ASYNC230  # the transport closes it
            output, _ = await self._loop.connect_write_pipe(lambda: _Output(self), pipe)
            output.set_write_buffer_limits(high=SOFT_BYTES, low=SOFT_BYTES // 4)
            self._output = output
        else:
            self._file_output = own_output
        self._receiver = self._door.accept(self)
        own_input = self._own(stdin, os.O_RDONLY)
        if _can_be_awaited(own_input):
            pipe = open(own_input, "rb", buffering=0)  # noqa: SIM115, ASYNC230  # the transport closes it
            self._input, _ = await self._loop.connect_read_pipe(lambda: _Input(self), pipe)
        else:
            self._input = FileInput(self, own_input, self._loop)

    # -- Transport

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self._output is not None:
            self._output.write(data)
        elif self._file_output is not None:
            try:
                _write_all(self._file_output, data)
            except OSError:  # no room, or the terminal is gone
                self.abort()

    def unsent(self) -> int:
        """Return how many bytes wait."""
        return self._output.get_write_buffer_size() if self._output is not None else 0

    def pause_reading(self) -> None:
        """Read nothing for now."""
        if self._input is not None:
            self._input.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self._input is not None:
            self._input.resume_reading()

    def close(self) -> None:
        """Send what is unsent, then close."""
        if self._input is not None:
            self._input.close()
        if self._output is not None:
            self._output.close()
        else:
            self._loop.call_soon(self.lost)

    def abort(self) -> None:
        """Close at once."""
        if self._input is not None:
            self._input.close()
        if self._output is not None:
            self._output.abort()
        else:
            self._loop.call_soon(self.lost)

    # -- what the streams tell

    def received(self, data: bytes) -> None:
        """Pass on input."""
        if self._receiver is not None:
            self._receiver.received(data)

    def ended(self) -> None:
        """Pass on the end of input."""
        self._input = None
        if self._receiver is not None:
            self._receiver.ended()

    def stalled(self) -> None:
        """Pass on that output does not leave."""
        if self._receiver is not None:
            self._receiver.stalled()

    def flowing(self) -> None:
        """Pass on that output leaves again."""
        if self._receiver is not None:
            self._receiver.flowing()

    def lost(self) -> None:
        """Pass on that output is closed: without it there is no connection. Twice is no harm."""
        if self.over.done():
            return
        if self._input is not None:
            self._input.close()
        if self._file_output is not None:
            os.close(self._file_output)
            self._file_output = None
        for fd in self._restore:
            os.set_blocking(fd, True)
        self._output = None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost()
        self.over.set_result(None)

    def _own(self, fd: int, mode: int) -> int:
        """Return a descriptor of our own for what *fd* leads to, with flags of its own where possible."""
        kind = os.fstat(fd).st_mode
        if stat.S_ISREG(kind):
            return os.dup(fd)  # its position is shared, and shall be
        if not stat.S_ISSOCK(kind):
            with contextlib.suppress(OSError):  # no such folder, or not ours to open
                return os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        if os.get_blocking(fd):
            self._restore.append(fd)
        copy = os.dup(fd)
        os.set_blocking(copy, False)
        return copy


class SocketPair(StreamProtocol):
    """A connection over one socket that is both stdin and stdout."""

    def __init__(self, door: Door, shared: int) -> None:
        """Begin unopened."""
        super().__init__()
        self._door = door
        self._shared = shared
        self._hang_ups = HangUps()
        self._fd = -1
        self._restore = -1
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Begin."""
        if os.get_blocking(self._shared):
            self._restore = self._shared
        pair = socket.socket(fileno=os.dup(self._shared))
        pair.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self, pair)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        stream = cast(asyncio.Transport, transport)
        self._fd = stream.get_extra_info("socket").fileno()
        self._use(stream)
        self._receiver = self._door.accept(self)

    def eof_received(self) -> bool:
        """Tell one that is gone from one that only sends no more."""
        if self._hang_ups.watch(self._fd, self):
            return super().eof_received()
        self.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Put the flags back."""
        self._hang_ups.forget(self)
        if self._restore >= 0:
            os.set_blocking(self._restore, True)
        super().connection_lost(exc)
        self.over.set_result(None)


class FileInput:
    """Reads what never blocks, a chunk in each turn of the loop."""

    def __init__(self, connection: StdioConnection, fd: int, loop: asyncio.AbstractEventLoop) -> None:
        """Read *fd* from now on."""
        self._connection = connection
        self._fd = fd
        self._loop = loop
        self._reading = False
        self._open = True
        self.resume_reading()

    def pause_reading(self) -> None:
        """Read nothing for now."""
        self._reading = False

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and self._open:
            self._reading = True
            self._loop.call_soon(self._read)

    def close(self) -> None:
        """Read no more."""
        if self._open:
            self._open = self._reading = False
            os.close(self._fd)

    def _read(self) -> None:
        if not self._reading:
            return
        data = os.read(self._fd, _CHUNK)
        if data:
            self._loop.call_soon(self._read)
            self._connection.received(data)
        else:
            self.close()
            self._connection.ended()


class _Input(asyncio.Protocol):
    def __init__(self, connection: StdioConnection) -> None:
        self._connection = connection
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._connection.received(data)

    def eof_received(self) -> None:
        self._ended = True
        self._connection.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and not self._ended:
            self._connection.ended()


class _Output(asyncio.BaseProtocol):
    def __init__(self, connection: StdioConnection) -> None:
        self._connection = connection

    def pause_writing(self) -> None:
        self._connection.stalled()

    def resume_writing(self) -> None:
        self._connection.flowing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.lost()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])


def _is_one_socket(stdin: int, stdout: int) -> bool:
    one, other = os.fstat(stdin), os.fstat(stdout)
    return stat.S_ISSOCK(one.st_mode) and os.path.samestat(one, other)


def _can_be_awaited(fd: int) -> bool:
    poll = select.epoll() if hasattr(select, "epoll") else None
    if poll is None:
        return not os.path.isfile(f"/dev/fd/{fd}")
    with poll:
        try:
            poll.register(fd, select.EPOLLIN)
        except PermissionError:
            return False
    return True
