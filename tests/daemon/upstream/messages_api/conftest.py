"""The Messages API upstream against the simulator."""

import asyncio
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
