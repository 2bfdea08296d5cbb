"""A daemon's life on its socket, in this process; whole daemons are in tests/process."""

import asyncio
import json
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import Paths, connect, find_paths, read_record
from dragomand.app import App
from dragomand.life import Life
from dragomand.process.listen import bind
from dragomand.process.lock import InstanceLock
from dragomand.process.paths import prepare
from dragomand.settings import Config, DaemonSettings
from dragomand.transport.socket import SocketServer

LIMIT_S = 20


class Client:
    """A client that knows no more than lines of JSON."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def at(cls, paths: Paths) -> "Client":
        return cls(*await asyncio.open_unix_connection(sock=connect(paths)))

    async def initialize(self) -> Any:
        self.writer.write(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n')
        async with asyncio.timeout(LIMIT_S):
            return json.loads(await self.reader.readline())

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Daemon:
    """One life and what is around it."""

    def __init__(self, app: App, paths: Paths, life: Life) -> None:
        self.app = app
        self.paths = paths
        self.life = life
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(life.run(self.ready.set))

    async def misses_its_socket(self) -> None:
        """Tell it so, and wait until it has done about it what it can."""
        done = asyncio.Event()
        bind_anew = self.life._bind_anew

        async def and_say_so(sockets: SocketServer) -> None:
            await bind_anew(sockets)
            done.set()

        self.life._bind_anew = and_say_so  # type: ignore[method-assign]
        self.life.look_at_socket()
        async with asyncio.timeout(LIMIT_S):
            await done.wait()

    async def ended(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await self.task


@asynccontextmanager
async def living(folder: Path, idle_exit_ms: int) -> AsyncIterator[Daemon]:
    paths = find_paths({"HOME": str(folder)})
    prepare(paths)
    lock = InstanceLock.acquire(paths)
    listener = bind(lock)
    try:
        async with App.open(
            config=Config(daemon=DaemonSettings(idle_exit_ms=idle_exit_ms)),
            paths=paths,
            environment={"HOME": str(folder)},
            logger=logging.getLogger("dragomand"),
        ) as app:
            daemon = Daemon(app, paths, Life(app, lock, listener))
            async with asyncio.timeout(LIMIT_S):
                await daemon.ready.wait()
            yield daemon
            app.stopping.set()
            await daemon.ended()
    finally:
        listener.close()
        lock.release()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


async def test_it_leaves_once_its_last_client_has_left(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dragomand")
    async with living(folder, idle_exit_ms=1) as daemon:
        one, two = await Client.at(daemon.paths), await Client.at(daemon.paths)
        assert "result" in await one.initialize()
        await one.close()
        assert "result" in await two.initialize()
        assert not daemon.task.done()
        await two.close()
        await daemon.ended()
    assert os.listdir(daemon.paths.runtime_dir) == []
    assert "leaving: nobody has needed the daemon" in caplog.messages


async def test_with_0_it_never_leaves_by_itself(folder: Path) -> None:
    async with living(folder, idle_exit_ms=0) as daemon:
        client = await Client.at(daemon.paths)
        await client.initialize()
        await client.close()
        assert daemon.life._idle_timer is None
        assert not daemon.task.done()


async def test_whoever_waits_at_the_door_of_a_leaving_daemon_is_served(folder: Path) -> None:
    """Somebody connects when it has decided to leave, and before its event loop could look at the socket."""
    async with living(folder, idle_exit_ms=1) as daemon:
        decide = daemon.life._somebody_came
        late: asyncio.Queue[tuple[socket.socket, bool]] = asyncio.Queue()

        async def somebody_comes(sockets: SocketServer) -> bool:
            daemon.life._somebody_came = decide  # type: ignore[method-assign]
            connection = connect(daemon.paths)
            came = await decide(sockets)
            late.put_nowait((connection, came))
            return came

        daemon.life._somebody_came = somebody_comes  # type: ignore[method-assign]
        first = await Client.at(daemon.paths)
        await first.initialize()
        await first.close()
        async with asyncio.timeout(LIMIT_S):
            connection, came = await late.get()
        assert came
        client = Client(*await asyncio.open_unix_connection(sock=connection))
        assert "result" in await client.initialize()
        another = await Client.at(daemon.paths)
        assert "result" in await another.initialize()
        assert not daemon.task.done()
        await client.close()
        await another.close()
        await daemon.ended()


async def test_a_socket_that_was_removed_is_bound_anew(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with living(folder, idle_exit_ms=0) as daemon:
        before = await Client.at(daemon.paths)
        await before.initialize()
        daemon.life.look_at_socket()  # nothing is missing
        shutil.rmtree(daemon.paths.runtime_dir)
        await daemon.misses_its_socket()
        assert read_record(daemon.paths)["socket"] == daemon.paths.socket
        after = await Client.at(daemon.paths)
        assert "result" in await after.initialize()
        before.writer.write(b'{"jsonrpc":"2.0","id":2,"method":"daemon/status"}\n')
        async with asyncio.timeout(LIMIT_S):
            assert json.loads(await before.reader.readline())["result"]["socket"] == daemon.paths.socket
        await before.close()
        await after.close()
    assert caplog.messages == ["the socket was removed, and bound anew"]


async def test_a_socket_that_cannot_be_bound_anew_is_told_in_the_log(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with living(folder, idle_exit_ms=0) as daemon:
        os.unlink(daemon.paths.socket)
        os.mkdir(daemon.paths.socket)
        await daemon.misses_its_socket()
        os.rmdir(daemon.paths.socket)
        await daemon.misses_its_socket()  # the next who misses it has more luck
        await (await Client.at(daemon.paths)).close()
    assert caplog.messages == [
        "the socket was removed and cannot be bound anew",
        "the socket was removed, and bound anew",
    ]
    assert "is not a socket" in caplog.records[0].__dict__["reason"]


async def test_a_daemon_that_leaves_names_no_socket(folder: Path) -> None:
    async with living(folder, idle_exit_ms=0) as daemon:
        daemon.life._lock.record(daemon.paths.socket, "1")
        client = await Client.at(daemon.paths)
        await client.initialize()
        daemon.app.stopping.set()
        await daemon.ended()
        assert read_record(daemon.paths)["socket"] is None
        await client.close()


async def test_the_six_phases(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dragomand")
    async with living(folder, idle_exit_ms=0) as daemon:
        client = await Client.at(daemon.paths)
        await client.initialize()
        waiting = connect(daemon.paths)
        daemon.life.hurry()
        await daemon.ended()
        async with asyncio.timeout(LIMIT_S):
            assert await client.reader.read() == b""
        await client.close()
        waiting.close()
    phases = [message for message in caplog.messages if message.startswith("stopping: ")]
    assert [message.split()[1] for message in phases] == ["1", "2", "3", "4", "5", "6"]


async def test_whoever_comes_between_the_bell_and_the_decision_keeps_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_leaving = Life._until_leaving
    came: asyncio.Queue[Client] = asyncio.Queue()

    async def somebody_comes_then(life: Life) -> None:
        await until_leaving(life)
        if Life._until_leaving is not until_leaving:
            monkeypatch.undo()
            client = await Client.at(life._app.paths)
            await client.initialize()
            came.put_nowait(client)

    monkeypatch.setattr(Life, "_until_leaving", somebody_comes_then)
    async with living(folder, idle_exit_ms=1) as daemon:
        first = await Client.at(daemon.paths)
        await first.initialize()
        await first.close()
        async with asyncio.timeout(LIMIT_S):
            client = await came.get()
        another = await Client.at(daemon.paths)
        assert "result" in await another.initialize()
        assert not daemon.task.done()
        await another.close()
        await client.close()
        await daemon.ended()


async def test_whoever_waits_at_the_door_of_a_stopping_daemon_is_told_so(folder: Path) -> None:
    async with living(folder, idle_exit_ms=0) as daemon:
        stop = daemon.life._stop
        waiting: asyncio.Queue[socket.socket] = asyncio.Queue()

        async def somebody_comes_then(sockets: SocketServer) -> None:
            waiting.put_nowait(connect(daemon.paths))
            await stop(sockets)

        daemon.life._stop = somebody_comes_then  # type: ignore[method-assign]
        running = await Client.at(daemon.paths)
        await running.initialize()
        daemon.app.stopping.set()
        async with asyncio.timeout(LIMIT_S):
            client = Client(*await asyncio.open_unix_connection(sock=await waiting.get()))
            answer = await client.initialize()
        assert answer["error"]["data"]["kind"] == "draining"
        assert answer["error"]["data"]["retryable"] is True
        await daemon.ended()
        await client.close()
        await running.close()
