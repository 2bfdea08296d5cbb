"""The guard as a program of its own: whatever ends it, nothing that it started is left."""

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dragomand.process import guard

DEADLINE_S = 15.0
HIDE = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
written, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1], "w") as file:
            file.write(str(os.getpid()))
        os.close(write)
        while True:
            signal.pause()
    os._exit(0)
os.close(write)
os.read(written, 1)  # its end: the note is there
os.wait()
"""
"""Starts a process that forked twice, has a session of its own, and ignores every polite word."""

AS_IMPORTED = """
import sys
from dragomand.process import guard
guard._LINUX = guard._LINUX and sys.argv[1] == "linux"
sys.exit(guard.main(sys.argv[2:]))
"""
"""Runs the guard on Linux or as where there is no subreaper. Imported, so that it is seen which lines ran;
`test_children` runs it as the daemon does."""


class Guarded:
    """A guard, the daemon's end of its pipe, and what it printed."""

    def __init__(self, process: "subprocess.Popen[bytes]", life: int) -> None:
        self.process = process
        self.life = life

    def let_go(self) -> None:
        """Do what the daemon's death does."""
        if self.life >= 0:
            os.close(self.life)
            self.life = -1

    def word(self) -> bytes:
        """Return the next line that the program prints: it has come so far."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def status(self) -> int:
        return self.process.wait(DEADLINE_S)


Start = Callable[..., Guarded]


@pytest.fixture(params=["linux", "elsewhere"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start the guard with a program, once as it is and once without a subreaper."""
    with starting(request.param) as start:
        yield start


@pytest.fixture
def start_linux() -> Iterator[Start]:
    with starting("linux") as start:
        yield start


