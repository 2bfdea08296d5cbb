"""The child ledger: which guards this daemon has started, on disk, so that the next daemon can clean up.

A guard ends by itself when its daemon dies, and takes everything it started along (`guard`). The ledger is
for the case that the guard was killed too. One small file a child in the folder ``children`` of the state
directory, named by the child's *mark*: written before the child is started, removed when it has ended. The
mark is in the environment of everything that descends from the child (`MARK`), so that it is found wherever
it hides.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dragomand.process.guard import descendants, parents_from_proc, parents_from_ps
from dragomand.process.identity import is_alive, start_time

MARK = "DRAGOMAN_CHILD"
"""The environment variable that tells whose descendant a process is."""

PATIENCE_S = 4.5
"""How long, in seconds, `reap` waits for guards that end by themselves: a little more than they need."""

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Reaped:
    """What `Ledger.reap` found."""

    guards: int = 0
    """Entries of a dead daemon."""
    killed: int = 0
    """Processes that had to be killed."""


class Entry:
    """One child's line in the ledger."""

    def __init__(self, folder: str, mark: str) -> None:
        """Name the file; `Ledger.reserve` makes it."""
        self.mark = mark
        self._path = os.path.join(folder, mark)

    def started(self, pid: int) -> None:
        """Note which process the guard is."""
        text = json.dumps({"pid": pid, "startTime": start_time(pid)})
        # In one write, so that a daemon that is killed leaves all of it or nothing.
        with open(self._path, "wb", buffering=0) as file:
            file.write(text.encode())

    def ended(self) -> None:
        """Take the child off the ledger. Does nothing the second time."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class Ledger:
    """The ledger of one state directory. Only the holder of the daemon's lock may use it."""

    def __init__(self, state_dir: str) -> None:
        """Keep the ledger in *state_dir*, which must exist. Make it before any child is started.

        What is on it now is a dead daemon's, and what `reap` will end.
        """
        self._folder = os.path.join(state_dir, "children")
        self._left = self.marks()

    def reserve(self) -> Entry:
        """Make an entry for a child that is about to be started."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        entry = Entry(self._folder, secrets.token_hex(16))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(os.path.join(self._folder, entry.mark), flags, 0o600))
        return entry

    def marks(self) -> list[str]:
        """Return the marks of all entries."""
        try:
            return sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []

    def reap(self, patience_s: float = PATIENCE_S) -> Reaped:
        """End whatever a dead daemon left, and empty the ledger.

        Blocks for up to *patience_s* seconds while guards end by themselves, so it is called in a thread.
        Children of this daemon are left alone, however early they were started.
        """
        deadline = time.monotonic() + patience_s
        marks, self._left = self._left, []
        guards = [guard for mark in marks if (guard := self._guard(mark)) is not None]
        for pid, started in guards:
            _signal(pid, started, signal.SIGTERM)
        killed = 0
        for pid, started in guards:
            if not _wait_for_end(pid, started, deadline):
                killed += _kill_tree(pid)
        killed += _kill_marked(frozenset(marks))
        for mark in marks:
            Entry(self._folder, mark).ended()
        return Reaped(len(marks), killed)

    def _guard(self, mark: str) -> tuple[int, str] | None:
        """Return the guard's pid and start time; None if it was never started, or its file says nothing."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(os.path.join(self._folder, mark), "rb") as file:
                noted = json.loads(file.read(4096))
            return int(noted["pid"]), str(noted["startTime"])
        return None


def sweep(mark: str) -> int:
    """Kill every process that bears *mark*; return how many. For a child whose guard was killed."""
    return _kill_marked(frozenset([mark]))


def _signal(pid: int, started: str, number: int) -> None:
    if is_alive(pid, started):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _wait_for_end(pid: int, started: str, deadline: float) -> bool:
    """Wait until the process is gone; False if it is still there at *deadline*."""
    try:
        with _end_of(pid) as wait:
            # Looked at after the watch is set, so that a pid that is used again is not mistaken.
            return not is_alive(pid, started) or wait(max(0.0, deadline - time.monotonic()))
    except ProcessLookupError:
        return True


@contextlib.contextmanager
def _end_of(pid: int) -> Iterator[Callable[[float], bool]]:
    """Watch *pid*: gives a function that waits so many seconds for its end. Raises `ProcessLookupError`."""
    if sys.platform == "linux":
        fd = os.pidfd_open(pid)
        try:
            yield lambda seconds: bool(select.select([fd], [], [], seconds)[0])
        finally:
            os.close(fd)
    else:  # BSD and macOS
        queue = select.kqueue()
        try:
            event = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            queue.control([event], 0)
            yield lambda seconds: bool(queue.control([], 1, seconds))
        finally:
            queue.close()


def _kill_tree(root: int) -> int:
    """Kill *root* and its descendants, those first that it could start again."""
    parents = parents_from_proc() if sys.platform == "linux" else parents_from_ps()
    doomed = [root, *descendants(root, parents)]
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(doomed)


def _kill_marked(marks: frozenset[str]) -> int:
    """Kill until none is left: who forks while we look is found in the next round."""
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        found = _marked(marks) - killed
        if not found:
            break
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
    return len(killed)


def _marked(marks: frozenset[str]) -> set[int]:
    """Return the processes of our own that bear one of *marks*; never this one.

    Linux only; elsewhere no process may read another's environment.
    """
    if sys.platform != "linux" or not marks:
        return set()
    found = set()
    prefix = f"{MARK}=".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                environ = file.read(1 << 21)
        except OSError:
            continue
        for setting in environ.split(b"\0"):
            if setting.startswith(prefix) and setting[len(prefix) :].decode(errors="replace") in marks:
                found.add(int(name))
                break
    return found
