"""The calls as such; the whole sequence, with its forks, is in tests/clients/test_launch.py."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from dragoman import launch
from dragoman.launch import READY_FD
from dragomand.process.readiness import Readiness


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends; the writer is for `Readiness`, which closes it."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def read(reader: int) -> bytes:
    parts = []
    while part := os.read(reader, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def test_the_number_is_taken_out_of_the_environment(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_inheritable(writer, True)
    env = {READY_FD: str(writer), "PATH": "/bin"}
    readiness = Readiness.from_env(env)
    assert env == {"PATH": "/bin"}
    assert not os.get_inheritable(writer)
    readiness.ready({"pid": 5, "socket": "/s", "version": "1"})
    word = read(reader)
    assert word.endswith(b"\n")
    assert json.loads(word) == {"pid": 5, "socket": "/s", "version": "1", "ready": True}


@pytest.mark.parametrize("character", ["x", "é", "🌙", "\x01", "\n"])
def test_a_failure_is_one_text_of_bounded_length(pipe: tuple[int, int], character: str) -> None:
    reader, writer = pipe
    readiness = Readiness(writer)
    readiness.failed(character * 50_000)
    readiness.failed("too late")
    readiness.ready({})
    word = read(reader)
    assert json.loads(word) == {"error": character * 10_000}
    assert len(word) < launch._WORD_BYTES


def test_a_text_that_is_no_unicode(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    Readiness(writer).failed("/home/\udcff: no")
    assert json.loads(read(reader)) == {"error": "/home/?: no"}


def test_a_starter_that_is_gone_does_no_harm() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    readiness = Readiness(writer)
    readiness.ready({"pid": 5})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writer)


@pytest.mark.parametrize("number", ["", "x", "-1", "0", "2", "²", "999999", "1e3"])
def test_what_is_no_pipe_counts_as_no_starter(number: str) -> None:
    env = {READY_FD: number}
    readiness = Readiness.from_env(env)
    assert env == {}
    assert readiness.detach() is None
    readiness.ready({})


def test_an_open_file_is_no_pipe() -> None:
    with open(os.devnull, "rb") as file:
        assert Readiness.from_env({READY_FD: str(file.fileno())}).detach() is None
        os.fstat(file.fileno())


def test_without_the_variable_there_is_no_starter() -> None:
    assert Readiness.from_env({}).detach() is None
    Readiness(None).failed("nobody hears it")


DETACHED = """
import os, signal, sys
from dragomand.process.readiness import Readiness
readiness = Readiness.from_env(os.environ)
left = readiness.detach()
if left is not None:
    sys.exit(left)
os.write(1, b"%d\\n" % os.getpid())
end = sys.argv[1]
if end == "ready":
    readiness.ready({"pid": os.getpid()})
    sys.stdin.read()
elif end == "failed":
    readiness.failed("no")
    sys.exit(9)
elif end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def detached(end: str, writer: int) -> Any:
    child = subprocess.Popen(
        [sys.executable, "-c", DETACHED, end],
        env={**os.environ, READY_FD: str(writer)},
        pass_fds=(writer,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    os.close(writer)
    return child


def test_the_starter_s_child_ends_when_the_daemon_is_ready(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    child = detached("ready", writer)
    pid = int(child.stdout.readline())
    assert pid != child.pid
    assert child.wait(20) == 0
    daemon = os.pidfd_open(pid)  # it lives, and ends when its stdin does
    os.close(daemon)
    assert json.loads(read(reader)) == {"pid": pid, "ready": True}
    child.communicate(timeout=20)


@pytest.mark.parametrize(("end", "status"), [("failed", 9), ("killed", 128 + signal.SIGKILL), ("silent", 0)])
def test_the_starter_s_child_passes_the_daemon_s_end_on(pipe: tuple[int, int], end: str, status: int) -> None:
    reader, writer = pipe
    child = detached(end, writer)
    assert int(child.stdout.readline()) != child.pid
    child.communicate(timeout=20)
    assert child.returncode == status
    assert read(reader) == (b'{"error": "no"}\n' if end == "failed" else b"")
