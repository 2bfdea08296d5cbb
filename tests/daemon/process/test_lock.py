import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dragoman.locate import Paths, read_record
from dragomand.process.identity import is_alive
from dragomand.process.lock import InstanceLock, LockedError

HOLD = """
import os, signal, socket, sys
from dragoman.locate import Paths
from dragomand.process.lock import InstanceLock
lock = InstanceLock.acquire(Paths(*sys.argv[1:4]))
called = []
def bind(*_):
    called.append(1)
    if sys.argv[4] == "binds":
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(lock.paths.socket)
        listening.listen()
        called.append(listening)
signal.signal(signal.SIGHUP, bind)
lock.record("/somewhere/rpc.sock", "9")
if sys.argv[4] == "leaves":
    lock.leaving()
print("held", flush=True)
sys.stdin.read()
if len(called) == 2:
    os.unlink(lock.paths.socket)
lock.release()
print("called", len(called[:1]), flush=True)
print("released", flush=True)
sys.stdin.close()
"""

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold(paths: Paths) -> Iterator[Hold]:
    """Start another process that holds the lock until its stdin ends.

    When it is called (SIGHUP) it "stays" as it is, or "binds" its socket; if it "leaves" it must not be.
    """
    started: list[subprocess.Popen[str]] = []

    def hold(when_called: str = "stays") -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, paths.state_dir, paths.runtime_dir, paths.config_file,
             when_called],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.communicate(timeout=10)


def test_the_record_tells_who_holds_it(paths: Paths) -> None:
    lock = InstanceLock.acquire(paths)
    entry = lock.record("/r/rpc.sock", "1.2")
    assert read_record(paths) == entry
    assert entry["pid"] == os.getpid()
    assert entry["socket"] == "/r/rpc.sock"
    assert entry["version"] == "1.2"
    assert is_alive(os.getpid(), str(entry["startTime"]))
    assert os.stat(paths.lock_file).st_mode & 0o777 == 0o600
    lock.record("/r", "1")
    assert read_record(paths)["socket"] == "/r"
    lock.release()
    lock.release()
    assert read_record(paths) == {}
    assert os.path.exists(paths.lock_file)


def test_a_second_daemon_is_told_who_holds_it(paths: Paths, hold: Hold) -> None:
    holder = hold()
    with pytest.raises(LockedError, match=rf"process {holder.pid}, socket /somewhere.*dragoman daemon stop"):
        InstanceLock.acquire(paths, wait_ms=0)
    with pytest.raises(LockedError, match=f"process {holder.pid}"):
        InstanceLock.acquire(paths, wait_ms=30)
    assert read_record(paths)["pid"] == holder.pid


def test_one_that_listens_is_not_waited_for(paths: Paths, hold: Hold) -> None:
    holder = hold()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(paths.socket)
        listening.listen()
        with pytest.raises(LockedError, match=rf"A daemon is running already \(process {holder.pid}, socket"):
            InstanceLock.acquire(paths, wait_ms=3_600_000)


def test_one_that_lost_its_socket_is_called_back(paths: Paths, hold: Hold) -> None:
    holder = hold("binds")
    with pytest.raises(LockedError, match=rf"A daemon is running already \(process {holder.pid}, socket"):
        InstanceLock.acquire(paths, wait_ms=3_600_000)
    assert "called 1" in holder.communicate(timeout=10)[0]


def test_one_that_is_leaving_is_not_called_back(paths: Paths, hold: Hold) -> None:
    holder = hold("leaves")
    assert read_record(paths)["socket"] is None
    with pytest.raises(LockedError, match=f"process {holder.pid}"):
        InstanceLock.acquire(paths, wait_ms=30)
    assert "called 0" in holder.communicate(timeout=10)[0]


def test_nobody_but_the_holder_is_called(paths: Paths, hold: Hold) -> None:
    """A process with the number of one that is dead is somebody else's."""
    holder = hold()
    record = read_record(paths)
    Path(paths.lock_file).write_text(json.dumps({**record, "startTime": "before"}))
    with pytest.raises(LockedError):
        InstanceLock.acquire(paths, wait_ms=30)
    assert "called 0" in holder.communicate(timeout=10)[0]


def test_a_full_disk_leaves_no_record(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    lock = InstanceLock.acquire(paths)
    lock.record("/before", "1")
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        assert lock.record("/r/rpc.sock", "1")["socket"] == "/r/rpc.sock"
        assert read_record(paths) == {}
        patched.setattr(os, "pwrite", lambda *_: 3)  # it became full in the middle
        lock.record("/r/rpc.sock", "1")
        assert read_record(paths) == {}
    lock.release()


def test_leaving_without_a_record(paths: Paths) -> None:
    lock = InstanceLock.acquire(paths)
    lock.leaving()
    assert read_record(paths) == {}
    lock.release()


def test_it_waits_for_one_that_is_leaving(paths: Paths, hold: Hold) -> None:
    holder = hold("leaves")
    assert holder.stdin is not None
    # Released by a thread once the timer of the wait is armed: only then is this test about waiting.
    armed = threading.Event()
    real = signal.setitimer

    def arm(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
        armed.set()
        return real(which, seconds, interval)

    def leave() -> None:
        armed.wait(10)
        holder.stdin.close()  # type: ignore[union-attr]

    before = signal.getsignal(signal.SIGALRM)
    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(signal, "setitimer", arm)
        lock = InstanceLock.acquire(paths, wait_ms=20_000)
    thread.join(10)
    assert armed.is_set()
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    lock.release()
    holder.stdin = None


def test_it_goes_with_a_killed_process(paths: Paths, hold: Hold) -> None:
    holder = hold()
    holder.kill()
    assert holder.wait(10) == -signal.SIGKILL
    assert read_record(paths)["pid"] == holder.pid
    lock = InstanceLock.acquire(paths, wait_ms=0)
    assert read_record(paths) == {}  # the record outlived its daemon, and is not the new one's
    lock.record("/r", "1")
    assert read_record(paths)["pid"] == os.getpid()
    lock.release()


def test_no_child_that_is_executed_inherits_it(paths: Paths) -> None:
    lock = InstanceLock.acquire(paths)
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    lock.release()
    InstanceLock.acquire(paths, wait_ms=0).release()
    child.communicate(timeout=10)


def test_a_link_in_the_lock_s_place_is_not_followed(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    os.symlink(tmp_path / "elsewhere", paths.lock_file)
    with pytest.raises(OSError, match="Too many levels"):
        InstanceLock.acquire(paths)
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_the_holder_of_an_unwritten_record(paths: Paths) -> None:
    lock = InstanceLock.acquire(paths)
    with pytest.raises(LockedError, match="process None"):
        InstanceLock.acquire(paths, wait_ms=0)
    lock.release()


def test_a_reader_sees_a_whole_record_or_none(paths: Paths) -> None:
    lock = InstanceLock.acquire(paths)
    lock.record("/a/rather/long/path/" * 20, "1")
    lock.record("/short", "1")
    assert json.loads(Path(paths.lock_file).read_text())["socket"] == "/short"
    lock.release()
