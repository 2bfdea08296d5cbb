"""stdin and stdout of every kind: pipes, a socket, a terminal, files, nothing at all."""

import asyncio
import contextlib
import os
import pty
import socket
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dragomand.transport.interface import SOFT_BYTES
from dragomand.transport.stdio import serve_stdio


@contextlib.contextmanager
def descriptors(*fds: int) -> Iterator[list[int]]:
    """Close those that are open at the end."""
    opened = list(fds)
    try:
        yield opened
    finally:
        for fd in opened:
            os.close(fd)


async def serving(door: Any, stdin: int, stdout: int) -> "asyncio.Task[None]":
    task = asyncio.ensure_future(serve_stdio(door, stdin=stdin, stdout=stdout))
    await door.until(lambda: bool(door.came))
    return task


async def finished(task: "asyncio.Task[None]") -> None:
    async with asyncio.timeout(20):
        await task


def read_exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += os.read(fd, count - len(data))
    return data


async def read_all(fd: int) -> bytes:
    def all_() -> bytes:
        parts = []
        while part := os.read(fd, 1 << 20):
            parts.append(part)
        return b"".join(parts)

    return await asyncio.to_thread(all_)


def test_pipes(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        in_, to_it = os.pipe()
        from_it, out = os.pipe()
        with descriptors(in_, from_it):
            task = await serving(door, in_, out)
            (recorder,) = door.came
            assert recorder.transport.peer_pid is None
            os.write(to_it, b"hello")
            await recorder.until_received(b"hello")
            recorder.transport.write(b"world")
            assert await asyncio.to_thread(os.read, from_it, 100) == b"world"
            os.close(to_it)
            await recorder.until_told("ended")
            recorder.transport.pause_reading()
            recorder.transport.resume_reading()
            recorder.transport.write(b"x" * 1_000_000)
            recorder.transport.close()
            assert os.get_blocking(in_)
            assert os.get_blocking(out)
            os.close(out)
            assert len(await read_all(from_it)) == 1_000_000
            await finished(task)
            assert recorder.events == ["ended", "lost"]

    run(main)


def test_one_socket_for_both(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            task = await serving(door, theirs.fileno(), theirs.fileno())
            (recorder,) = door.came
            ours.sendall(b"hello")
            await recorder.until_received(b"hello")
            recorder.transport.write(b"world")
            assert await asyncio.to_thread(ours.recv, 100) == b"world"
            ours.shutdown(socket.SHUT_WR)
            await recorder.until_told("ended")
            recorder.transport.close()
            await finished(task)
            assert theirs.getblocking()
            assert os.get_blocking(theirs.fileno())

    run(main)


def test_a_terminal_keeps_its_flags(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        master, slave = pty.openpty()
        tty.setraw(slave)
        with descriptors(master, slave):
            task = await serving(door, slave, slave)
            (recorder,) = door.came
            os.write(master, b"hello")
            await recorder.until_received(b"hello")
            assert os.get_blocking(slave)
            recorder.transport.write(b"world")
            assert await asyncio.to_thread(os.read, master, 100) == b"world"
            os.set_blocking(slave, False)  # another program's doing
            reading = asyncio.get_running_loop().run_in_executor(None, read_exactly, master, 100_000)
            recorder.transport.write(b"x" * 100_000)
            assert await reading == b"x" * 100_000
            recorder.transport.abort()
            await finished(task)

    run(main)


def test_files(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        question = b"q" * 1_000_000
        (tmp_path / "in").write_bytes(b"skipped" + question)
        in_ = os.open(tmp_path / "in", os.O_RDONLY)
        out = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
        with descriptors(in_, out):
            os.read(in_, 7)
            os.write(out, b"before ")
            task = await serving(door, in_, out)
            (recorder,) = door.came
            recorder.transport.pause_reading()
            recorder.transport.resume_reading()
            await recorder.until_told("ended")
            assert recorder.data == question
            recorder.transport.write(b"answer")
            assert recorder.transport.unsent() == 0
            recorder.transport.close()
            recorder.transport.close()
            await finished(task)
        assert (tmp_path / "out").read_bytes() == b"before answer"

    run(main)


def test_reading_a_file_stops(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        (tmp_path / "in").write_bytes(b"q" * 1000)
        with descriptors(os.open(tmp_path / "in", os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)) as (
            in_,
            out,
        ):
            task = asyncio.ensure_future(serve_stdio(door, stdin=in_, stdout=out))
            await door.until(lambda: bool(door.came))
            (recorder,) = door.came
            recorder.transport.pause_reading()
            recorder.transport.abort()
            recorder.transport.resume_reading()
            await finished(task)
            assert recorder.events == ["lost"]
            assert recorder.data == b""

    run(main)


def test_a_disk_that_is_full(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        in_, to_it = os.pipe()
        with descriptors(in_, to_it, os.open("/dev/full", os.O_WRONLY)) as (_, _, full):
            task = await serving(door, in_, full)
            (recorder,) = door.came
            recorder.transport.write(b"answer")
            await finished(task)
            assert recorder.events == ["lost"]

    run(main)


def test_nothing_in_and_nothing_out(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        with descriptors(os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)) as (in_, out):
            task = await serving(door, in_, out)
            (recorder,) = door.came
            await recorder.until_told("ended")
            recorder.transport.write(b"answer")
            recorder.transport.close()
            await finished(task)

    run(main)


def test_a_reader_that_is_gone(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        in_, to_it = os.pipe()
        from_it, out = os.pipe()
        with descriptors(in_, to_it):
            task = await serving(door, in_, out)
            os.close(out)
            (recorder,) = door.came
            os.close(from_it)
            await finished(task)
            assert recorder.events == ["lost"]
            recorder.transport.write(b"nobody")
            recorder.transport.pause_reading()
            recorder.transport.resume_reading()
            assert recorder.transport.unsent() == 0

    run(main)


def test_a_reader_that_is_slow(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        in_, to_it = os.pipe()
        from_it, out = os.pipe()
        with descriptors(in_, to_it, from_it):
            task = await serving(door, in_, out)
            os.close(out)
            (recorder,) = door.came
            total = 0
            while "stalled" not in recorder.events:
                recorder.transport.write(b"x" * 100_000)
                total += 100_000
                assert total < 4 * SOFT_BYTES
            assert recorder.transport.unsent() > SOFT_BYTES
            received = 0
            while received < total:
                received += len(await asyncio.to_thread(os.read, from_it, 1 << 20))
            await recorder.until_told("flowing")
            recorder.transport.close()
            await finished(task)

    run(main)


def test_cancelling_ends_the_connection(run: Any, make_door: Any) -> None:
    async def main() -> None:
        door = make_door()
        in_, to_it = os.pipe()
        from_it, out = os.pipe()
        with descriptors(in_, to_it, from_it, out):
            task = await serving(door, in_, out)
            await door.until(lambda: bool(door.came))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await door.came[0].until_told("lost")

    run(main)


def test_where_descriptors_cannot_be_opened_anew_their_flags_are_put_back(
    run: Any, make_door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).startswith("/proc/self/fd/"):
            raise FileNotFoundError(path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)

    async def main() -> None:
        door = make_door()
        in_, to_it = os.pipe()
        from_it, out = os.pipe()
        with descriptors(in_, from_it, out):
            task = await serving(door, in_, out)
            (recorder,) = door.came
            assert not os.get_blocking(in_)
            os.write(to_it, b"hello")
            await recorder.until_received(b"hello")
            os.close(to_it)
            await recorder.until_told("ended")
            recorder.transport.close()
            await finished(task)
            assert os.get_blocking(in_)
            assert os.get_blocking(out)

    run(main)
