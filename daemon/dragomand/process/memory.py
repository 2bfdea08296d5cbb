"""How much memory processes hold, and how much there is left.

Linux only; elsewhere everything is unknown (None) and whoever asks does without. What is counted of a
process is what ending it would give back: resident pages that it shares with nobody's files.

That memory is short is the kernel's word (`PressureWatch`). In a container it may not give it; there
`SampledWatch` looks at what is free, once in ten seconds, and only while something could be given back: a
daemon without a Claude Code process is not woken for it.
"""

import asyncio
import contextlib
import os
import select
from collections.abc import Callable

from dragomand.process import guard

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CHILDREN = "/proc/{pid}/task/{thread}/children"
_CGROUP = "/sys/fs/cgroup"
_PRESSURE = "/proc/pressure/memory"
_TRIGGER = b"some 200000 2000000"
"""Some task has waited for memory for 0.2 s of 2 s; such windows an ordinary user may ask for."""

SAMPLE_S = 10.0
"""How often, in seconds, it is looked at what is free where the kernel does not tell: 60 µs each time."""


def held_bytes(pid: int) -> int | None:
    """Return what *pid* and its descendants hold; None if it is gone or this system does not tell."""
    own, below = _private(pid), descendants_of(pid)
    if own is None or below is None:
        return None
    return own + sum(_private(each) or 0 for each in below)


def descendants_of(pid: int) -> list[int] | None:
    """Return all processes below *pid*; None where this system does not tell."""
    if _private(pid) is None:
        return None
    if not os.path.exists(_CHILDREN.format(pid=os.getpid(), thread=os.getpid())):  # some kernels leave it out
        return guard.descendants(pid, guard.parents_from_proc())
    below = children_of(pid)
    for each in below:
        below += children_of(each)
    return below


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

    def begin(self) -> None:
        """There is something now that could be given back: the kernel tells anyway."""

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


class SampledWatch:
    """Calls back when little memory is free. For systems that say nothing of pressure."""

    def __init__(
        self,
        on_pressure: Callable[[], None],
        least_bytes: int,
        worth: Callable[[], bool],
        *,
        available: Callable[[], int | None] = available_bytes,
        every_s: float = SAMPLE_S,
    ) -> None:
        """Call back while less than *least_bytes* are free; `begin` begins, and it ends once not *worth*."""
        self._on_pressure = on_pressure
        self._least_bytes = least_bytes
        self._worth = worth
        self._available = available
        self._every_s = every_s
        self._timer: asyncio.TimerHandle | None = None

    @property
    def looks(self) -> bool:
        """Whether it is going to look again."""
        return self._timer is not None

    def begin(self) -> None:
        """There is something now that could be given back. Can be repeated."""
        if self._timer is None and self._every_s > 0:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._look)

    def close(self) -> None:
        """Watch no longer. Can be repeated."""
        self._every_s = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._worth():
            return
        free = self._available()
        if free is not None and free < self._least_bytes:
            self._on_pressure()
        self.begin()


def watch_memory(
    on_pressure: Callable[[], None], least_bytes: int, worth: Callable[[], bool]
) -> PressureWatch | SampledWatch:
    """Watch memory as this system allows it; see the classes for what is asked."""
    watch = PressureWatch(on_pressure)
    return watch if watch.works else SampledWatch(on_pressure, least_bytes, worth)


def _private(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * _PAGE


def children_of(pid: int) -> list[int]:
    """Return the children of *pid*, oldest first for each thread of it that has any; none if unknown."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(_CHILDREN.format(pid=pid, thread=thread), "rb") as file:
                found += map(int, file.read().split())
    return found


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
