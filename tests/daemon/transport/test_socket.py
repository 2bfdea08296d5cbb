"""The unix socket, on both event loops: bytes, both kinds of end, back-pressure, limits."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dragomand.transport import socket as transport_socket
from dragomand.transport.interface import SOFT_BYTES
from dragomand.transport.socket import SocketServer, serve_socket


@contextlib.asynccontextmanager
async def serving(door: Any, folder: Path, limit: int = 256) -> AsyncIterator[tuple[SocketServer, str]]:
    path = str(folder / "s")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(path)
    bound.listen()
    server = await serve_socket(door, bound, max_connections=limit)
    try:
        yield server, path
    finally:
        server.close()
        for recorder in door.came + door.turned_away:
            recorder.transport.abort()
            await recorder.until_told("lost")
        assert server.open == server.turned_away == 0
        os.unlink(path)


CLIENT = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'x'); input()"
)


def process(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE)


def connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


async def read(connection: socket.socket, count: int = 1 << 16) -> bytes:
    return await asyncio.to_thread(connection.recv, count)


async def read_exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await read(connection, count - len(data))
    return data


async def read_all(connection: socket.socket) -> bytes:
    def all_() -> bytes:
        parts = []
        while part := connection.recv(1 << 20):
            parts.append(part)
        return b"".join(parts)

    return await asyncio.to_thread(all_)


def test_bytes_go_both_ways(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            with connected(path) as client:
                client.sendall(b"hello")
                recorder = await door.next()
                await recorder.until_received(b"hello")
                assert recorder.transport.peer_pid == os.getpid()
                recorder.transport.write(b"wor")
                recorder.transport.write(b"ld")
                assert await read_exactly(client, 5) == b"world"
            await recorder.until_told("lost")
            assert recorder.events == ["lost"]

    run(main)


def test_a_client_that_shuts_its_half_still_gets_answers(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            with connected(path) as client:
                client.sendall(b"question")
                client.shutdown(socket.SHUT_WR)
                recorder = await door.next()
                await recorder.until_told("ended")
                assert recorder.data == b"question"
                recorder.transport.write(b"answer")
                assert await read(client) == b"answer"
                recorder.transport.write(b"goodbye")
                recorder.transport.close()
                assert await read_all(client) == b"goodbye"
            await recorder.until_told("lost")
            assert recorder.events == ["ended", "lost"]

    run(main)


def test_the_end_of_input_is_told_once_though_reading_stops_and_goes_on(
    run: Any, make_door: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            with connected(path) as client:
                client.shutdown(socket.SHUT_WR)
                recorder = await door.next()
                await recorder.until_told("ended")
                recorder.transport.pause_reading()
                recorder.transport.resume_reading()
                with connected(path) as other:  # so the loop has looked again
                    other.sendall(b"x")
                    await (await door.next()).until_received(b"x")
                assert recorder.events == ["ended"]

    run(main)


def test_a_client_that_is_killed_is_lost_at_once(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            with process(CLIENT, path) as client:
                recorder = await door.next()
                assert recorder.transport.peer_pid == client.pid
                await recorder.until_received(b"x")
                client.send_signal(signal.SIGKILL)
                await recorder.until_told("lost")
            assert recorder.events == ["lost"]

    run(main)


def test_a_client_that_leaves_after_its_half_close_is_noticed(
    run: Any, make_door: Any, tmp_path: Path
) -> None:
    """Nothing is written to it, and nothing can be read from it any more."""

    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (server, path):
            for _ in range(2):  # the second time with an epoll of its own again
                clients = [connected(path) for _ in range(3)]
                await door.until(lambda: len(door.came) % 3 == 0 and bool(door.came))
                recorders = door.came[-3:]
                for client in clients:
                    client.shutdown(socket.SHUT_WR)
                for recorder in recorders:
                    await recorder.until_told("ended")
                clients[1].close()
                await asyncio.wait(
                    [asyncio.ensure_future(r.until_told("lost")) for r in recorders],
                    return_when=asyncio.FIRST_COMPLETED,
                    timeout=20,
                )
                assert sum("lost" in r.events for r in recorders) == 1
                clients[0].close()
                clients[2].close()
                for recorder in recorders:
                    await recorder.until_told("lost")
                assert server.open == 0
                door.came.clear()

    run(main)


def test_reading_stops_and_goes_on(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            with connected(path) as client:
                recorder = await door.next()
                recorder.transport.pause_reading()
                recorder.transport.pause_reading()
                client.sendall(b"later")
                with connected(path) as other:
                    other.sendall(b"x")
                    await (await door.next()).until_received(b"x")
                assert recorder.data == b""
                recorder.transport.resume_reading()
                recorder.transport.resume_reading()
                await recorder.until_received(b"later")

    run(main)


def test_a_client_that_does_not_read_is_told_of(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            with connected(path) as client:
                recorder = await door.next()
                assert recorder.transport.unsent() == 0
                total = 0
                while "stalled" not in recorder.events:
                    recorder.transport.write(b"x" * 100_000)
                    total += 100_000
                    assert total < 4 * SOFT_BYTES
                assert recorder.transport.unsent() > SOFT_BYTES
                assert recorder.events == ["stalled"]
                received = 0
                while received < total:
                    received += len(await read(client, 1 << 20))
                await recorder.until_told("flowing")
                assert recorder.events == ["stalled", "flowing"]
                assert recorder.transport.unsent() == 0

    run(main)


def test_close_sends_what_is_unsent_and_abort_does_not(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            with connected(path) as client:
                recorder = await door.next()
                recorder.transport.write(b"x" * 3_000_000)
                recorder.transport.close()
                assert len(await read_all(client)) == 3_000_000
                await recorder.until_told("lost")
                recorder.transport.write(b"nobody")
                recorder.transport.pause_reading()
                recorder.transport.resume_reading()
                recorder.transport.close()
                recorder.transport.abort()
                assert recorder.transport.unsent() == 0
            with connected(path) as client:
                recorder = await door.next()
                recorder.transport.write(b"x" * 3_000_000)
                recorder.transport.abort()
                await recorder.until_told("lost")
                assert len(await read_all(client)) < 3_000_000

    run(main)


def test_too_many_are_turned_away(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path, limit=2) as (server, path):
            clients = [connected(path) for _ in range(2 + transport_socket.TURNED_AWAY)]
            await door.until(lambda: len(door.turned_away) == transport_socket.TURNED_AWAY)
            assert len(door.came) == 2
            assert {recorder.limit for recorder in door.turned_away} == {2}
            with connected(path) as one_more:
                assert await read_all(one_more) == b""
            door.turned_away[0].transport.write(b"no")
            door.turned_away[0].transport.close()
            await door.turned_away[0].until_told("lost")
            clients[0].close()
            await door.came[0].until_told("lost")
            with connected(path):
                await door.until(lambda: len(door.came) == 3)
            for client in clients:
                client.close()
            assert server.open >= 0

    run(main)


def test_one_turned_away_that_says_nothing_is_closed(
    run: Any, make_door: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_socket, "TURN_AWAY_S", 0.0)

    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path, limit=0) as (_, path):
            with connected(path) as client:
                assert await read_all(client) == b""
                assert door.turned_away[0].events in (["lost"], ["ended", "lost"])

    run(main)


def test_another_user_is_not_let_in(
    run: Any, make_door: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (_, path):
            ourselves = os.getuid()
            monkeypatch.setattr(os, "getuid", lambda: ourselves + 1)
            with connected(path) as client:
                client.sendall(b"hello")
                with contextlib.suppress(ConnectionResetError):
                    assert await read_all(client) == b""
            monkeypatch.undo()
            with connected(path) as client:
                client.sendall(b"hello")
                await (await door.next()).until_received(b"hello")
            assert len(door.came) == 1

    run(main)


def test_connections_accepted_elsewhere_are_served(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        server = SocketServer(door, 5)
        ours, theirs = socket.socketpair()
        with ours:
            await server.adopt(theirs)
            ours.sendall(b"hello")
            await door.came[0].until_received(b"hello")
        await door.came[0].until_told("lost")
        server.close()

    run(main)


def test_closing_the_door_leaves_connections_alone(run: Any, make_door: Any, tmp_path: Path) -> None:
    async def main() -> None:
        door = make_door()
        async with serving(door, tmp_path) as (server, path):
            with connected(path) as client:
                recorder = await door.next()
                server.close()
                server.close()
                assert os.path.exists(path)  # whose file it is, is not the transport's to say  # noqa: ASYNC240
                with pytest.raises(ConnectionRefusedError):
                    connected(path)
                client.sendall(b"still here")
                await recorder.until_received(b"still here")

    run(main)
