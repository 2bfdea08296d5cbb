"""Runs a transcript: reads it, brings up what it needs, speaks the client's part and checks the daemon's."""

import asyncio
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from dragoman import locate
from dragoman.launch import ensure_daemon
from dragoman_protocol.codec import Decoder, Framing, encode_frame
from dragoman_sim import Simulator, read_script

DEADLINE_S = 30.0
KEY = "sk-ant-api03-transcript-key"
STEP = re.compile(r"^(?P<who>[A-Z]?)(?P<what>[→←⇠]) (?P<json>[\[{].*)$|^⏵ (?P<action>.+)$")


class Wire(Protocol):
    """A client's end of a connection, bytes only."""

    async def send(self, data: bytes) -> None: ...

    async def read(self) -> bytes: ...

    async def close(self) -> None: ...


class Daemon(Protocol):
    """A daemon that clients can be connected to, and that can be restarted."""

    framing: Framing

    async def connect(self) -> Wire: ...

    async def restart(self) -> None: ...


class MemoryDaemon:
    """The daemon in this process, without a socket."""

    framing: Framing = "lines"

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.stack = AsyncExitStack()

    async def start(self) -> None:
        from dragomand.app import App
        from dragomand.config import load
        from dragomand.process.paths import prepare

        paths = locate.find_paths(self.env)
        prepare(paths)
        self.app = await self.stack.enter_async_context(
            App.open(
                config=load(self.env, paths),
                paths=paths,
                environment=self.env,
                logger=logging.getLogger("dragomand.transcripts"),
            )
        )

    async def connect(self) -> Wire:
        from dragomand.transport import memory

        end = memory.connect(self.app.server)

        class _Wire:
            async def send(self, data: bytes) -> None:
                end.write(data)

            async def read(self) -> bytes:
                return await end.read()

            async def close(self) -> None:
                end.close()

        return _Wire()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        if hasattr(self, "app"):
            self.app.engine.stop_all()
            await self.app.server.flush_and_close(5.0)
            await self.stack.aclose()


class SocketDaemon:
    """The daemon in a process of its own, spoken to over its socket."""

    framing: Framing = "headers"

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.paths = locate.find_paths(env)

    async def start(self) -> None:
        (await asyncio.to_thread(ensure_daemon, self.paths, self.env)).close()

    async def connect(self) -> Wire:
        reader, writer = await asyncio.open_unix_connection(self.paths.socket)
        return _StreamWire(reader, writer)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        pid = locate.read_record(self.paths).get("pid")
        if isinstance(pid, int):
            await asyncio.to_thread(_end, pid)


class StdioDaemon(SocketDaemon):
    """The same, each client through a `dragoman stdio` of its own."""

    async def start(self) -> None:
        """`dragoman stdio` starts it."""

    async def connect(self) -> Wire:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dragoman.cli.main", "stdio",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.env,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        return _StreamWire(process.stdout, process.stdin, process)


