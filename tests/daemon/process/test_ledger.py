"""The child ledger: what a dead daemon left is found and ended, nothing else is touched."""

import contextlib
import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dragomand.process import guard
from dragomand.process.identity import start_time
from dragomand.process.ledger import MARK, Ledger, Reaped, sweep

DEADLINE_S = 15.0


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path))


@contextlib.contextmanager
def running(*argv: str, mark: str | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    env = {"PATH": os.defpath} | ({MARK: mark} if mark else {})
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE_S)
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.close()
        process.stdin.close()


def word(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def again(ledger: Ledger) -> Ledger:
    """Return the ledger as the next daemon finds it."""
    return Ledger(os.path.dirname(ledger._folder))


def ends(process: int) -> bool:
    try:
        return bool(select.select([process], [], [], DEADLINE_S)[0])
    finally:
        os.close(process)


def test_an_entry_names_the_guard(ledger: Ledger, tmp_path: Path) -> None:
    entry = ledger.reserve()
    (file,) = (tmp_path / "children").iterdir()
    assert (file.name, file.read_bytes()) == (entry.mark, b"")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    entry.started(os.getpid())
    assert json.loads(file.read_bytes()) == {"pid": os.getpid(), "startTime": start_time(os.getpid())}
    assert ledger.marks() == [entry.mark]
    entry.ended()
    entry.ended()
    assert ledger.marks() == []


def test_nothing_to_reap(ledger: Ledger) -> None:
    assert ledger.marks() == []
    assert ledger.reap() == Reaped(0, 0)


def test_a_guard_that_is_left_is_ended_with_its_program(ledger: Ledger) -> None:
    entry = ledger.reserve()
    reader, life = os.pipe()  # kept open: nobody tells this guard that its daemon is dead
    program_line = ("/bin/sh", "-c", "echo $$; exec sleep 600")
    command = [sys.executable, guard.__file__, str(reader), "-", "-", *program_line]
    process = subprocess.Popen(
        command, env={"PATH": os.defpath, MARK: entry.mark}, stdout=subprocess.PIPE, pass_fds=(reader,)
    )
    program = os.pidfd_open(int(word(process)))
    entry.started(process.pid)
    assert again(ledger).reap() == Reaped(1, 0)
    assert ends(program)
    assert process.wait(DEADLINE_S) == 128 + 15
    assert ledger.marks() == []
    for fd in (reader, life):
        os.close(fd)
    assert process.stdout is not None
    process.stdout.close()


def test_a_guard_that_does_not_end_is_killed(ledger: Ledger) -> None:
    entry = ledger.reserve()
    stubborn = "trap '' TERM; sleep 600 & echo $!; wait; wait; wait"
    with running("/bin/sh", "-c", stubborn) as process:
        child = os.pidfd_open(int(word(process)))
        entry.started(process.pid)
        assert again(ledger).reap(patience_s=0.1) == Reaped(1, 2)
        assert process.wait(DEADLINE_S) == -signal.SIGKILL
        assert ends(child)


def test_who_only_bears_the_mark_is_killed(ledger: Ledger) -> None:
    entry = ledger.reserve()
    with running("/bin/cat", mark=entry.mark) as marked, running("/bin/cat", mark="0" * 32) as other:
        assert again(ledger).reap() == Reaped(1, 1)
        assert marked.wait(DEADLINE_S) == -signal.SIGKILL
        assert other.poll() is None


def test_a_guard_that_is_gone_is_forgotten(ledger: Ledger) -> None:
    entry = ledger.reserve()
    with running("/bin/cat") as process:
        entry.started(process.pid)
        process.kill()
        process.wait(DEADLINE_S)
    assert again(ledger).reap() == Reaped(1, 0)
    assert ledger.marks() == []


def test_a_pid_that_is_used_again_is_not_touched(ledger: Ledger, tmp_path: Path) -> None:
    entry = ledger.reserve()
    with running("/bin/sh", "-c", "echo up; exec cat") as innocent:
        word(innocent)
        noted = {"pid": innocent.pid, "startTime": "another boot:1"}
        (tmp_path / "children" / entry.mark).write_text(json.dumps(noted))
        assert again(ledger).reap() == Reaped(1, 0)
        assert innocent.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x", "startTime": "y"}', '{"pid": 1}', "null"])
def test_an_entry_that_says_nothing_is_forgotten(ledger: Ledger, tmp_path: Path, text: str) -> None:
    entry = ledger.reserve()
    (tmp_path / "children" / entry.mark).write_text(text)
    assert again(ledger).reap() == Reaped(1, 0)
    assert ledger.marks() == []


def test_this_daemons_own_children_are_left_alone(ledger: Ledger) -> None:
    ledger.reserve()
    now = again(ledger)
    entry = now.reserve()
    with running("/bin/cat", mark=entry.mark) as own:
        entry.started(own.pid)
        assert now.reap() == Reaped(1, 0)
        assert own.poll() is None
        assert now.marks() == [entry.mark]
        assert now.reap() == Reaped(0, 0)


def test_sweep_kills_all_that_bear_the_mark(ledger: Ledger) -> None:
    mark = ledger.reserve().mark
    crowd = "for n in 1 2 3 4 5 6 7 8 9; do setsid sleep 600 & done; echo up; wait"
    with running("/bin/sh", "-c", crowd, mark=mark) as process:
        word(process)
        assert sweep(mark) == 10
        # All of them hold the pipe: its end means that they are gone.
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], DEADLINE_S)[0]
        assert process.stdout.read() == b""


def test_sweep_spares_ourselves(ledger: Ledger) -> None:
    mark = ledger.reserve().mark
    script = f"from dragomand.process.ledger import sweep\nimport sys\nprint(sweep({mark!r}), flush=True)\n"
    with running(sys.executable, "-c", script, mark=mark) as process:
        assert word(process) == b"0\n"
        assert process.wait(DEADLINE_S) == 0
