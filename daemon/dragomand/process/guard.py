"""A small program between the daemon and each program it starts: nothing that was started outlives it.

Run as ``guard.py LIFE KEEP OPEN_FILES PROGRAM ARGUMENT…`` by a Python with ``-I -S``, with the program's
environment, working directory and standard streams. `LIFE` is the read end of a pipe whose other end only
the daemon holds: its end is the daemon's death, whatever the cause. `KEEP` names the file descriptors that
the program gets besides the standard ones (``3,4`` or ``-``). `OPEN_FILES` is its soft limit (``-``: as it
is).

The guard makes a session of its own and, on Linux, becomes the *subreaper* of all that descends from it: a
tool that forks twice and starts a session of its own is still the guard's. It ends when the program has
ended, on SIGTERM, or with the daemon, and before it does it ends every descendant: SIGTERM, and SIGKILL to
what is left. It exits with the program's status, 128 + n for signal n, and 126 or 127 if the program cannot
be started.

Where there is no subreaper the descendants are those that a walk through the process table finds, and the
program's process group.

Standard library only, and nothing of this package: it must start in a few milliseconds and stay small.
"""
# ruff: noqa: SIM105 (importing contextlib would cost a fifth of the start)

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Prctl = Callable[[int, int, int, int, int], int]

GRACE_S = 1.5
"""How long descendants have after SIGTERM, once the program was told to end or the daemon is gone."""

GRACE_AFTER_S = 0.5
"""How long those have that are left after the program has ended by itself."""

KILL_S = 2.0
"""How long dying may take after SIGKILL; what is left then cannot be killed (it waits for a device)."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LINUX = sys.platform == "linux"
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class Guard:
    """Runs one program and ends with it."""

    def __init__(self, life: int) -> None:
        """Watch *life*, the pipe that tells of the daemon's death."""
        self.life = life
        self.parent = os.getppid()
        self.program = 0
        self.status: int | None = None
        self.stopping = False
        self.wake, self._wake_writer = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self._wake_writer, False)
        os.set_inheritable(life, False)

    def run(self, argv: list[str], keep: list[int], open_files: int | None) -> int:
        """Start *argv*, wait for the reason to end, end all descendants; return the exit status."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._parent_died)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        prctl = _prctl() if _LINUX else None
        if prctl is not None:
            prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
        self._start(argv, open_files, prctl)
        for fd in keep:
            os.close(fd)
        _let_go_of_streams()
        self._wait_for_reason()
        self._end_descendants()
        return 128 + signal.SIGKILL if self.status is None else self.status

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _parent_died(self, *_: object) -> None:
        # The kernel sends this when the *thread* that started us ends, so it is only a reason to look.
        if os.getppid() != self.parent:
            self.stopping = True

    def _start(self, argv: list[str], open_files: int | None, prctl: Prctl | None) -> None:
        guard = os.getpid()
        self.program = os.fork()
        if self.program == 0:
            self._become(argv, open_files, prctl, guard)

    def _become(  # pragma: no cover (it runs in a fork, whose lines are not seen)
        self, argv: list[str], open_files: int | None, prctl: Prctl | None, guard: int
    ) -> None:
        try:
            if prctl is not None:
                prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != guard:
                    os._exit(1)
            else:
                os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored, signal.SIG_DFL)
            _limit_open_files(open_files)
            os.execv(argv[0], argv)
        except OSError as failed:
            os.write(2, f"{argv[0]} cannot be started: {failed.strerror}\n".encode())
            os._exit(127 if failed.errno in _MISSING else 126)
        except BaseException as failed:  # noqa: BLE001  # a fork must not run on
            os.write(2, f"{argv[0]} cannot be started: {failed}\n".encode())
            os._exit(126)  # whatever it is, this fork must not go on as a second guard

    def _wait_for_reason(self) -> None:
        poll = select.poll()
        poll.register(self.life, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while self._reap() and self.status is None and not self.stopping:
            for fd, _ in poll.poll():
                if fd == self.life:
                    self.stopping = True
                else:
                    self._drain()

    def _drain(self) -> None:
        try:
            os.read(self.wake, 4096)
        except BlockingIOError:
            pass

    def _reap(self) -> bool:
        """Collect whoever has ended; False once there is no child, and so no descendant, any more."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.program:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def _end_descendants(self) -> None:
        grace = GRACE_AFTER_S if self.status is not None else GRACE_S
        self._signal_all(signal.SIGTERM)
        if self._wait_until_none(grace, None) and _LINUX:
            return
        self._wait_until_none(KILL_S, signal.SIGKILL)

    def _wait_until_none(self, seconds: float, number: int | None) -> bool:
        """Wait until no child is left; send *number* to all again whenever one has ended, and now and then.

        Killing makes orphans, who become our children, and who forks while we look is seen the next time.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        while self._reap():
            if number is not None:
                self._signal_all(number)
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(min(left, 0.05 if number is not None else left) * 1000)
            self._drain()
        if number is not None and not _LINUX:
            self._signal_all(number)
        return True

    def _signal_all(self, number: int) -> None:
        if not _LINUX:
            _send(-self.program, number)
        for pid in descendants(os.getpid(), _parents()):
            _send(pid, number)


def descendants(root: int, parents: dict[int, int]) -> list[int]:
    """Return all that descend from *root*, nearest first; *parents* maps each process to its parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found = list(children.get(root, ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _parents() -> dict[int, int]:
    return parents_from_proc() if _LINUX else parents_from_ps()


def parents_from_proc() -> dict[int, int]:
    """Return every process with its parent, from ``/proc``."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fd = os.open(f"/proc/{name}/stat", os.O_RDONLY)
            except OSError:
                continue
            try:
                stat = os.read(fd, 1024)
                found[int(name)] = int(stat[stat.rindex(b")") + 2 :].split(None, 2)[1])
            except (OSError, ValueError):
                continue  # it ended while we looked
            finally:
                os.close(fd)
    return found


def parents_from_ps() -> dict[int, int]:
    """Return every process with its parent, from ``ps``."""
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
    ps = os.posix_spawn("/bin/ps", ["ps", "-axo", "pid=,ppid="], {"PATH": os.defpath}, file_actions=actions)
    os.close(writer)
    with open(reader, encoding="ascii") as output:
        pairs = [line.split() for line in output]
    os.waitpid(ps, 0)
    return {int(pid): int(parent) for pid, parent in pairs if int(pid) != ps}


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _prctl() -> Prctl:
    import ctypes

    function: Prctl = ctypes.CDLL(None).prctl
    return function


def _limit_open_files(soft: int | None) -> None:  # pragma: no cover (it runs in a fork)
    if soft is not None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _let_go_of_streams() -> None:
    """Leave the program alone with its standard input and output; errors may still be ours to tell."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def main(arguments: list[str]) -> int:
    """Guard the program that *arguments* name; see the module."""
    life, keep, open_files, *argv = arguments
    try:
        os.setsid()
    except PermissionError:
        pass  # we were started as the leader of a session
    return Guard(int(life)).run(
        argv,
        [] if keep == "-" else [int(fd) for fd in keep.split(",")],
        None if open_files == "-" else int(open_files),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