class _StreamWire:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        process: asyncio.subprocess.Process | None = None,
    ) -> None:
        self.reader, self.writer, self.process = reader, writer, process

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self) -> bytes:
        return await self.reader.read(65536)

    async def close(self) -> None:
        self.writer.close()
        if self.process is not None:
            try:
                await asyncio.wait_for(self.process.wait(), DEADLINE_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


class Talker:
    """One client of a transcript."""

    def __init__(self, wire: Wire, framing: Framing) -> None:
        self.wire = wire
        self.framing = framing
        self.decoder = Decoder(framing=framing)
        self.arrived: list[Any] = []

    async def say(self, text: str) -> None:
        await self.wire.send(encode_frame(text.encode(), self.framing))

    async def hear(self) -> Any:
        while not self.arrived:
            data = await asyncio.wait_for(self.wire.read(), DEADLINE_S)
            if not data:
                raise EOFError("the daemon closed the connection")
            frames = [frame for frame in self.decoder.feed(data) if isinstance(frame, bytes)]
            self.arrived += map(json.loads, frames)
        return self.arrived.pop(0)


class Transcript:
    """One file, in one run."""

    def __init__(self, path: Path, daemon: Daemon, sim: Simulator, cwd: Path) -> None:
        self.path = path
        self.daemon = daemon
        self.sim = sim
        self.cwd = cwd
        self.names: dict[str, Any] = {"cwd": str(cwd)}
        self.talkers: dict[str, Talker] = {}

    async def run(self) -> int:
        """Carry out every step; returns how many there were."""
        steps = 0
        for number, line in enumerate(self.path.read_text().splitlines(), 1):
            step = STEP.match(line)
            if step is None:
                continue
            steps += 1
            try:
                await self.step(step)
            except Exception as failed:
                where = f"{self.path.name}:{number}: {line}"
                raise AssertionError(f"{where}\n  {type(failed).__name__}: {failed}") from failed
        return steps

    async def step(self, step: re.Match[str]) -> None:
        if step["action"]:
            await self.act(*step["action"].split(" ", 2))
            return
        who, text = step["who"], self.fill(step["json"])
        if who not in self.talkers:
            self.talkers[who] = Talker(await self.daemon.connect(), self.daemon.framing)
        talker = self.talkers[who]
        if step["what"] == "→":
            await talker.say(text)
        elif step["what"] == "←":
            came = await talker.hear()
            why = self.mismatch(json.loads(text), came, "$")
            assert why is None, f"{why}\n  came: {json.dumps(came)}"
        else:
            await self.await_match(talker, json.loads(text))

    async def await_match(self, talker: Talker, pattern: Any) -> None:
        passed = []
        while True:
            try:
                came = await talker.hear()
            except (EOFError, TimeoutError) as gone:
                raise AssertionError(f"it never came ({gone!r}); passed over: {json.dumps(passed)}") from gone
            names = dict(self.names)
            if self.mismatch(pattern, came, "$") is None:
                return
            self.names = names
            passed.append(came)

    async def act(self, action: str, name: str = "", more: str = "") -> None:
        if action == "gate" and more == "arrived":
            await asyncio.wait_for(self.sim.gate(name).wait_arrived(), DEADLINE_S)
        elif action == "gate" and more == "open":
            await self.sim.gate(name).open()
        elif action == "restart":
            for talker in self.talkers.values():
                await talker.wire.close()
            self.talkers.clear()
            await self.daemon.restart()
        elif action == "file":
            assert more in (self.cwd / name).read_text()
        elif action == "closed":
            with pytest.raises(EOFError):
                raise AssertionError(f"a message came instead: {await self.talkers[''].hear()}")
        else:
            raise ValueError(f"no such step: {action} {name} {more}")

    def fill(self, text: str) -> str:
        def value(name: re.Match[str]) -> str:
            known = self.names[name[1]]
            return json.dumps(known)[1:-1] if isinstance(known, str) else json.dumps(known)

        return re.sub(r"\{\{(\w+)\}\}", value, text)

    def mismatch(self, pattern: Any, came: Any, path: str) -> str | None:
        """Why *came* does not match, or None."""
        if isinstance(pattern, str) and (named := re.fullmatch(r"<(\w+|\*)>", pattern)):
            name = named[1]
            if name == "*" or self.names.setdefault(name, came) == came:
                return None
            return f"{path}: <{name}> was {self.names[name]!r}"
        if isinstance(pattern, dict) and isinstance(came, dict):
            for key, part in pattern.items():
                if key not in came:
                    return f"{path}.{key} is missing"
                why = self.mismatch(part, came[key], f"{path}.{key}")
                if why is not None:
                    return why
            return None
        if isinstance(pattern, list) and isinstance(came, list) and len(pattern) == len(came):
            pairs = enumerate(zip(pattern, came, strict=True))
            whys = (self.mismatch(part, each, f"{path}[{at}]") for at, (part, each) in pairs)
            return next((why for why in whys if why is not None), None)
        same = type(pattern) is type(came) and pattern == came
        return None if same else f"{path}: expected {pattern!r}"

    async def close(self) -> None:
        for talker in self.talkers.values():
            await talker.wire.close()


def _end(pid: int) -> None:
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor):
        os.kill(pid, signal.SIGTERM)
        if not select.select([descriptor], [], [], 20)[0]:
            os.kill(pid, signal.SIGKILL)


Play = Callable[[Path, str], Awaitable[int]]
MODES: dict[str, type[Any]] = {"memory": MemoryDaemon, "socket": SocketDaemon, "stdio": StdioDaemon}


@asynccontextmanager
async def stage(path: Path, mode: str, folder: Path) -> AsyncIterator[Transcript]:
    """Bring up simulator and daemon for one transcript."""
    text = await asyncio.to_thread(path.read_text)
    script = re.search(r"^```json simulator\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    home, cwd, runtime = folder / "home", folder / "work", folder / "run"
    for each in (home, cwd, runtime):
        each.mkdir(mode=0o700)
    async with Simulator(read_script(script[1]) if script else []) as sim:
        env = {
            "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PATH": os.environ["PATH"],
            "ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": KEY, "DRAGOMAN_DAEMON__GRACE_MS": "0",
            "DRAGOMAN_CLAUDE__MAX_RETRIES": "0", "DRAGOMAN_RETRY__MAX_ATTEMPTS": "1",
        }  # fmt: skip
        env |= {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
        more = re.search(r"^```json environment\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for name, value in json.loads(more[1]).items() if more else ():
            env.pop(name, None)
            if value is not None:
                env[name] = value.replace("{{sim}}", sim.url)
        daemon = MODES[mode](env)
        transcript = Transcript(path, daemon, sim, cwd)
        try:
            await daemon.start()
            yield transcript
        finally:
            await transcript.close()
            await daemon.stop()


@pytest.fixture
def play(tmp_path: Path) -> Play:
    async def run(path: Path, mode: str) -> int:
        folder = tmp_path / "t"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        async with stage(path, mode, folder) as transcript:
            return await transcript.run()

    return run
