import builtins
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from dragomand.process import identity
from dragomand.process.identity import ancestors, is_alive, is_dying, start_time

CAT = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def child() -> Any:
    process = subprocess.Popen(CAT, stdin=subprocess.PIPE)
    yield process
    process.communicate(timeout=10)


def test_it_stays_the_same_for_a_process_s_life(child: Any) -> None:
    started = start_time(child.pid)
    assert started is not None
    assert started == start_time(child.pid)
    assert is_alive(child.pid, started)
    assert not is_alive(child.pid, started + "0")


def test_a_zombie_still_has_one_and_a_dead_process_none() -> None:
    process = subprocess.Popen(CAT, stdin=subprocess.PIPE)
    started = start_time(process.pid)
    assert started is not None
    process.kill()
    assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is not None
    assert is_alive(process.pid, started)
    process.communicate(timeout=10)
    assert start_time(process.pid) is None
    assert not is_alive(process.pid, started)


def test_a_name_full_of_parentheses_does_not_confuse_it(child: Any) -> None:
    code = (
        "import sys\n"
        "open('/proc/self/comm', 'w').write(') S 1 (x ) 2')\n"
        "from dragomand.process.identity import start_time\n"
        "import os; print(start_time(os.getpid()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    boot, _, ticks = done.stdout.strip().partition(":")
    mine = start_time(child.pid)
    assert mine is not None
    assert boot == mine.partition(":")[0]
    assert int(ticks) >= int(mine.partition(":")[2])


def test_elsewhere_ps_is_asked(child: Any) -> None:
    """The way of macOS; `ps` understands the same here."""
    started = start_time(child.pid, "darwin")
    assert started is not None
    assert len(started.split()) == 5
    assert started == start_time(child.pid, "darwin")
    assert start_time(2**22 + 1, "darwin") is None


def test_a_container_that_hides_the_boot_s_id(child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.open

    def hidden(path: Any, *args: Any, **kwargs: Any) -> Any:
        if "boot_id" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(identity, "open", hidden, raising=False)
    started = start_time(child.pid)
    assert started is not None
    assert started.startswith("boot:")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_who_is_dying() -> None:
    assert not is_dying(os.getpid())
    with subprocess.Popen(["/bin/sh", "-c", "read x"], stdin=subprocess.PIPE) as shell:
        assert not is_dying(shell.pid)
        os.kill(shell.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, shell.pid, os.WSTOPPED | os.WNOWAIT)
        assert not is_dying(shell.pid), "stopped, it can go on"
        os.kill(shell.pid, signal.SIGKILL)  # between its taking the signal and its exit nothing tells of it
        os.waitid(os.P_PID, shell.pid, os.WEXITED | os.WNOWAIT)
        assert is_dying(shell.pid), "a zombie"
    assert is_dying(shell.pid), "gone"


def test_whom_a_process_descends_from(child: Any) -> None:
    found = ancestors(child.pid, "linux") if sys.platform == "linux" else [os.getpid()]
    assert found[0] == os.getpid()
    assert ancestors(child.pid, "darwin") == []
    child.communicate(timeout=10)
    assert ancestors(child.pid, "linux") == []
