"""Receivers that write down what they are told, on either event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from dragomand.transport.interface import Transport

DEADLINE_S = 20.0
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Recorder:
    """A receiver."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.data = b""
        self.events: list[str] = []
        self.echo = False
        self.limit: int | None = None
        self._told = asyncio.Event()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not true():
                self._told.clear()
                await self._told.wait()

    async def until_told(self, event: str) -> None:
        await self.until(lambda: event in self.events)

    async def until_received(self, data: bytes) -> None:
        await self.until(lambda: len(self.data) >= len(data))
        assert self.data == data

    def received(self, data: bytes) -> None:
        self.data += data
        if self.echo:
            self.transport.write(data)
        self._told.set()

    def ended(self) -> None:
        self._tell("ended")

    def stalled(self) -> None:
        self._tell("stalled")

    def flowing(self) -> None:
        self._tell("flowing")

    def lost(self) -> None:
        self._tell("lost")

    def _tell(self, event: str) -> None:
        self.events.append(event)
        self._told.set()


class Door:
    """Opens to everybody."""

    def __init__(self) -> None:
        self.came: list[Recorder] = []
        self.turned_away: list[Recorder] = []
        self._knocked = asyncio.Event()

    def accept(self, transport: Transport) -> Recorder:
        self.came.append(Recorder(transport))
        self._knocked.set()
        return self.came[-1]

    def turn_away(self, transport: Transport, limit: int) -> Recorder:
        self.turned_away.append(Recorder(transport))
        self.turned_away[-1].limit = limit
        self._knocked.set()
        return self.turned_away[-1]

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not true():
                self._knocked.clear()
                await self._knocked.wait()

    async def next(self) -> Recorder:
        """Wait for one more and return it."""
        count = len(self.came)
        await self.until(lambda: len(self.came) > count)
        return self.came[-1]


@pytest.fixture
def make_door() -> type[Door]:
    return Door


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    """Run a coroutine function on one loop and then on the other."""

    def run_(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(main())

    return run_
