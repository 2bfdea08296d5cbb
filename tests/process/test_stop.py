"""How the real daemon ends: by signal, by idleness, and what its clients see of it."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from dragoman.locate import connect, read_record

PHASES = [
    "stopping: 1 no new connections",
    "stopping: 2 draining",
    "stopping: 3 grace",
    "stopping: 4 cancelling",
    "stopping: 5 flushing",
    "stopping: 6 closing the store",
    "stopped",
]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_in_six_phases(home: Any, converse: Callable[..., Any], number: int) -> None:
    process, word = home.foreground()
    assert word["ready"] is True
    client = converse(connect(home.paths))
    assert client.ask("initialize")["result"]["serverInfo"]["name"] == "dragoman"
    process.send_signal(number)
    assert client.ended()
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    said = home.said()
    assert [message for message in said if message in PHASES] == PHASES
    assert said.index("ready") < said.index(PHASES[0])
    assert not os.path.exists(home.paths.socket)
    assert read_record(home.paths) == {}


def test_it_leaves_when_nobody_has_needed_it(home: Any, hold: Any, converse: Callable[..., Any]) -> None:
    home.env["DRAGOMAN_DAEMON__IDLE_EXIT_MS"] = "50"
    client = converse(connect_started(home))
    client.ask("initialize")
    with hold(read_record(home.paths)["pid"]) as daemon:
        assert not daemon.ended(0.3), "a connection keeps it"
        client.close()
        daemon.wait()
    assert not os.path.exists(home.paths.socket)
    assert read_record(home.paths) == {}
    idle = [line for line in home.log() if line.get("idle")]
    assert len(idle) == 1
    assert home.said()[-1] == "stopped"


def connect_started(home: Any) -> Any:
    """Start the daemon and connect in one step, so that it has no moment to leave in between."""
    from dragoman.launch import ensure_daemon

    return ensure_daemon(home.paths, home.env, 60)


def test_clients_come_and_go_while_it_leaves_all_the_time(home: Any, converse: Callable[..., Any]) -> None:
    """With no patience at all, a daemon is always just leaving: nobody's request is lost to that."""
    home.env["DRAGOMAN_DAEMON__IDLE_EXIT_MS"] = "1"
    for _ in range(8):
        process = home.stdio()
        said, complaints = process.communicate(
            b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n', timeout=60
        )
        assert b'"serverInfo"' in said, complaints
        assert process.returncode == 0


def test_a_hang_up_opens_the_log_anew(home: Any, converse: Callable[..., Any], hold: Any) -> None:
    pid = home.locate()["pid"]
    os.rename(home.paths.log_file, home.paths.log_file + ".moved")
    os.kill(pid, signal.SIGHUP)
    client = converse(connect(home.paths))
    client.ask("initialize")  # answered after the signal was
    client.close()
    home.kill(signal.SIGTERM)
    assert home.said()[-1] == "stopped"
    assert PHASES[0] in home.said()


def test_a_terminal_that_closes_does_not_end_it(home: Any, converse: Callable[..., Any]) -> None:
    pid = home.locate()["pid"]
    os.kill(pid, signal.SIGHUP)
    client = converse(connect(home.paths))
    assert "result" in client.ask("initialize")
    assert home.locate()["pid"] == pid
