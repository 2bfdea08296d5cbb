"""The daemon's own lock: held for its whole life, it makes one daemon per state directory.

It is apart from the clients' start lock, and in the state directory rather than beside the socket: two
environments of one user can lead to different runtime directories, never to two daemons on one database
(`dragoman.locate` tells the story). Who holds it may remove a socket that a dead daemon left behind.

The kernel drops an `flock` with its last file descriptor, whatever kills the process. The descriptor closes
on exec; a child that forks *without* exec must close it, or the lock would outlive the daemon. The file
itself is never removed: a second file of the same name would be a second lock.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager

from dragoman.locate import LocateError, Paths, connect, read_record

from dragomand.process.identity import is_alive, start_time

WAIT_MS = 17_000
"""How long, in milliseconds, a new daemon waits for one that is leaving.

By default that one takes 15 s at most (5 of grace, 8 for cancelled turns, 2 for last answers), and whoever
starts us waits for 20.
"""


_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 1.0


class LockedError(LocateError):
    """Another daemon holds the lock: it listens, or kept the lock for as long as we were willing to wait."""


class InstanceLock:
    """The held lock. `acquire` makes it, `release` (or the process's end) gives it back."""

    def __init__(self, file: int, paths: Paths) -> None:
        """Keep the locked file descriptor `file`; `acquire` is the way to come by one."""
        self._file = file
        self.paths = paths

    @classmethod
    def acquire(cls, paths: Paths, wait_ms: int = WAIT_MS) -> "InstanceLock":
        """Take the lock of `paths`, waiting up to `wait_ms` milliseconds for a daemon that is leaving.

        One that listens is not leaving, so it is not waited for. One that lost its socket is told to bind
        anew (SIGHUP), and then it listens. The folders must exist
        (`dragomand.process.paths.prepare`). Call it in the main thread, before any event loop runs: the wait
        is ended by a timer signal. Raises `LockedError`.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(paths.lock_file, flags, 0o600)
        try:
            if not _take(file):
                _refuse_if_it_listens(paths)
                _call(paths)
                _wait(file, wait_ms, paths)
            os.ftruncate(file, 0)  # what a killed daemon wrote: a held lock's record is its holder's
        except TimeoutError:
            os.close(file)
            _refuse_if_it_listens(paths)
            raise LockedError(
                f"Another daemon ({_holder(paths)}) holds {paths.lock_file}: it has not finished stopping, "
                "or its socket was removed. Run: dragoman daemon stop"
            ) from None
        except BaseException:
            os.close(file)
            raise
        return cls(file, paths)

    def record(self, socket: str | None, version: str) -> dict[str, object]:
        """Write into the lock file who holds it and where it listens, and return it.

        On a full disk the record stays empty: whoever has our environment finds the socket without it.
        """
        pid = os.getpid()
        entry: dict[str, object] = {
            "pid": pid,
            "startTime": start_time(pid),
            "socket": socket,
            "version": version,
        }
        text = json.dumps(entry).encode() + b"\n"
        try:
            written = os.pwrite(self._file, text, 0)
        except OSError:
            written = 0
        os.ftruncate(self._file, written if written == len(text) else 0)
        return entry

    def leaving(self) -> None:
        """Take the socket out of the record: whoever finds it missing need not ask for it."""
        entry = read_record(self.paths)
        if entry:
            self.record(None, str(entry["version"]))

    def release(self) -> None:
        """Empty the record and give the lock back. Does nothing the second time."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1


def _take(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _call(paths: Paths) -> None:
    """Tell a daemon that lost its socket that somebody is at the door; one that is leaving names none."""
    record = read_record(paths)
    pid, started = record.get("pid"), record.get("startTime")
    if isinstance(record.get("socket"), str) and isinstance(pid, int) and isinstance(started, str):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if is_alive(pid, started):
                os.kill(pid, signal.SIGHUP)


def _wait(file: int, wait_ms: int, paths: Paths) -> None:
    """Wait for the lock, and look now and then whether its holder listens again: a lock does not tell."""
    deadline = time.monotonic() + wait_ms / 1000
    look = _FIRST_LOOK_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            with _alarm(min(look, left)):
                fcntl.flock(file, fcntl.LOCK_EX)
                return
        except TimeoutError:
            _refuse_if_it_listens(paths)
            look = min(2 * look, _LONGEST_LOOK_S)
    raise TimeoutError


def _refuse_if_it_listens(paths: Paths) -> None:
    """A daemon that leaves takes its socket away first, so one that takes connections is there to stay."""
    try:
        connect(paths, 1.0).close()
    except LocateError:
        return
    raise LockedError(f"A daemon is running already ({_holder(paths)}).")


def _holder(paths: Paths) -> str:
    record = read_record(paths)
    return f"process {record.get('pid')}, socket {record.get('socket')}"


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`: the only way to bound a blocking `flock`."""

    def ring(_number: int, _frame: types.FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
