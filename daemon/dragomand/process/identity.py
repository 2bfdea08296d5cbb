"""Which process is it: pid and start time, because a pid alone is used again.

The start time is an opaque string, comparable only with itself. It holds across a reboot too: on Linux it
includes the boot's id.
"""

import os
import subprocess
import sys

_PF_EXITING = 0x4
_SIGKILL_PENDING = 1 << 8
MOST_ANCESTORS = 64


def start_time(pid: int, platform: str = sys.platform) -> str | None:
    """Return the start time of process `pid`, or None if there is no such process.

    A zombie still has one. Linux: the boot id and field 22 of ``/proc/<pid>/stat`` (clock ticks since boot);
    elsewhere what ``ps -o lstart=`` prints (a second's resolution).
    """
    if platform != "linux":
        return _from_ps(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the program's name in parentheses, may itself contain spaces and parentheses.
    ticks = stat[stat.rindex(b")") + 2 :].split()[19].decode()
    return f"{_boot_id()}:{ticks}"


def is_alive(pid: int, started: str) -> bool:
    """Tell whether process `pid` exists and is the one that started at `started`."""
    return start_time(pid) == started


def is_dying(pid: int) -> bool:
    """Tell whether process `pid` is ending, or was killed and only has not noticed it yet. Linux; else False.

    A big process takes some ten milliseconds to end, and its pipes are open for that long.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return sys.platform == "linux"
    fields = stat[stat.rindex(b")") + 2 :].split()
    state, flags, pending = fields[0], int(fields[6]), int(fields[28])
    return state in b"ZX" or bool(flags & _PF_EXITING) or bool(pending & _SIGKILL_PENDING)


def ancestors(pid: int, platform: str = sys.platform) -> list[int]:
    """Return the processes that `pid` descends from, its parent first; only on Linux, elsewhere none.

    One whose parent has ended descends from whoever took it over.
    """
    found: list[int] = []
    while platform == "linux" and len(found) < MOST_ANCESTORS:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                stat = file.read()
        except OSError:  # it has ended
            break
        pid = int(stat[stat.rindex(b")") + 2 :].split()[1])
        if pid <= 1:
            break
        found.append(pid)
    return found


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(8)
    except OSError:  # hidden in some containers
        return "boot"


def _from_ps(pid: int) -> str | None:
    environment = {"LC_ALL": "C", "PATH": os.defpath}
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=5)
    return " ".join(done.stdout.decode().split()) or None
