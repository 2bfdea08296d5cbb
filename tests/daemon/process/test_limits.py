import json
import resource
import subprocess
import sys
from typing import Any

import pytest
from dragomand.process import limits

PROTECTED = """
import ctypes, json, os, resource, subprocess, sys
from dragomand.process.limits import protect
resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
done = protect()
crashing = os.fork()
if crashing == 0:
    os.abort()
status = os.waitpid(crashing, 0)[1]
ask = "import ctypes; print(ctypes.CDLL(None).prctl(3))"
print(json.dumps({
    "done": done._asdict(),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "dumpable": ctypes.CDLL(None).prctl(3),
    "child": subprocess.check_output([sys.executable, "-S", "-c", ask], text=True).strip(),
    "stat": open(f"/proc/{os.getpid()}/stat").read() != "",
    "crashed": os.WIFSIGNALED(status),
    "core dumped": os.WCOREDUMP(status),
}))
"""


@pytest.fixture(scope="module")
def said() -> Any:
    """A process of its own is protected, crashes in a fork, and tells what it sees."""
    return json.loads(subprocess.check_output([sys.executable, "-c", PROTECTED], timeout=30))


def test_a_crash_leaves_no_core(said: dict[str, Any]) -> None:
    assert said["crashed"]
    assert not said["core dumped"]
    assert said["core"] == 0
    assert said["done"]["undumpable"] is True
    assert said["dumpable"] == 0


def test_what_we_start_is_not_restricted(said: dict[str, Any]) -> None:
    assert said["child"] == "1"
    assert said["stat"] is True


def test_open_files(said: dict[str, Any]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = limits.OPEN_FILES if hard == resource.RLIM_INFINITY else min(limits.OPEN_FILES, hard)
    assert said["files"] == wanted
    assert said["done"]["open_files"] == wanted
    assert said["done"]["open_files_before"] == 300


class Kernel:
    """A stand-in for other systems' kernels: limits that are granted only below `grants`."""

    def __init__(self, soft: int, hard: int, grants: int) -> None:
        self.limits = (soft, hard)
        self.grants = grants

    def getrlimit(self, _which: int) -> tuple[int, int]:
        return self.limits

    def setrlimit(self, which: int, wanted: tuple[int, int]) -> None:
        if which == resource.RLIMIT_NOFILE:
            if wanted[0] > self.grants:
                raise ValueError("current limit exceeds maximum limit")
            self.limits = wanted


@pytest.mark.parametrize(
    ("soft", "hard", "grants", "now"),
    [
        (256, resource.RLIM_INFINITY, 10_240, 10_240),  # macOS: the hard limit is not what is granted
        (256, resource.RLIM_INFINITY, 100_000, 65_536),
        (256, 4_096, 100_000, 4_096),
        (90_000, 100_000, 100_000, 90_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 0, resource.RLIM_INFINITY),
        (256, resource.RLIM_INFINITY, 300, 256),
    ],
)
def test_other_systems(soft: int, hard: int, grants: int, now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(soft, hard, grants)
    monkeypatch.setattr(resource, "getrlimit", kernel.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    assert limits.protect("darwin") == limits.Protection(False, now, soft)
    assert kernel.limits[0] == now