@contextlib.contextmanager
def starting(platform: str) -> Iterator[Start]:
    started: list[Guarded] = []

    def start(*argv: str, keep: tuple[int, ...] = (), open_files: str = "-") -> Guarded:
        reader, life = os.pipe()
        names = ",".join(map(str, keep)) or "-"
        process = subprocess.Popen(
            [sys.executable, "-c", AS_IMPORTED, platform, str(reader), names, open_files, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(reader, *keep),
        )
        os.close(reader)
        started.append(Guarded(process, life))
        return started[-1]

    yield start
    for guarded in started:
        guarded.let_go()
        guarded.status()
        for stream in (guarded.process.stdin, guarded.process.stdout, guarded.process.stderr):
            assert stream is not None
            stream.close()


def hidden(tmp_path: Path) -> tuple[str, Path]:
    """Return a shell command that leaves a hidden process behind, and the file that will name it."""
    (tmp_path / "hide.py").write_text(HIDE)
    note = tmp_path / "hidden"
    return f"{sys.executable} -I {tmp_path}/hide.py {note} </dev/null >/dev/null 2>&1", note


def watch(note: Path) -> int:
    return os.pidfd_open(int(note.read_text()))


def gone(process: int) -> bool:
    try:
        return bool(select.select([process], [], [], DEADLINE_S)[0])
    finally:
        os.close(process)


def test_streams_and_status_pass_through(start: Start) -> None:
    guarded = start("/bin/sh", "-c", "cat; echo wrong >&2; exit 7")
    output, errors = guarded.process.communicate(b"to and fro", DEADLINE_S)
    assert (output, errors, guarded.status()) == (b"to and fro", b"wrong\n", 7)


def test_a_signal_shows_as_128_and_its_number(start: Start) -> None:
    assert start("/bin/sh", "-c", "kill -9 $$").status() == 128 + 9


@pytest.mark.parametrize(("mode", "status"), [(None, 127), (0o644, 126)])
def test_a_program_that_cannot_be_started(
    start: Start, tmp_path: Path, mode: int | None, status: int
) -> None:
    program = tmp_path / "program"
    if mode is not None:
        program.write_text("")
        program.chmod(mode)
    guarded = start(str(program))
    _, errors = guarded.process.communicate(timeout=DEADLINE_S)
    assert guarded.status() == status
    assert str(program).encode() in errors


def test_it_has_a_session_of_its_own(start: Start) -> None:
    guarded = start("/bin/sh", "-c", "echo $PPID; exec cat")
    parent = int(guarded.word())
    assert parent == guarded.process.pid
    assert os.getsid(parent) == parent != os.getsid(0)


def test_the_signals_that_python_ignores_are_not_inherited(start: Start) -> None:
    guarded = start("/bin/sh", "-c", "grep SigIgn /proc/self/status")
    ignored = int(guarded.word().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


def test_only_what_is_kept_is_passed_on(start: Start) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"word")
    os.close(writer)
    guarded = start(
        "/bin/sh", "-c", f"cat /proc/self/fd/{reader}; echo; ls /proc/$$/fd; exec cat", keep=(reader,)
    )
    os.close(reader)
    assert guarded.word() == b"word\n"
    shown = {int(guarded.word()) for _ in range(4)}
    assert shown == {0, 1, 2, reader}
    mine = os.listdir(f"/proc/{guarded.process.pid}/fd")
    links = [os.readlink(f"/proc/{guarded.process.pid}/fd/{fd}") for fd in mine if int(fd) == reader]
    assert links == []


def test_the_limit_of_open_files(start: Start) -> None:
    assert start("/bin/sh", "-c", "ulimit -Sn", open_files="123").word() == b"123\n"


@pytest.mark.parametrize("end", ["program ends", "program is killed", "daemon dies", "terminated"])
def test_nothing_is_left_when(start_linux: Start, tmp_path: Path, end: str) -> None:
    hide, note = hidden(tmp_path)
    guarded = start_linux("/bin/sh", "-c", f"{hide}; echo $$; read line; exit 3")
    program = int(guarded.word())
    process = watch(note)
    if end == "program ends":
        guarded.process.communicate(b"\n", DEADLINE_S)
        assert guarded.status() == 3
    elif end == "program is killed":
        os.kill(program, signal.SIGKILL)
        assert guarded.status() == 128 + 9
    elif end == "daemon dies":
        guarded.let_go()
        assert guarded.status() == 128 + 15
    else:
        guarded.process.terminate()
        assert guarded.status() == 128 + 15
    assert gone(process)


@pytest.mark.parametrize("end", ["daemon dies", "terminated"])
def test_a_program_that_does_not_listen_is_killed(start: Start, tmp_path: Path, end: str) -> None:
    deaf = "trap '' TERM HUP INT; sleep 600 & echo $!; wait; while :; do wait; done"
    guarded = start("/bin/sh", "-c", deaf)
    process = os.pidfd_open(int(guarded.word()))
    if end == "daemon dies":
        guarded.let_go()
    else:
        guarded.process.terminate()
    assert guarded.status() == 128 + 9
    assert gone(process)


def test_orphans_are_reaped_while_the_program_runs(start_linux: Start) -> None:
    guarded = start_linux("/bin/sh", "-c", "(sh -c 'echo $$' & ) ; read line; echo over")
    orphan = int(guarded.word())
    with contextlib.suppress(ProcessLookupError):
        gone(os.pidfd_open(orphan))
    assert guarded.process.communicate(b"\n", DEADLINE_S)[0] == b"over\n"
    assert guarded.status() == 0


def test_a_hangup_without_the_daemons_death_means_nothing(start_linux: Start) -> None:
    guarded = start_linux("/bin/sh", "-c", "echo up; cat")
    guarded.word()
    guarded.process.send_signal(signal.SIGHUP)
    assert guarded.process.communicate(b"still here", DEADLINE_S)[0] == b"still here"
    assert guarded.status() == 0


def test_if_the_guard_itself_is_killed_so_is_the_program(start_linux: Start) -> None:
    guarded = start_linux("/bin/sh", "-c", "echo $$; exec cat")
    program = os.pidfd_open(int(guarded.word()))
    guarded.process.kill()
    assert guarded.status() == -9
    assert gone(program)


def test_a_daemon_that_leaves_its_pipe_open_and_dies_is_noticed_too(tmp_path: Path) -> None:
    """Somebody else still holds the pipe's end: a child that the daemon forked without executing anything."""
    reader, life = os.pipe()
    script = (
        "import subprocess, sys, os\n"
        f"subprocess.Popen([{sys.executable!r}, {guard.__file__!r}, '{reader}', '-', '-', '/bin/sh', '-c',"
        f" 'echo $$; exec sleep 600'], pass_fds=({reader},))\n"
        "sys.stdin.read()\n"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(reader,),
    )
    os.close(reader)
    assert daemon.stdout is not None
    assert daemon.stdin is not None
    program = os.pidfd_open(int(daemon.stdout.readline()))
    daemon.kill()
    assert daemon.wait(DEADLINE_S) == -9
    assert gone(program)
    os.close(life)
    daemon.stdout.close()
    daemon.stdin.close()


def test_descendants_are_found_at_any_depth() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 9, 9: 6}
    assert guard.descendants(2, parents) == [3, 4]
    assert guard.descendants(1, parents) == [2, 5, 3, 4]
    assert guard.descendants(7, parents) == []


@pytest.mark.parametrize("look", [guard.parents_from_proc, guard.parents_from_ps])
def test_the_process_table_is_read(look: Callable[[], dict[int, int]]) -> None:
    assert look()[os.getpid()] == os.getppid()


def test_it_is_small_and_needs_nothing_of_ours() -> None:
    script = (
        f"import sys; sys.argv=['g']; exec(open({guard.__file__!r}).read().split('if __name__')[0]);"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, check=True)
    heavy = {"dragomand", "asyncio", "subprocess", "contextlib", "typing"}
    assert not heavy & set(done.stdout.decode().split())
