"""A simulator, and a daemon of its own for clients that nobody here wrote."""

import asyncio
import os
import select
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dragoman import locate
from dragoman_sim import Gate, Reply, Rule, Simulator, When


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    rules = [
        Rule(When(text="hello"), "Hello to you."),
        Rule(When(text="Count"), Reply(["1, 2, 3, ", Gate("never"), "4"])),
    ]
    async with Simulator(rules) as simulator:
        yield simulator


@pytest.fixture
async def env(sim: Simulator, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    for name in ("home", "run", "work"):
        (tmp_path / name).mkdir(mode=0o700)
    kept = {
        name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("COVERAGE")
    }
    env = {
        **kept,
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "ANTHROPIC_BASE_URL": sim.url,
        "ANTHROPIC_API_KEY": "sk-ant-api03-independent",
    }
    yield env
    pid = locate.read_record(locate.find_paths(env)).get("pid")
    if isinstance(pid, int):
        await asyncio.to_thread(_end, pid)


def _end(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor):
        os.kill(pid, signal.SIGTERM)
        assert select.select([descriptor], [], [], 20)[0], "the daemon did not stop"
