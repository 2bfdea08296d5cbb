"""Stopping what is not so easily stopped: processes of our own stand in for the daemon."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.cli import stopping
from dragoman.cli.stopping import Running, StillRunningError, find_running, stop, watch
from dragoman.errors import BusyError
from dragoman_protocol.lifecycle import DaemonStopResult

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
LOCKED = """
import fcntl, json, os, signal, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(file, fcntl.LOCK_EX)
os.write(file, json.dumps({"pid": os.getpid(), "socket": sys.argv[2] or None}).encode())
print(flush=True)
signal.pause()
"""


@pytest.fixture
def begun() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate(timeout=30)


def begin(begun: list[subprocess.Popen[str]], code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process and wait until it is ready."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    begun.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_the_end_of_a_process(begun: list[subprocess.Popen[str]]) -> None:
    process = begin(begun, STUBBORN)
    with watch(process.pid) as ended:
        assert not ended(0)
        process.kill()
        assert ended(20)
    process.wait(20)
    with watch(process.pid) as ended:
        assert ended(0)


def test_a_daemon_without_a_socket_is_named_by_the_lock_it_holds(
    place: Any, begun: list[subprocess.Popen[str]]
) -> None:
    paths = place.paths
    os.makedirs(paths.state_dir, mode=0o700)
    assert find_running(paths) is None
    process = begin(begun, LOCKED, paths.lock_file, paths.socket)
    running = find_running(paths)
    assert running is not None
    assert (running.pid, running.socket, running.leaving) == (process.pid, None, False)
    stop(paths, running, grace_ms=None, timeout_s=20, kill=False)
    assert process.wait(20) == -signal.SIGTERM
    assert find_running(paths) is None  # the record is still there, the lock is free
    Path(paths.lock_file).unlink()
    assert not stopping._is_locked(paths)


def test_one_that_is_leaving(
    run: Callable[..., Any], home: Any, begun: list[subprocess.Popen[str]]
) -> None:
    os.makedirs(home.paths.state_dir, mode=0o700)
    process = begin(begun, LOCKED, home.paths.lock_file, "")
    text = f"The daemon (process {process.pid}) is stopping; it finishes what runs.\n"
    assert run("daemon", "status") == (0, text, "")
    assert json.loads(run("daemon", "status", "--json").out) == {"state": "draining", "pid": process.pid}


def test_one_that_is_gone_already(place: Any, begun: list[subprocess.Popen[str]]) -> None:
    process = begin(begun, STUBBORN)
    process.kill()
    process.wait(20)
    stop(place.paths, Running(process.pid, None), grace_ms=None, timeout_s=20, kill=False)
    stop(place.paths, Running(process.pid, place.paths.socket), grace_ms=None, timeout_s=20, kill=False)


def test_one_that_does_not_end(place: Any, begun: list[subprocess.Popen[str]]) -> None:
    process = begin(begun, STUBBORN)
    running = Running(process.pid, None)
    with pytest.raises(StillRunningError, match=r"not ended after 0.05 s.*--kill"):
        stop(place.paths, running, grace_ms=None, timeout_s=0.05, kill=False)
    stop(place.paths, running, grace_ms=None, timeout_s=0.05, kill=True)
    assert process.wait(20) == -signal.SIGKILL


def test_one_that_says_it_stops_and_is_given_its_grace(
    place: Any, scripted: Any, begun: list[subprocess.Popen[str]]
) -> None:
    process = begin(begun, STUBBORN)
    scripted.listen(place.paths.socket)

    def end(connection: Any, request: Any, params: dict[str, Any]) -> None:
        connection.respond(request, DaemonStopResult(stopping=True, running=0))
        process.kill()

    scripted.on("daemon/stop", end)
    running = Running(process.pid, place.paths.socket)
    stop(place.paths, running, grace_ms=7000, timeout_s=20, kill=False)
    assert scripted.requests[-1] == ("daemon/stop", {"graceMs": 7000})
    assert scripted.requests[0][1]["scopes"] == ["admin"]


def test_one_that_closes_without_a_word(
    place: Any, scripted: Any, begun: list[subprocess.Popen[str]]
) -> None:
    process = begin(begun, STUBBORN)
    scripted.listen(place.paths.socket)

    def end(connection: Any, request: Any, params: dict[str, Any]) -> None:
        process.kill()
        connection.close()

    scripted.on("daemon/stop", end)
    stop(place.paths, Running(process.pid, place.paths.socket), grace_ms=None, timeout_s=20, kill=False)


def test_one_that_does_not_answer(
    place: Any, scripted: Any, begun: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "ANSWER_S", 0.1)
    scripted.listen(place.paths.socket)
    scripted.holds("initialize")
    scripted.holds("daemon/stop")
    process = begin(begun, STUBBORN)
    running = Running(process.pid, place.paths.socket)
    with pytest.raises(BusyError, match=rf"\(process {process.pid}\) does not answer"):
        stop(place.paths, running, grace_ms=None, timeout_s=20, kill=False)
    assert process.poll() is None


def test_one_that_cannot_even_be_killed(
    place: Any, begun: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "ANSWER_S", 0.05)
    monkeypatch.setattr(signal, "SIGKILL", 0)
    process = begin(begun, STUBBORN)
    with pytest.raises(StillRunningError, match="even when killed"):
        stop(place.paths, Running(process.pid, None), grace_ms=None, timeout_s=0.05, kill=True)


class Queue:
    """A stand-in for macOS's kernel queue, which cannot be had here: says that process 7 ends when asked."""

    def __init__(self) -> None:
        self.watched: list[Any] = []
        self.closed = False

    def control(self, changes: Any, count: int, seconds: float | None = None) -> list[str]:
        for change in changes or ():
            if change[0] != 7:
                raise ProcessLookupError
            self.watched.append(change)
        return ["end"] if count and seconds else []

    def close(self) -> None:
        self.closed = True


def test_the_end_of_a_process_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue()
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(select, "kqueue", lambda: queue, raising=False)
    monkeypatch.setattr(select, "kevent", lambda *what: what, raising=False)
    for number, name in enumerate(("KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_NOTE_EXIT")):
        monkeypatch.setattr(select, name, number, raising=False)
    with watch(7) as ended:
        assert queue.watched == [(7, 0, 1, 2)]
        assert not ended(0)
        assert ended(1)
    assert queue.closed
    with watch(8) as ended:
        assert ended(0)
