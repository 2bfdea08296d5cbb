"""`kill -9` of the daemon in the middle of a turn, again and again.

Each time: the next daemon is up at once, every event that a client had been told of is stored, the turn is
shown as interrupted with a terminal event, and no Claude Code process (nor a tool's) is left.
"""

import os
import random
import select
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dragoman
import pytest
from dragoman import DragomanError, locate
from dragoman.launch import ensure_daemon
from dragoman_protocol.stream import TextDelta, ToolUse, TurnStarted
from dragoman_sim import remote

KEY = "sk-ant-api03-killed"
RULES = [
    {
        "when": {"text": "talk"},
        "reply": {"content": ["one two three four ", {"type": "gate", "name": "never"}, "five"]},
    },
    {
        "when": {"text": "work"},
        "reply": [
            {
                "content": [
                    {
                        "type": "tool_use",
                        "name": "Bash",
                        "input": {"command": "(setsid sleep 300 &) ; sleep 300"},
                    }
                ]
            },
            {"content": ["Done."]},
        ],
    },
]
POINTS = {"started": TurnStarted, "talking": TextDelta, "working": ToolUse}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what is left")


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    for name in ("home", "run", "work"):
        (tmp_path / name).mkdir(mode=0o700)
    with remote.in_process(RULES) as sim:
        kept = {
            name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE")
        }
        env = {
            **kept,
            "HOME": str(tmp_path / "home"),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "ANTHROPIC_BASE_URL": sim.url,
            "ANTHROPIC_API_KEY": KEY,
            "DRAGOMAN_LIMITS__QUERIES_PER_MINUTE": "0",  # kills are no way round it, and there are many here
        }
        yield env
        pid = locate.read_record(locate.find_paths(env)).get("pid")
        if isinstance(pid, int):
            os.kill(pid, signal.SIGTERM)
            wait_for_end(pid)


def wait_for_end(pid: int, seconds: float = 20.0) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor):
        return bool(select.select([descriptor], [], [], seconds)[0])


def processes_of(home: str, but: int) -> list[int]:
    """Whoever runs with this HOME, the daemon *but* and its starter's waiting half excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != but:
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"HOME={home}".encode() in environment and b"dragomand" not in command.split(b"\0")[:5]:
                found.append(int(entry.name))
    return found


def one_cycle(env: dict[str, str], work: Path, point: str) -> float:
    """Kill the daemon at *point* of a turn and check everything; returns the next start's seconds."""
    told: list[int] = []
    session = ""
    with dragoman.connect("victim", env=env, on_permission=lambda _asked: True) as client:
        pid = client.daemon_status().pid
        prompt = "work" if point == "working" else "talk"
        with pytest.raises(DragomanError), client.stream(prompt, cwd=work) as events:  # noqa: PT012
            for event in events:
                assert events.last is not None
                session = events.last.session_id
                if events.last.seq is not None:
                    told.append(events.last.seq)
                if isinstance(event, POINTS[point]):
                    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid)
    began = time.monotonic()
    ensure_daemon(locate.find_paths(env), env).close()
    took = time.monotonic() - began
    with dragoman.connect("heir", env=env) as client:
        heir = client.daemon_status().pid
        assert heir != pid
        stored = [item.seq for item in client.session_messages(session_id=session).data]
        assert stored == list(range(1, len(stored) + 1)), "a gap in what is stored"
        assert set(told) <= set(stored), f"told {told}, stored {stored}"
        found = client.session_get(session_id=session)
        assert found.session.state == "interrupted"
        assert found.turns[-1].status == "interrupted"
    left = [process for process in processes_of(env["HOME"], heir) if not wait_for_end(process, 6.0)]
    assert left == [], [Path(f"/proc/{process}/cmdline").read_bytes() for process in left]
    return took


@pytest.mark.parametrize("point", sorted(POINTS))
def test_a_killed_daemon_leaves_nothing_behind(env: dict[str, str], tmp_path: Path, point: str) -> None:
    one_cycle(env, tmp_path / "work", point)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills(env: dict[str, str], tmp_path: Path) -> None:
    chance = random.Random(2026)
    starts = [one_cycle(env, tmp_path / "work", chance.choice(sorted(POINTS))) for _ in range(50)]
    print(
        f"next start: median {statistics.median(starts) * 1000:.0f} ms, longest {max(starts) * 1000:.0f} ms"
    )
    assert max(starts) <= 1.0, "the next start took more than a second"
