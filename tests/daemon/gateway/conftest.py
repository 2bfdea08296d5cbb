"""A gateway in front of the simulator, and a client of it."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from dragoman_sim import Simulator
from dragomand.engine.admission import Admission
from dragomand.engine.calls import Calls
from dragomand.gateway.gateway import Gateway, GatewaySettings

KEY = "sk-ant-api03-of-the-daemon-alone"
PATIENCE_S = 20.0
ASK = {"model": "claude-x", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


class At:
    """What a test has."""

    key: str | None = KEY
    ask = ASK

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.stack = stack
        self.admission: Admission
        self.calls: Calls
        self.gateway: Gateway

    def make(self, *, max_calls: int = 4, queue_timeout_s: float = PATIENCE_S, **settings: Any) -> Gateway:
        self.admission = Admission(
            max_running=1, max_queued=4, max_queued_per_client=2, max_calls=max_calls, clock=time.monotonic
        )
        self.calls = Calls(self.admission, clock=lambda: 1000.0, queue_timeout_s=queue_timeout_s)
        self.gateway = Gateway(
            calls=self.calls,
            api_key=lambda: self.key,
            settings=GatewaySettings(**settings),
            runtime_dir=str(self.folder),
            clock=time.time,
            logger=logging.getLogger("test.gateway"),
        )
        self.stack.push_async_callback(self.gateway.close)
        return self.gateway

    async def client(self, access: Any) -> aiohttp.ClientSession:
        """Return a client that reaches the gateway as *access* says, and has its token."""
        path = access.unix_socket
        connector = aiohttp.TCPConnector() if path is None else aiohttp.UnixConnector(path)
        session = aiohttp.ClientSession(
            access.base_url,
            connector=connector,
            headers={"authorization": f"Bearer {access.token}"},
            timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        )
        return await self.stack.enter_async_context(session)

    async def caller(self, script: Any = (), **made: Any) -> tuple[Simulator, aiohttp.ClientSession]:
        """Return a simulator behind a new gateway, and a client in front of it."""
        sim = await self.stack.enter_async_context(Simulator(script))
        self.make(base_url=sim.url, **made)
        return sim, await self.client(await self.gateway.issue("a program", False))

    @staticmethod
    async def until(condition: Any) -> None:
        """Let everything else run until *condition* holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # there is no event to wait for
                await asyncio.sleep(0)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[At]:
    async with AsyncExitStack() as stack:
        yield At(tmp_path / "run", stack)
