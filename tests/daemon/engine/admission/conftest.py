"""A door in a time of its own, which goes on only when everybody waits: hours pass in milliseconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from dragomand.engine.admission import Admission, Asked, DoorSettings, Permit, Told
from dragomand.engine.errors import EngineError

WALL = 1_800_000_000.0
"""The Unix time at which every test begins."""


class _Jumping(selectors.DefaultSelector):
    """Waits in no time: where nothing comes from outside, the next timer is due at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and nothing will ever happen"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer."""

    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.jumping.now


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* to its end, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


def door(*, chance: float = 0.0, **figures: Any) -> Admission:
    """A door whose clock is the running loop's."""
    loop = asyncio.get_running_loop()
    return Admission(
        DoorSettings(**figures), clock=loop.time, wall=lambda: WALL + loop.time(), chance=lambda: chance
    )


class Guest:
    """Somebody who enters, stays until told to leave or for some time, and notes what became of it."""

    def __init__(
        self,
        admission: Admission,
        client: str = "ann",
        *,
        kind: str = "turn",
        stays_s: float | None = None,
        end: Callable[[Permit], None] = lambda _: None,
        **asked: Any,
    ) -> None:
        self.told: list[Told] = []
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.permit: Permit | None = None
        self.entered_at: float | None = None
        self.came_at = asyncio.get_running_loop().time()
        self._end = end
        self._stays_s = stays_s
        ask = Asked(client=client, **asked)
        admit = admission.admit if kind == "turn" else admission.admit_call
        self._door = admit(ask, self.told.append)
        self.task = asyncio.create_task(self._visit())

    async def _visit(self) -> None:
        async with self._door as permit:
            self.permit = permit
            self.entered_at = asyncio.get_running_loop().time()
            self.inside.set()
            if self._stays_s is None:
                await self.leave.wait()
            else:
                await asyncio.sleep(self._stays_s)
            self._end(permit)

    @property
    def waited_s(self) -> float:
        assert self.entered_at is not None
        return self.entered_at - self.came_at

    async def go(self) -> None:
        self.leave.set()
        await self.task

    async def refused(self) -> EngineError:
        with pytest.raises(EngineError) as error:
            await self.task
        return error.value


async def settle() -> None:
    """Let every task that can run do so: they wait for nothing but each other."""
    for _ in range(20):
        await asyncio.sleep(0)


class Kit:
    """What the tests here use of this file."""

    run = staticmethod(run)
    door = staticmethod(door)
    Guest = Guest
    settle = staticmethod(settle)
    WALL = WALL


@pytest.fixture
def at() -> type[Kit]:
    return Kit
