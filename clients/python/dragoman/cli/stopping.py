"""Stopping the daemon, and knowing that it is really gone.

The process is the one at the other end of the socket, or, if the socket's file was removed, the one that the
held lock names. Its end is told by the system (a process descriptor, on macOS a kernel queue), not asked for.
"""

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from dragoman_protocol.lifecycle import Scope

from dragoman import locate
from dragoman.errors import BusyError, ConnectionClosedError, DragomanError, RequestTimeoutError
from dragoman.locate import NotRunningError, Paths
from dragoman.sync import Client

T = TypeVar("T")

ANSWER_S = 5.0
"""How long, in seconds, a daemon may take to answer before it is called frozen."""


class StillRunningError(DragomanError):
    """The daemon did not end in time."""


class Running:
    """A daemon that runs: its process, and its socket if it has one."""

    def __init__(self, pid: int, socket: str | None, *, leaving: bool = False) -> None:
        """Name process *pid*; *socket* None: it lost it, or is *leaving*."""
        self.pid = pid
        self.socket = socket
        self.leaving = leaving


def find_running(paths: Paths) -> Running | None:
    """Return the daemon of *paths*, None if there is none. Raises `LocateError` if it cannot be told."""
    try:
        with locate.connect(paths) as connection:
            return Running(locate.peer_pid(connection), str(connection.getpeername()))
    except NotRunningError:
        record = locate.read_record(paths)
        pid = record.get("pid")
        if not isinstance(pid, int) or not _is_locked(paths):
            return None
        return Running(pid, None, leaving=record.get("socket") is None)


def _is_locked(paths: Paths) -> bool:
    try:
        file = os.open(paths.lock_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def ask_daemon(paths: Paths, running: Running, scopes: list[Scope], call: Callable[[Client], T]) -> T:
    """Connect, make *call* and return its result. Raises `BusyError` if no answer comes in `ANSWER_S`."""
    try:
        with Client(lambda: locate.connect(paths), client_name="dragoman daemon", scopes=scopes) as claude:
            return call(claude)
    except (RequestTimeoutError, BusyError):
        raise BusyError(
            f"The daemon (process {running.pid}) does not answer; it may be frozen or stopped by a debugger. "
            "End it by force with: dragoman daemon stop --kill"
        ) from None


def stop(paths: Paths, running: Running, *, grace_ms: int | None, timeout_s: float, kill: bool) -> None:
    """Ask the daemon to stop and wait until its process is gone.

    *grace_ms*: how long running turns may finish (None: the daemon's own setting). *timeout_s* bounds the
    wait. *kill*: end the process by force if it does not answer or does not end. Raises `BusyError` for one
    that does not answer and `StillRunningError` for one that does not end.
    """
    with watch(running.pid) as ended:
        try:
            _tell(paths, running, grace_ms)
            if ended(timeout_s):
                return
            raise StillRunningError(
                f"The daemon (process {running.pid}) has not ended after {timeout_s:g} s; it may be "
                "finishing turns. Wait, or end it by force with: dragoman daemon stop --kill"
            )
        except (BusyError, StillRunningError):
            if not kill:
                raise
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)
        if not ended(ANSWER_S):
            raise StillRunningError(f"Process {running.pid} does not end even when killed.")


def _tell(paths: Paths, running: Running, grace_ms: int | None) -> None:
    """Ask it over its socket, or by a signal if it has none; one that is gone already is as wanted."""
    with contextlib.suppress(NotRunningError, ConnectionClosedError, ProcessLookupError):
        if running.socket is None:
            os.kill(running.pid, signal.SIGTERM)
        else:
            ask_daemon(
                paths,
                running,
                ["admin"],
                lambda claude: claude.daemon_stop(grace_ms=grace_ms, timeout_s=ANSWER_S),
            )


@contextlib.contextmanager
def watch(pid: int) -> Iterator[Callable[[float], bool]]:
    """Give a function that waits so many seconds for the end of process *pid* and tells whether it came."""
    if not hasattr(os, "pidfd_open"):  # macOS
        with _watch_by_queue(pid) as ended:
            yield ended
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield lambda _seconds: True
        return
    try:
        yield lambda seconds: bool(_poll(descriptor, seconds))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _watch_by_queue(pid: int) -> Iterator[Callable[[float], bool]]:
    kernel: Any = select  # what only BSD systems have is not known to type checkers elsewhere
    with contextlib.closing(kernel.kqueue()) as queue:
        end = kernel.kevent(pid, kernel.KQ_FILTER_PROC, kernel.KQ_EV_ADD, kernel.KQ_NOTE_EXIT)
        try:
            queue.control([end], 0)
        except ProcessLookupError:
            yield lambda _seconds: True
            return
        yield lambda seconds: bool(queue.control(None, 1, seconds))


def _poll(descriptor: int, seconds: float) -> list[tuple[int, int]]:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll(seconds * 1000)
