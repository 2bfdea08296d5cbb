"""The Messages API upstream against the simulator."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dragoman_protocol.stream import Event
from dragoman_sim import Simulator
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk, RunSpec, TurnOutcome
from dragomand.upstream.messages_api import DirectSettings, MessagesApi

KEY = "sk-ant-api03-direct-test"
DEADLINE_S = 20.0


class Events(list[Event]):
    """A sink that remembers, and can be waited on."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.append(event)
        self._changed.set()

    async def wait_for(self, kind: type) -> Any:
        """Return the first event of *kind*, once it is there."""
        async with asyncio.timeout(DEADLINE_S):
            while not (found := self.of(kind)):
                self._changed.clear()
                await self._changed.wait()
        return found[0]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]


async def nobody(_: PermissionAsk) -> PermissionAnswer:
    raise AssertionError("there are no tools to ask for")


@dataclass
class Talk:
    """One run and the simulator behind it."""

    sim: Simulator
    api: MessagesApi
    run: Any

    async def send(self, prompt: Any, sink: Callable[[Event], None] | None = None) -> TurnOutcome:
        async with asyncio.timeout(DEADLINE_S):
            return await self.run.send(prompt, str(uuid.uuid4()), Events() if sink is None else sink)

    def body(self, at: int = -1) -> dict[str, Any]:
        """What was sent."""
        found: dict[str, Any] = msgspec.json.decode(self.sim.messages[at].body)
        return found


class Kit:
    """What the tests share."""

    KEY = KEY
    Events = Events
    nobody = staticmethod(nobody)

    @staticmethod
    def spec(**choices: Any) -> RunSpec:
        return RunSpec(**{"session_id": "s", "cwd": Path("/"), **choices})

    @asynccontextmanager
    async def api(self, url: str, *, key: str | None = KEY, **settings: Any) -> AsyncIterator[MessagesApi]:
        api = MessagesApi(api_key=lambda: key, settings=DirectSettings(base_url=url, **settings))
        try:
            yield api
        finally:
            await api.close()

    @asynccontextmanager
    async def talk(
        self, rules: Any = (), *, settings: dict[str, Any] | None = None, **choices: Any
    ) -> AsyncIterator[Talk]:
        async with AsyncExitStack() as stack:
            sim = await stack.enter_async_context(Simulator(rules))
            api = await stack.enter_async_context(self.api(sim.url, **(settings or {})))
            yield Talk(sim, api, await api.open(self.spec(**choices), nobody))


@pytest.fixture
def kit() -> Kit:
    return Kit()


# -- clouds


class CredentialServer:
    """Gives out what it is told to, on 127.0.0.1: an instance's role, or Google's token service."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        """The last one stays."""
        self.asked = 0
        self.open = asyncio.Event()
        """Answers wait for it."""
        self.open.set()
        self.waiting = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if b"content-length" in line), b":0")
            await reader.readexactly(int(length.partition(b":")[2]))
            self.asked += 1
            self.waiting.set()
            await self.open.wait()
            status, answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
            body = json.dumps(answer).encode()
            lines = f"HTTP/1.1 {status} So\r\ncontent-type: application/json\r\nconnection: close\r\n"
            writer.write(f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever asked has given up
        finally:
            writer.close()


@pytest.fixture
async def credential_server() -> AsyncIterator[CredentialServer]:
    known = CredentialServer()
    server = await asyncio.start_server(known.serve, "127.0.0.1", 0)
    known.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield known
    finally:
        known.open.set()
        server.close()
        await server.wait_closed()


@pytest.fixture
def no_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without any cloud's credentials, in which nobody looks for an instance's; returns it."""
    clouds = ("AWS_", "GOOGLE_", "CLOUDSDK_", "GCE_", "ANTHROPIC_", "BOTO")
    for name in list(os.environ):
        if name.startswith(clouds) or "PROXY" in name.upper():
            monkeypatch.delenv(name)
    kept = {
        "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "aws-config"), "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "aws-credentials"), "PATH": str(tmp_path),
    }  # fmt: skip
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    return tmp_path
