"""Guarded children, on both event loops that the daemon may run on."""

import asyncio
import gc
import os
import select
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from dragomand.process import children
from dragomand.process.children import Child, Command
from dragomand.process.ledger import MARK, Ledger

DEADLINE_S = 15.0
ENV = {"PATH": os.defpath}


class Witness:
    """What a child said and when it ended."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = Ledger(str(root))
        self.output = b""
        self.ends = 0
        self.more = asyncio.Event()

    async def start(self, script: str, **more: Any) -> Child:
        command = Command(argv=["/bin/sh", "-c", script], env=ENV, cwd=str(self.root), **more)
        return await children.start(command, self.ledger, self.on_output, self.on_end)

    def on_output(self, data: bytes) -> None:
        self.output += data
        self.more.set()

    def on_end(self) -> None:
        self.ends += 1

    async def until(self, word: bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while word not in self.output:
                self.more.clear()
                await self.more.wait()


Scenario = Callable[[Witness], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario on a loop of its own; afterwards nothing may be left of it."""

    async def bounded(scenario: Scenario) -> None:
        witness = Witness(tmp_path)
        async with asyncio.timeout(60):
            await scenario(witness)
        assert witness.ledger.marks() == []

    def play(scenario: Scenario) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(bounded(scenario))
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before + 2  # a loop's watcher of children may stay

    return play


def test_what_is_written_comes_back_and_the_status_is_the_programs(play: Callable[[Scenario], None]) -> None:
    async def scenario(witness: Witness) -> None:
        child = await witness.start("cat; echo wrong >&2; exit 3")
        assert witness.ledger.marks() != []
        assert child.write(b"to and fro\n")
        await witness.until(b"to and fro\n")
        assert not child.ended
        await child.close()
        assert (child.status, child.stderr, witness.ends) == (3, "wrong", 1)
        assert child.ended
        assert not child.write(b"more")
        await child.close()

    play(scenario)


def test_nothing_is_inherited_but_what_is_given(play: Callable[[Scenario], None]) -> None:
    os.environ["DRAGOMAN_TEST_INHERITED"] = "1"

    async def scenario(witness: Witness) -> None:
        child = await witness.start("env; pwd; ulimit -Sn", open_files=77)
        await child.wait()
        lines = witness.output.decode().splitlines()
        assert str(witness.root) in lines
        assert lines[-1] == "77"
        names = {line.partition("=")[0] for line in lines if "=" in line}
        assert {MARK, "PATH"} <= names <= {MARK, "PATH", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}

    try:
        play(scenario)
    finally:
        del os.environ["DRAGOMAN_TEST_INHERITED"]


def test_a_secret_is_read_once(play: Callable[[Scenario], None]) -> None:
    async def scenario(witness: Witness) -> None:
        reading = 'cat "/proc/self/fd/$SECRET"; echo .; cat "/proc/self/fd/$SECRET"; echo .'
        child = await witness.start(reading, secrets={"SECRET": b"a word"})
        await child.wait()
        assert witness.output == b"a word.\n.\n"

    play(scenario)


def test_the_end_of_stderr_is_kept(play: Callable[[Scenario], None]) -> None:
    async def scenario(witness: Witness) -> None:
        child = await witness.start("yes 0123456789 | head -n 10000 >&2; printf end >&2")
        await child.wait()
        assert len(child.stderr) <= children.STDERR_CHARS
        assert child.stderr.endswith("end")

    play(scenario)


def test_one_that_does_not_listen_is_ended_and_cancelling_does_not_stop_that(
    play: Callable[[Scenario], None],
) -> None:
    async def scenario(witness: Witness) -> None:
        child = await witness.start("trap '' TERM; sleep 600 & echo $! .; wait; wait; wait")
        await witness.until(b".")
        sleeper = os.pidfd_open(int(witness.output.split()[0]))
        closing = asyncio.create_task(child.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await child.close()
        assert child.status == 128 + 9
        assert select.select([sleeper], [], [], 0)[0]
        os.close(sleeper)

    play(scenario)


def test_a_guard_that_hangs_is_killed_and_its_program_with_it(play: Callable[[Scenario], None]) -> None:
    async def scenario(witness: Witness) -> None:
        child = await witness.start("echo $$ .; setsid sleep 600 & exec sleep 600")
        await witness.until(b".")
        program = os.pidfd_open(int(witness.output.split()[0]))
        os.kill(child.pid, signal.SIGSTOP)
        await child.close()
        assert child.status == 128 + 9
        assert select.select([program], [], [], DEADLINE_S)[0]
        os.close(program)

    play(scenario)


def test_when_the_guard_is_killed_what_hides_is_found_by_its_mark(play: Callable[[Scenario], None]) -> None:
    async def scenario(witness: Witness) -> None:
        hide = f"{sys.executable} -I -c 'import os; os.fork() and os._exit(0); os.setsid()"
        hide += '; print(os.getpid(), ".", flush=True); os.execv("/bin/sleep", ["sleep", "600"])\''
        child = await witness.start(f"{hide}; exec sleep 600")
        await witness.until(b".")
        hidden = os.pidfd_open(int(witness.output.split()[0]))
        os.kill(child.pid, signal.SIGKILL)
        await child.close()
        assert select.select([hidden], [], [], DEADLINE_S)[0]
        os.close(hidden)

    play(scenario)


def test_output_that_somebody_keeps_open_does_not_hide_the_end(play: Callable[[Scenario], None]) -> None:
    """Nothing finds this one: its guard was killed, it has another session and an empty environment."""

    async def scenario(witness: Witness) -> None:
        hide = f"{sys.executable} -I -c 'import os; os.fork() and os._exit(0); os.setsid()"
        hide += '; print(os.getpid(), ".", flush=True); os.execve("/bin/sleep", ["sleep", "600"], {})\''
        child = await witness.start(f"{hide}; exec sleep 600")
        await witness.until(b".")
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        assert (child.status, witness.ends) == (128 + 9, 1)
        os.kill(int(witness.output.split()[0]), signal.SIGKILL)

    play(scenario)


def test_a_start_that_fails_leaves_nothing(play: Callable[[Scenario], None]) -> None:
    async def scenario(witness: Witness) -> None:
        command = Command(argv=["/bin/true"], env=ENV, cwd=str(witness.root / "nowhere"))
        with pytest.raises(FileNotFoundError):
            await children.start(command, witness.ledger, witness.on_output, witness.on_end)
        with pytest.raises(ValueError, match="at most"):
            await witness.start("true", secrets={"S": b"x" * 20_000})
        assert witness.ends == 0

    play(scenario)
