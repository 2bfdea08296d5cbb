"""How much memory processes hold, and how much there is left.

Linux only; elsewhere everything is unknown (None) and whoever asks does without. What is counted of a
process is what ending it would give back: resident pages that it shares with nobody's files.
"""

import asyncio
import contextlib
import os
import select
from collections.abc import Callable

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CGROUP = "/sys/fs/cgroup"
_PRESSURE = "/proc/pressure/memory"
_TRIGGER = b"some 200000 2000000"
"""Some task has waited for memory for 0.2 s of 2 s; such windows an ordinary user may ask for."""


def held_bytes(pid: int) -> int | None:
    """Return what *pid* and its descendants hold; None if it is gone or this system does not tell."""
    own = _private(pid)
    if own is None:
        return None
    for child in _children(pid):
        own += held_bytes(child) or 0
    return own


def descendants_of(pid: int) -> list[int] | None:
    """Return all processes below *pid*; None where this system does not tell."""
    if _private(pid) is None:
        return None
    below = _children(pid)
    return below + [each for child in below for each in descendants_of(child) or ()]


def available_bytes() -> int | None:
    """Return how much memory new processes may take: the machine's, or less if our group has a bound."""
    free = [each for each in (_machine(), _group()) if each is not None]
    return min(free, default=None)


class PressureWatch:
    """Calls back when the kernel says that memory is short; on systems that do not say so, never."""

    def __init__(
        self, on_pressure: Callable[[], None], path: str = _PRESSURE, trigger: bytes = _TRIGGER
    ) -> None:
        """Watch from now on, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._on_pressure = on_pressure
        self._fd = -1
        self._poll: select.epoll | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._fd, trigger + b"\0")
            # The loop watches for input only; an epoll of its own turns "urgent" into "readable".
            self._poll = select.epoll()
            self._poll.register(self._fd, select.EPOLLPRI)
            self._loop.add_reader(self._poll.fileno(), self._woken)
            return
        self.close()

    @property
    def works(self) -> bool:
        """Whether this system tells."""
        return self._poll is not None

    def close(self) -> None:
        """Watch no longer. Can be repeated."""
        if self._poll is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _woken(self) -> None:
        if self._poll is not None and self._poll.poll(0):
            self._on_pressure()


def _private(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * _PAGE


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(each) for each in file.read().split()]
    except OSError:
        return []


def _machine() -> int | None:
    try:
        with open("/proc/meminfo", "rb") as file:
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None


def _group(folder: str = _CGROUP) -> int | None:
    try:
        with open(os.path.join(folder, "memory.max"), "rb") as file:
            most = file.read().strip()
        with open(os.path.join(folder, "memory.current"), "rb") as file:
            return None if most == b"max" else max(0, int(most) - int(file.read()))
    except (OSError, ValueError):
        return None
