"""`dragoman stdio`: copy bytes between stdin/stdout and the shared daemon, starting it if there is none.

What an editor starts as its "server". Nothing is parsed. One loop, no threads, no polling:

- End of stdin → what was read is sent on, then our half of the socket is shut, and the daemon's remaining
  answers are passed on until it closes (at most `QUIET_S` without a byte).
- The daemon closes → what it sent is written out, then we leave.
- The reader of stdout is gone → we leave at once; the daemon sees its client disappear.
- The daemon closes before it has sent the first byte → it was leaving when we came in. Nothing was
  answered, so a daemon is found or started again and told the same from the beginning (at most
  `_FRESH_STARTS` times, and only as long as no more than `_REPEATABLE_BYTES` have been sent).

stdin and stdout stay blocking: their flags are shared with whoever started us. So stdout is written only
when `poll` says so, and then no more than `select.PIPE_BUF` bytes, which cannot block.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import sys

from dragoman.launch import ensure_daemon
from dragoman.locate import LocateError, find_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

EXIT_OK = 0
"""Both sides finished, or the reader of our stdout left."""
EXIT_LOST = 1
"""The connection broke, no daemon stayed to answer, or it was silent too long after the end of stdin."""
EXIT_UNAVAILABLE = 69
"""No daemon could be reached or started (EX_UNAVAILABLE); the reason is on stderr."""

QUIET_S = 600.0
"""After the end of stdin: how long, in seconds, the daemon may be silent. As long as a query may take."""

_CHUNK = 1 << 18
_FULL = 1 << 20
_REPEATABLE_BYTES = 1 << 16
_FRESH_STARTS = 3
_BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL


def stdio(
    env: Mapping[str, str] | None = None,
    *,
    stdin: int = 0,
    stdout: int = 1,
    command: Sequence[str] | None = None,
) -> int:
    """Run `dragoman stdio` on the file descriptors given, and return the exit status.

    `env` defaults to this process's environment. `command` replaces the daemon's command line, as in
    `dragoman.launch.ensure_daemon`. SIGINT and SIGTERM end it with 130 and 143.
    """
    before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        paths = find_paths(env)
        status = forward(lambda: ensure_daemon(paths, env, command=command), stdin, stdout)
        if status == EXIT_LOST:
            print("dragoman stdio: the daemon closed the connection or fell silent.", file=sys.stderr)
        return status
    except LocateError as failed:
        print(f"dragoman stdio: {failed}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except _StoppedError as stopped:
        return 128 + stopped.number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _StoppedError(Exception):
    """A signal asked us to stop; raised out of whatever system call was waiting."""

    def __init__(self, number: int) -> None:
        self.number = number


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _StoppedError(number)


def forward(
    connect: Callable[[], socket.socket], stdin: int, stdout: int, *, quiet_s: float = QUIET_S
) -> int:
    """Copy both ways between the file descriptors and what `connect` returns; return the exit status.

    `connect` returns a blocking connection to a daemon; it is called again if that one was leaving. Its
    errors pass through. The descriptors are not closed, the connection is.
    """
    forwarding = _Forwarding(connect, stdin, stdout, quiet_s)
    try:
        return forwarding.run()
    finally:
        forwarding.connection.close()


class _Forwarding:
    """The two directions. `to_daemon` and `to_reader` hold what was read and not yet written, each ≤ 1 MiB
    and a chunk: a side whose buffer is full is not read until the other side has taken some of it."""

    def __init__(self, connect: Callable[[], socket.socket], stdin: int, stdout: int, quiet_s: float) -> None:
        self.connect = connect
        self.stdin = stdin
        self.stdout = stdout
        self.quiet_ms = quiet_s * 1000
        self.write_size = _CHUNK if stat.S_ISREG(os.fstat(stdout).st_mode) else select.PIPE_BUF
        self.to_daemon = bytearray()
        self.to_reader = bytearray()
        self.unanswered: bytearray | None = bytearray()  # all that was sent; None once it cannot be repeated
        self.answered = False
        self.fresh_starts = 0
        self.stdin_open = True
        self.status = -1  # a proper exit status once there is nothing left to do
        self.poll = select.poll()
        self.watched: dict[int, int] = {}
        self.open_connection()

    def open_connection(self) -> None:
        """Connect; from here on the daemon may be read, written to, and has not had our half-close."""
        self.connection = self.connect()
        self.connection.setblocking(False)
        self.daemon_open = self.daemon_listens = True
        self.half_closed = False
        self.lost = False

    def run(self) -> int:
        """Copy until there is nothing left to do, and return the exit status."""
        while not self.settled():
            self.watch_all()
            ready = dict(self.poll.poll(None if self.stdin_open else self.quiet_ms))
            if not ready:
                return EXIT_LOST
            if self.stdout in ready:
                self.stdout_ready(ready[self.stdout])
            socket_events = ready.get(self.connection.fileno(), 0)
            if socket_events & select.POLLOUT and self.to_daemon:
                self.send()
            if socket_events & ~select.POLLOUT:
                self.receive()
            if self.stdin in ready:
                self.read_stdin()
        return self.status

    def settled(self) -> bool:
        """Do what follows from the state rather than from an event: half-close, or finish (then True)."""
        if not self.stdin_open and not self.to_daemon and self.daemon_listens and not self.half_closed:
            self.half_closed = True
            try:
                self.connection.shutdown(socket.SHUT_WR)
            except OSError:
                self.daemon_listens = False  # it closed first; its end of stream is on the way
        if not self.daemon_open and not self.to_reader:
            self.status = EXIT_LOST if self.lost else EXIT_OK
        return self.status >= 0

    def watch_all(self) -> None:
        """Tell `poll` what is of interest now. What is not is taken out: a hang-up is always reported."""
        read_input = self.stdin_open and self.daemon_open and len(self.to_daemon) < _FULL
        self.watch(self.stdin, select.POLLIN if read_input else None)
        # stdout stays watched with no interest at all: that is how its reader's disappearance is told.
        self.watch(self.stdout, select.POLLOUT if self.to_reader else 0)
        receive = self.daemon_open and len(self.to_reader) < _FULL
        send = self.daemon_open and self.daemon_listens and bool(self.to_daemon)
        events = (select.POLLIN if receive else 0) | (select.POLLOUT if send else 0)
        self.watch(self.connection.fileno(), events or None)

    def watch(self, fd: int, events: int | None) -> None:
        """Register `fd` for `events`, or take it out for None; nothing is done twice."""
        if self.watched.get(fd) == events:
            return
        if events is None:
            self.poll.unregister(fd)
            del self.watched[fd]
        else:
            self.poll.register(fd, events)
            self.watched[fd] = events

    def read_stdin(self) -> None:
        """Take a chunk of input, or note its end."""
        try:
            data = os.read(self.stdin, _CHUNK)
        except OSError:  # a terminal that was closed, a descriptor that never was
            data = b""
        self.to_daemon += data
        self.stdin_open = bool(data)

    def stdout_ready(self, events: int) -> None:
        """Write what cannot block; if the reader is gone, there is nobody left to work for."""
        if events & _BROKEN:
            self.status = EXIT_OK
            return
        try:
            written = os.write(self.stdout, self.to_reader[: self.write_size])
        except BrokenPipeError:
            self.status = EXIT_OK
            return
        del self.to_reader[:written]

    def send(self) -> None:
        """Pass input on to the daemon, remembering it while it might have to be repeated."""
        chunk = bytes(self.to_daemon[:_CHUNK])
        try:
            sent = self.connection.send(chunk)
        except BlockingIOError:
            return
        except OSError:
            # It closed. What it said before may still be read, and the end of that decides.
            self.daemon_listens = False
            return
        del self.to_daemon[:sent]
        if self.unanswered is not None:
            self.unanswered += chunk[:sent]
            if len(self.unanswered) > _REPEATABLE_BYTES:
                self.unanswered = None

    def receive(self) -> None:
        """Take a chunk from the daemon, or see that it has closed."""
        try:
            data = self.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data, self.lost = b"", True
        if data:
            self.answered = True
            self.unanswered = None
            self.to_reader += data
        elif self.answered or self.nothing_was_said():
            self.daemon_open = False
        elif self.unanswered is None or self.fresh_starts == _FRESH_STARTS:
            self.daemon_open, self.lost = False, True
        else:
            self.start_afresh()

    def nothing_was_said(self) -> bool:
        """Tell whether input ended and all of it was nothing: then a daemon that closes has done its part."""
        return not (self.stdin_open or self.unanswered is None or self.unanswered or self.to_daemon)

    def start_afresh(self) -> None:
        """The daemon was leaving: say everything again to its successor."""
        self.watch(self.connection.fileno(), None)
        self.connection.close()
        self.fresh_starts += 1
        assert self.unanswered is not None
        self.to_daemon[:0] = self.unanswered
        self.unanswered = bytearray()
        self.open_connection()
