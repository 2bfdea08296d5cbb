import asyncio
import os
import signal
import subprocess
import sys

import pytest
from dragomand.process.signals import Signals, start_clean

pytestmark = pytest.mark.usefixtures("kept_signals")


class Heard:
    """Notes what was called, and lets a test wait for the next."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, what: str) -> None:
        self.queue.put_nowait(what)

    async def next(self) -> str:
        async with asyncio.timeout(10):
            return await self.queue.get()


def route(heard: Heard) -> Signals:
    return Signals(
        asyncio.get_running_loop(),
        drain=lambda: heard("drain"),
        stop=lambda: heard("stop"),
        reopen=lambda: heard("reopen"),
    )


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)]
)
async def test_first_drain_then_stop(first: int, second: int) -> None:
    heard = Heard()
    signals = route(heard)
    said = []
    for number in (first, second, first):
        os.kill(os.getpid(), number)
        said.append(await heard.next())
    signals.close()
    assert said == ["drain", "stop", "stop"]


async def test_hang_up_reopens_the_log_as_often_as_wanted() -> None:
    heard = Heard()
    signals = route(heard)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGHUP)
        assert await heard.next() == "reopen"
    os.kill(os.getpid(), signal.SIGTERM)
    assert await heard.next() == "drain"
    signals.close()


async def test_after_the_close_the_system_decides() -> None:
    route(Heard()).close()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_start_from_nohup_and_from_under_a_blocked_mask() -> None:
    """What such a starter leaves survives `exec`: a real process is started by one."""
    code = (
        "import os, signal, subprocess, sys\n"
        "from dragomand.process.signals import start_clean\n"
        "assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())\n"
        "assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN\n"
        "start_clean()\n"
        "assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()\n"
        "assert subprocess.call([sys.executable, '-S', '-c', 'raise SystemExit(7)']) == 7\n"
        "print('clean', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('still here')\n"
    )
    starter = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", starter, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "clean\n", done.stderr
    assert done.returncode == -signal.SIGTERM


def test_here_too() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    start_clean()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
