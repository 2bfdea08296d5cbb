"""`dragoman daemon` with the real daemon."""

import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
from dragoman.cli import daemon, stopping


def told(run: Callable[..., Any], *arguments: str, status: int = 0) -> dict[str, Any]:
    done = run("daemon", *arguments, "--json")
    assert (done.status, done.err) == (status, "")
    (line,) = done.out.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


def is_alive(pid: int) -> bool:
    with stopping.watch(pid) as ended:
        return not ended(0)


def test_a_whole_life(run: Callable[..., Any], home: Any) -> None:
    socket = home.paths.socket
    assert told(run, "status", status=3) == {"state": "stopped", "socket": socket}
    started = told(run, "start")
    assert started == {"started": True, "socket": socket, "pid": started["pid"], "version": "0.1.0"}
    assert told(run, "start") == {**started, "started": False}
    status = told(run, "status")
    assert (status["state"], status["pid"], status["running"]) == ("running", started["pid"], 0)
    assert json.loads(run("locate").out) == {"socket": socket, "pid": started["pid"], "version": "0.1.0"}
    again = told(run, "restart")
    assert (again["started"], again["stopped"]) == (True, True)
    assert again["pid"] != started["pid"]
    assert not is_alive(started["pid"])
    assert told(run, "logs", "-n", "1")["file"] == home.paths.log_file
    assert told(run, "stop", "--grace", "1") == {"stopped": True, "pid": again["pid"]}
    assert not is_alive(again["pid"])
    assert told(run, "stop") == {"stopped": False}


def test_for_people(run: Callable[..., Any], home: Any) -> None:
    assert run("daemon", "status") == (3, "There is no daemon.\n", "")
    assert run("daemon", "stop") == (0, "There was no daemon.\n", "")
    assert re.fullmatch(
        r"There was no daemon.\nStarted: process \d+, socket .*\n", run("daemon", "restart").out
    )
    assert run("daemon", "start").out.startswith("Already running: process ")
    status = run("daemon", "status").out
    assert re.match(
        r"Daemon 0.1.0, process \d+, running for \d+ s.\n1 connection, 0 turns running, ", status
    )
    assert re.fullmatch(r"Stopped: process \d+\n", run("daemon", "stop").out)


def test_a_daemon_that_does_not_start(
    run: Callable[..., Any], home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGOMAN_DAEMON__IDLE_EXIT_MS", "soon")
    done = run("daemon", "start")
    assert (done.status, done.out) == (69, "")
    assert "DRAGOMAN_DAEMON__IDLE_EXIT_MS" in done.err


def test_what_is_kept_warm(run: Callable[..., Any]) -> None:
    assert told(run, "pool", status=3) == {"state": "stopped"}
    told(run, "start")
    assert told(run, "pool")["maxSpare"] == 2
    assert run("daemon", "pool").out.splitlines() == [
        "0 conversations found a process waiting, 0 did not.",
        "0 of at most 2 processes wait:",
    ]


class TestFrozen:
    """A daemon that has stopped running, and yet is there."""

    @pytest.fixture
    def pid(self, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(stopping, "ANSWER_S", 1.5)
        pid = told(run, "start")["pid"]
        os.kill(pid, signal.SIGSTOP)
        yield pid
        if is_alive(pid):
            os.kill(pid, signal.SIGCONT)

    def test_status_says_so(self, run: Callable[..., Any], pid: int) -> None:
        assert told(run, "status", status=69) == {"state": "frozen", "pid": pid}
        done = run("daemon", "status")
        assert f"(process {pid}) does not answer" in done.out

    def test_stop_says_so_and_can_end_it_by_force(self, run: Callable[..., Any], pid: int) -> None:
        done = run("daemon", "stop")
        assert (done.status, done.out) == (69, "")
        assert "dragoman daemon stop --kill" in done.err
        assert is_alive(pid)
        assert told(run, "stop", "--kill") == {"stopped": True, "pid": pid}
        assert not is_alive(pid)
        assert told(run, "start")["started"] is True


def test_a_daemon_whose_socket_was_removed(run: Callable[..., Any], home: Any) -> None:
    pid = told(run, "start")["pid"]
    os.unlink(home.paths.socket)
    assert told(run, "status", status=69) == {"state": "frozen", "pid": pid}
    assert "calls it back: dragoman daemon start" in run("daemon", "status").out
    assert told(run, "start")["pid"] == pid
    os.unlink(home.paths.socket)
    assert told(run, "stop") == {"stopped": True, "pid": pid}
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (90, "1.5 min"), (5400, "1.5 h"), (129600, "1.5 d")]
)
def test_spans(seconds: float, text: str) -> None:
    assert daemon._span(seconds) == text
