import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.forward import EXIT_LOST, EXIT_OK, EXIT_UNAVAILABLE, forward, stdio
from dragoman.locate import NotRunningError

PROGRAM = "import sys; from dragoman.forward import stdio; sys.exit(stdio(command=sys.argv[1:]))"
LIMIT_S = 20


# --- the real process in front of the stand-in daemon

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(place: Any, standin: list[str]) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(
        mode: str = "echo", command: list[str] | None = None, **pipes: Any
    ) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *(standin if command is None else command)],
            env={**place.env, "STANDIN_MODE": mode},
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def say(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def hear(process: "subprocess.Popen[bytes]", count: int) -> bytes:
    """Read exactly so many bytes of its output, or what there is at the end."""
    assert process.stdout is not None
    return process.stdout.read(count)


def test_both_ways_until_the_input_ends(start: Start, place: Any) -> None:
    process = start()
    for text in (b"one", b"\x00\xff" * 1000, b"three"):
        say(process, text)
        assert hear(process, len(text)) == text
    said, complaints = process.communicate(b"the last words", timeout=LIMIT_S)
    assert (said, complaints, process.returncode) == (b"the last words", b"", EXIT_OK)
    assert len(place.starts()) == 1


def test_a_second_one_shares_the_daemon(start: Start, place: Any) -> None:
    one, two = start(), start()
    say(one, b"1")
    say(two, b"2")
    assert (hear(one, 1), hear(two, 1)) == (b"1", b"2")
    assert len(place.starts()) == 1


def test_much_data_comes_back_whole(start: Start) -> None:
    data = os.urandom(1 << 20) * 20
    said, _ = start().communicate(data, timeout=60)
    assert said == data


def test_no_input_at_all(start: Start) -> None:
    process = start(stdin=subprocess.DEVNULL)
    assert process.communicate(timeout=LIMIT_S) == (b"", b"")
    assert process.returncode == EXIT_OK


def test_from_file_to_file(start: Start, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "in").write_bytes(data)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        assert start(stdin=source, stdout=target).wait(LIMIT_S) == EXIT_OK
    assert (tmp_path / "out").read_bytes() == data


def test_an_editor_whose_pipes_are_sockets(start: Start) -> None:
    """Node makes such ones."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start(stdin=theirs, stdout=theirs)
        theirs.close()
        ours.settimeout(LIMIT_S)
        ours.sendall(b"hello")
        assert ours.recv(100) == b"hello"
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""
        assert process.wait(LIMIT_S) == EXIT_OK


@pytest.mark.parametrize("mode", ["leave-first", "leave-first-hearing"])
def test_a_daemon_that_leaves_before_the_first_byte_is_replaced(start: Start, place: Any, mode: str) -> None:
    process = start(mode)
    say(process, b"question")
    assert hear(process, 8) == b"question"
    said, complaints = process.communicate(timeout=LIMIT_S)
    assert (said, complaints, process.returncode) == (b"", b"", EXIT_OK)
    assert len(place.starts()) == 2


def test_all_input_is_repeated_even_if_it_ended_meanwhile(start: Start, place: Any) -> None:
    said, _ = start("leave-first-hearing").communicate(b"q" * 60_000, timeout=LIMIT_S)
    assert said == b"q" * 60_000
    assert len(place.starts()) == 2


def test_daemons_that_all_leave_are_given_up(start: Start, place: Any) -> None:
    process = start("leave-always")
    said, complaints = process.communicate(b"question", timeout=LIMIT_S)
    assert (said, process.returncode) == (b"", EXIT_LOST)
    assert b"the daemon closed the connection" in complaints
    assert len(place.starts()) <= 4


def test_a_daemon_that_has_answered_is_not_replaced(start: Start, place: Any) -> None:
    process = start("answer-once")
    say(process, b"question")
    assert hear(process, 100) == b"question"
    assert process.wait(LIMIT_S) == EXIT_OK
    assert len(place.starts()) == 1


def test_a_killed_daemon_ends_it(start: Start, place: Any) -> None:
    process = start()
    say(process, b"x")
    assert hear(process, 1) == b"x"
    place.kill(signal.SIGKILL)
    assert hear(process, 1) == b""
    assert process.wait(LIMIT_S) == EXIT_OK


def test_the_reason_for_no_daemon_is_on_stderr(start: Start) -> None:
    process = start("refuse")
    said, complaints = process.communicate(timeout=LIMIT_S)
    assert complaints == b"dragoman stdio: The moon is in the wrong phase.\n"
    assert (said, process.returncode) == (b"", EXIT_UNAVAILABLE)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_the_daemon_stays(
    start: Start, place: Any, number: signal.Signals, status: int
) -> None:
    process = start()
    say(process, b"x")
    assert hear(process, 1) == b"x"
    process.send_signal(number)
    said, complaints = process.communicate(timeout=LIMIT_S)
    assert (said, complaints, process.returncode) == (b"", b"", status)
    say(again := start(), b"y")
    assert hear(again, 1) == b"y"
    assert len(place.starts()) == 1


def test_a_signal_while_the_daemon_starts_leaves_none_behind(start: Start, place: Any) -> None:
    os.makedirs(place.paths.state_dir, 0o700)
    fifo = Path(place.paths.state_dir, "hanging")
    os.mkfifo(fifo)
    process = start("hang")
    daemon = os.pidfd_open(int(fifo.read_text()))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143
    assert select.select([daemon], [], [], LIMIT_S)[0], "the daemon lives"
    os.close(daemon)


def test_a_reader_who_leaves_ends_it(start: Start) -> None:
    process = start()
    say(process, b"x")
    assert hear(process, 1) == b"x"
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(LIMIT_S) == EXIT_OK


def test_it_puts_the_handlers_back(place: Any, standin: list[str], tmp_path: Path) -> None:
    """Here, in this very process."""
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    (tmp_path / "in").write_bytes(b"in process")
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        assert stdio(place.env, stdin=source.fileno(), stdout=target.fileno(), command=standin) == EXIT_OK
    assert (tmp_path / "out").read_bytes() == b"in process"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


# --- the loop itself, in front of a socket that the test holds


class Played:
    """A connection whose calls fail as told: what a kernel does only at the wrong moment."""

    def __init__(self, real: socket.socket, failures: dict[str, list[OSError]]) -> None:
        self.real = real
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        if self.failures.get(name):
            raise self.failures[name].pop(0)
        return getattr(self.real, name)


class Bench:
    """`forward` in a thread; the test has the other end of everything."""

    def __init__(self, quiet_s: float, stdin: int | None, failures: dict[str, list[OSError]]) -> None:
        self.daemons: list[socket.socket] = []
        self.ends: list[Any] = []
        self.failures = failures
        self.stdin_ours, self.typed = os.pipe()
        self.shown, self.stdout_ours = os.pipe()
        self.status: int | None = None
        self.connected = threading.Semaphore(0)
        self.quiet_s = quiet_s
        self.stdin = self.stdin_ours if stdin is None else stdin
        self.thread = threading.Thread(target=self.run)
        self.daemon = self.prepare()
        self.thread.start()

    def prepare(self) -> socket.socket:
        """Make the connection that is handed out next, and return the daemon's end of it."""
        ours, theirs = socket.socketpair()
        ours.settimeout(LIMIT_S)
        self.daemons.append(ours)
        self.ends.append(Played(theirs, self.failures))
        self.failures = {}  # they are the first connection's
        return ours

    def connect(self) -> socket.socket:
        if not self.ends:
            raise NotRunningError("no more")
        self.connected.release()
        end: socket.socket = self.ends.pop(0)
        return end

    def run(self) -> None:
        try:
            self.status = forward(self.connect, self.stdin, self.stdout_ours, quiet_s=self.quiet_s)
        except NotRunningError:
            self.status = EXIT_UNAVAILABLE

    def finish(self) -> int | None:
        self.thread.join(LIMIT_S)
        assert not self.thread.is_alive()
        return self.status

    def close(self) -> None:
        self.close_fd("typed")
        self.close_fd("shown")
        for daemon in self.daemons:
            daemon.close()
        self.thread.join(LIMIT_S)
        for end in self.ends:
            end.close()
        os.close(self.stdin_ours)
        os.close(self.stdout_ours)

    def close_fd(self, name: str) -> None:
        fd = getattr(self, name)
        if fd >= 0:
            os.close(fd)
        setattr(self, name, -1)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(
        quiet_s: float = 600, stdin: int | None = None, failures: dict[str, list[OSError]] | None = None
    ) -> Bench:
        made.append(Bench(quiet_s, stdin, failures or {}))
        return made[-1]

    yield make
    for each in made:
        each.close()


NewBench = Callable[..., Bench]


def read_all(daemon: socket.socket) -> bytes:
    parts = []
    while part := daemon.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def stalls_after(fd: int, write: Callable[[], int]) -> int:
    """Write until nothing more is taken for a while; return how much went in."""
    total = 0
    while select.select([], [fd], [], 0.5)[1]:
        total += write()
    return total


def test_the_end_of_input_is_passed_on_and_the_rest_of_the_answer_comes(bench: NewBench) -> None:
    it = bench()
    os.write(it.typed, b"question")
    it.close_fd("typed")
    assert read_all(it.daemon) == b"question"
    it.daemon.sendall(b"answer")
    assert os.read(it.shown, 100) == b"answer"
    it.daemon.sendall(b", at length")
    it.daemon.close()
    assert it.finish() == EXIT_OK
    assert os.read(it.shown, 100) == b", at length"


def test_what_the_daemon_said_before_it_closed_is_written_out(bench: NewBench) -> None:
    it = bench()
    os.write(it.typed, b"q")
    assert it.daemon.recv(1) == b"q"
    last_words = b"w" * 150_000  # more than the pipe and the socket take at once

    def send() -> None:
        it.daemon.sendall(last_words)
        it.daemon.close()

    sender = threading.Thread(target=send)
    sender.start()
    with os.fdopen(os.dup(it.shown), "rb") as shown:
        assert shown.read(len(last_words)) == last_words
    sender.join(LIMIT_S)
    assert it.finish() == EXIT_OK


def test_a_slow_reader_slows_the_daemon_down_and_loses_nothing(bench: NewBench) -> None:
    it = bench()
    it.daemon.setblocking(False)
    block = bytes(range(256)) * 256
    sent = stalls_after(it.daemon.fileno(), lambda: it.daemon.send(block))
    assert sent < 4 << 20, "it buffers without bound"
    it.daemon.setblocking(True)
    it.daemon.shutdown(socket.SHUT_WR)
    shown = b""
    while len(shown) < sent:
        shown += os.read(it.shown, 1 << 16)
    assert it.finish() == EXIT_OK
    assert len(shown) == sent
    assert shown[: 1 << 16] == block


def test_a_slow_daemon_slows_the_input_down_and_loses_nothing(bench: NewBench) -> None:
    it = bench()
    sent = stalls_after(it.typed, lambda: os.write(it.typed, b"x" * 4096))
    assert sent < 4 << 20, "it buffers without bound"
    it.close_fd("typed")
    assert len(read_all(it.daemon)) == sent


def test_one_side_does_not_wait_for_the_other(bench: NewBench) -> None:
    """The daemon does not read; what it says is shown all the same."""
    it = bench()
    stalls_after(it.typed, lambda: os.write(it.typed, b"x" * 4096))
    it.daemon.sendall(b"news")
    assert os.read(it.shown, 100) == b"news"


def test_a_daemon_that_falls_silent_after_the_end_of_input_is_left(bench: NewBench) -> None:
    it = bench(quiet_s=0.05)
    os.write(it.typed, b"q")
    it.close_fd("typed")
    assert read_all(it.daemon) == b"q"
    assert it.finish() == EXIT_LOST


def test_while_input_is_open_silence_is_no_reason(bench: NewBench) -> None:
    it = bench(quiet_s=0.0)
    it.daemon.sendall(b"x")
    assert os.read(it.shown, 1) == b"x"
    os.write(it.typed, b"y")
    assert it.daemon.recv(1) == b"y"
    assert it.thread.is_alive()


def test_a_broken_connection_after_an_answer_is_a_loss(bench: NewBench) -> None:
    """A unix socket closed with unread data in it is reset, not ended."""
    it = bench()
    it.daemon.sendall(b"a")
    assert os.read(it.shown, 1) == b"a"
    os.write(it.typed, b"unread")
    assert select.select([it.daemon], [], [], LIMIT_S)[0]
    it.daemon.close()
    assert it.finish() == EXIT_LOST


def test_too_much_to_repeat_is_a_loss(bench: NewBench) -> None:
    it = bench()
    it.prepare()
    os.write(it.typed, b"x" * 60_000)
    os.write(it.typed, b"x" * 10_000)
    heard = 0
    while heard < 70_000:
        heard += len(it.daemon.recv(1 << 16))
    it.daemon.close()
    assert it.finish() == EXIT_LOST


def test_a_successor_that_cannot_be_had_is_told_of(bench: NewBench) -> None:
    it = bench()
    os.write(it.typed, b"q")
    assert it.daemon.recv(1) == b"q"
    it.daemon.close()
    assert it.finish() == EXIT_UNAVAILABLE


def test_the_successor_hears_everything_from_the_beginning(bench: NewBench) -> None:
    it = bench()
    second = it.prepare()
    os.write(it.typed, b"one ")
    assert it.daemon.recv(10) == b"one "
    os.write(it.typed, b"two ")
    assert it.daemon.recv(10) == b"two "
    it.daemon.close()
    assert it.connected.acquire(timeout=LIMIT_S)
    assert it.connected.acquire(timeout=LIMIT_S)
    os.write(it.typed, b"three")
    it.close_fd("typed")
    assert read_all(second) == b"one two three"
    second.sendall(b"a")
    second.close()
    assert os.read(it.shown, 10) == b"a"
    assert it.finish() == EXIT_OK


def test_a_descriptor_that_is_closed_counts_as_the_end_of_input(bench: NewBench) -> None:
    it = bench(stdin=999_999)
    assert it.daemon.recv(1) == b""
    it.daemon.close()
    assert it.finish() == EXIT_OK


def test_a_reader_gone_between_two_looks(bench: NewBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """`poll` said that it can be written, and then it cannot: played, it is a matter of microseconds."""

    def broken(_fd: int, _data: bytes) -> int:
        raise BrokenPipeError

    it = bench()
    monkeypatch.setattr(os, "write", broken)
    it.daemon.sendall(b"x")
    assert it.finish() == EXIT_OK


@pytest.mark.parametrize("call", ["send", "recv"])
def test_a_call_that_would_block_after_all(bench: NewBench, call: str) -> None:
    it = bench(failures={call: [BlockingIOError()]})
    os.write(it.typed, b"q")
    assert it.daemon.recv(1) == b"q"
    it.daemon.sendall(b"a")
    assert os.read(it.shown, 1) == b"a"
    it.daemon.close()
    assert it.finish() == EXIT_OK


def test_a_daemon_that_closes_just_before_our_half_close(bench: NewBench) -> None:
    it = bench(failures={"shutdown": [OSError(107, "not connected")]})
    os.write(it.typed, b"q")
    it.close_fd("typed")
    assert it.daemon.recv(1) == b"q"
    it.daemon.sendall(b"a")
    it.daemon.close()
    assert os.read(it.shown, 10) == b"a"
    assert it.finish() == EXIT_OK


def test_a_daemon_that_closes_just_before_we_send(bench: NewBench) -> None:
    it = bench(failures={"send": [BrokenPipeError()]})
    second = it.prepare()
    os.write(it.typed, b"q")
    it.daemon.close()
    assert second.recv(1) == b"q"
    second.sendall(b"a")
    assert os.read(it.shown, 10) == b"a"
    second.close()
    assert it.finish() == EXIT_OK
