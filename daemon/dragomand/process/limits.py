"""What the kernel is told about this process: no core dumps, nobody looks inside, enough file descriptors.

`protect` decides two things that are worth knowing:

- The process is made *undumpable* (Linux). A core dump would hold the key and every prompt; a core pattern
  that is a pipe gets one in spite of a limit of 0. It also closes ``/proc/<pid>/environ`` and ``mem`` and
  `ptrace` to all processes but root's, above all to the tools that Claude Code runs as our own user: the
  daemon's environment may hold the API key. The price: most of ``/proc/<daemon>`` belongs to root, and a
  debugger needs root too. What we ourselves read of it (``stat``) stays open to all, and a program that is
  executed from here is dumpable again, so that no child is restricted.
- The core limit is set to 0, the soft one alone: Claude Code inherits it and holds a key as well, and the
  user's own tools can raise it again.
"""

import ctypes
import resource
import sys
from typing import NamedTuple

OPEN_FILES = 65_536
"""As many file descriptors are asked for, if the hard limit has them: far beyond 256 clients and their work,
and small enough for programs that walk through all numbers up to the limit."""

_PR_SET_DUMPABLE = 4
_MACOS_OPEN_MAX = 10_240


class Protection(NamedTuple):
    """What `protect` achieved, for the log."""

    undumpable: bool
    open_files: int
    """The soft limit now."""
    open_files_before: int
    """The soft limit that children should be given back."""


def protect(platform: str = sys.platform) -> Protection:
    """Switch core dumps off and raise the soft limit of open files; never raises for want of a permission."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Protection(_make_undumpable(platform), _raise_open_files(), before)


def _make_undumpable(platform: str) -> bool:
    if platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def _raise_open_files() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (OPEN_FILES, _MACOS_OPEN_MAX):
        target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= target:
            return soft
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (ValueError, OSError):  # macOS: a hard limit that it does not really grant
            continue
        return target
    return soft
