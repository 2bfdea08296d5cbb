"""Tasks for turns: as cheap to start as asyncio's own, and yet owned by a task group.

A task of an anyio group costs five times one of asyncio's, which a plain call of the API would feel. So the
group has one task, the keeper, and the keeper has all of these: the group does not end before they have, and
when the group is cancelled, so are they.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import anyio
from anyio.abc import TaskGroup


class TurnTasks:
    """Starts tasks and keeps them. Each must see to its own exceptions."""

    def __init__(self, group: TaskGroup) -> None:
        """Let *group* own what is started."""
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept = False
        self._ended = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry *work* out in a task."""
        if not self._kept:
            self._kept = True
            self._group.start_soon(self._keep)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self) -> None:
        """Let the group end once the tasks have; what is started from now on is kept, too."""
        self._ended.set()

    async def _keep(self) -> None:
        try:
            await self._ended.wait()
        except asyncio.CancelledError:
            for task in self._tasks:
                task.cancel()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                while self._tasks:
                    await asyncio.wait(self._tasks)
            self._kept = False


class Beside:
    """What goes on beside one turn, and ends with it: mostly nothing."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        """Begin with nothing."""
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry *work* out; it must end by itself soon after the turn has its answer."""
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    async def end(self) -> None:
        """Wait until all of it has ended, even when cancelled; raises what it raised."""
        if self._tasks:
            with anyio.CancelScope(shield=True):
                while self._tasks:
                    await self._tasks.pop(0)
