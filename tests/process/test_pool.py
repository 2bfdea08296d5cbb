"""The pool of a real daemon: warm answers, nothing left after `kill -9`, and forty processes in disorder."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dragoman
import pytest
from dragoman import DragomanError
from dragoman_sim import remote

KEY = "sk-ant-api03-warm"
MANY = 40
STALL_MS = 90_000
RULES = [
    {"when": {"text": "wait"}, "reply": {"content": ["here ", {"type": "gate", "name": "held"}, "and done"]}}
]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what is left")


@pytest.fixture
def sim() -> Iterator[Any]:
    with remote.in_process(RULES) as sim:
        yield sim


@pytest.fixture
def warm_home(home: Any, sim: Any, tmp_path: Path) -> Any:
    """A home whose daemon keeps processes warm, with folders to work in."""
    home.env |= {
        "ANTHROPIC_BASE_URL": sim.url,
        "ANTHROPIC_API_KEY": KEY,
        "DRAGOMAN_POOL__MIN_FREE_MEMORY": "4096",
    }
    home.work = tmp_path / "work"
    home.work.mkdir()
    return home


def until_ready(client: dragoman.Client, count: int) -> Any:
    """Wait until so many spares are ready; nobody tells of that, so it is asked for."""
    until = time.monotonic() + 60
    while True:
        found = client.daemon_pool()
        if sum(spare.state == "ready" for spare in found.spares) >= count:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.05)


def test_the_next_query_is_warm_and_a_killed_daemon_leaves_no_spare(warm_home: Any, hold: Any) -> None:
    with dragoman.connect("warm", env=warm_home.env, scopes=["query", "admin"]) as client:
        assert client.query("hello", cwd=warm_home.work).start == "cold"
        until_ready(client, 2)
        second = client.query("hello", cwd=warm_home.work)
        assert second.start == "warm"
        assert client.query("again", session_id=second.session_id).text, "and can be continued"
        found = until_ready(client, 2)
        assert (found.warm, found.cold) == (1, 1)
        told = warm_home.dragoman("daemon", "pool")
        assert "1 conversations found a process waiting, 1 did not." in told.stdout
        assert f"ready for {warm_home.work}" in told.stdout
        assert "ready for any folder" in told.stdout
        pid = client.daemon_status().pid
        left = [hold(other) for other in warm_home.others(pid)]
        assert len(left) >= 4, "two spares, each under its guard"
        os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 6.0
    for process in left:
        with process:
            assert process.ended(max(0.0, until - time.monotonic()))


def test_stopped_in_order_it_takes_its_spares_along(warm_home: Any) -> None:
    with dragoman.connect("warm", env=warm_home.env, scopes=["query", "admin"]) as client:
        client.query("hello", cwd=warm_home.work)
        until_ready(client, 2)
        pid = client.daemon_status().pid
    assert warm_home.dragoman("daemon", "stop").returncode == 0
    assert warm_home.others(pid) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_forty_in_flight_and_a_third_of_them_killed_or_stopped(warm_home: Any, sim: Any) -> None:
    """Typed errors at once (or when the watchdog's time is over), the others untouched, nobody left."""
    warm_home.env |= {
        "DRAGOMAN_LIMITS__MAX_RUNNING": str(MANY),
        "DRAGOMAN_LIMITS__MAX_CALLS": str(MANY + 1),
        "DRAGOMAN_LIMITS__CALLS_AT_START": str(MANY + 1),
        "DRAGOMAN_CLAUDE__STALL_TIMEOUT_MS": str(STALL_MS),
        "DRAGOMAN_LIMITS__QUEUE_TIMEOUT_MS": "300000",
    }
    chance = random.Random(2026)
    ends: dict[int, tuple[float, Any]] = {}
    heard, ended = threading.Semaphore(0), threading.Semaphore(0)

    def one(client: dragoman.Client, number: int) -> None:
        try:
            with client.stream(f"wait {number}", cwd=warm_home.work) as events:
                for event in events:
                    if type(event).__name__ == "TextDelta" and event.text == "here ":
                        heard.release()
            ends[number] = time.monotonic(), events.result
        except DragomanError as error:
            ends[number] = time.monotonic(), error
        ended.release()

    with dragoman.connect("many", env=warm_home.env, scopes=["query", "admin"]) as client:
        pid = client.daemon_status().pid
        threads = [threading.Thread(target=one, args=(client, number)) for number in range(MANY)]
        for thread in threads:
            thread.start()
        for _ in range(MANY):
            assert heard.acquire(timeout=300)
        clis = sorted(other for other in warm_home.others(pid) if is_claude(other))
        assert len(clis) >= MANY
        victims = chance.sample(clis, MANY // 3)
        killed = victims[: len(victims) // 2]
        stopped = victims[len(victims) // 2 :]
        began = time.monotonic()
        for victim in killed:
            os.kill(victim, signal.SIGKILL)
        for victim in stopped:
            os.kill(victim, signal.SIGSTOP)
        for _ in killed:
            assert ended.acquire(timeout=20)
        last = max(at for at, _ in ends.values()) - began
        assert last < 10, "at once, on a busy machine"
        print(f"{len(killed)} killed: the last typed error after {last:.2f} s")
        sim.gate("held", "open")
        deadline = time.monotonic() + STALL_MS / 1000 + 30
        for _ in range(MANY - len(killed)):
            assert ended.acquire(timeout=max(0.1, deadline - time.monotonic()))
        for thread in threads:
            thread.join(10)
        assert len(ends) == MANY
        errors = [end for _, end in ends.values() if isinstance(end, DragomanError)]
        kinds = sorted(error.kind for error in errors)
        expected = ["claude_crashed"] * len(killed) + ["upstream_overloaded"] * len(stopped)
        assert kinds == expected
        found = client.daemon_pool()
        assert len(found.spares) <= found.max_spare
        assert client.query("hello", cwd=warm_home.work).text
    assert warm_home.dragoman("daemon", "stop").returncode == 0
    assert warm_home.others(pid) == []


def is_claude(pid: int) -> bool:
    """Whether it is the CLI itself, no guard."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"/claude")
    except OSError:
        return False
