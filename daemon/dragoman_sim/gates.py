"""Named gates: where a reply waits until a test lets it go on."""

from __future__ import annotations

import asyncio


class GateControl:
    """One gate. It is closed until it is opened, and then stays open until it is closed again."""

    def __init__(self, name: str) -> None:
        """Create the closed gate *name*."""
        self.name = name
        self.waiting = 0
        """How many replies wait here now."""
        self.arrived = 0
        """How many replies have come here so far."""
        self._changed = asyncio.Condition()
        self._is_open = False
        self._releases = 0

    @property
    def is_open(self) -> bool:
        """Whether replies pass without waiting."""
        return self._is_open

    async def open(self) -> None:
        """Let everyone pass, from now on."""
        self._is_open = True
        await self.release()

    def close(self) -> None:
        """Let nobody pass who comes from now on."""
        self._is_open = False

    async def release(self) -> None:
        """Let those pass who wait here now; the gate stays as it is."""
        async with self._changed:
            self._releases += 1
            self._changed.notify_all()

    async def wait_arrived(self, count: int = 1, deadline_s: float = 10.0) -> None:
        """Wait until *count* replies have come here, passed or not. Raises `TimeoutError`."""
        try:
            async with asyncio.timeout(deadline_s), self._changed:
                await self._changed.wait_for(lambda: self.arrived >= count)
        except TimeoutError:
            raise TimeoutError(
                f"Expected {count} replies at gate {self.name!r} within {deadline_s:g} s, {self.arrived} came"
            ) from None

    async def passed(self) -> None:
        """Wait here as a reply does."""
        async with self._changed:
            self.arrived += 1
            self.waiting += 1
            self._changed.notify_all()
            before = self._releases
            try:
                await self._changed.wait_for(lambda: self._is_open or self._releases > before)
            finally:
                self.waiting -= 1


class Gates:
    """The gates of a simulator by name, made when first spoken of."""

    def __init__(self) -> None:
        """Begin without any."""
        self._gates: dict[str, GateControl] = {}

    def __getitem__(self, name: str) -> GateControl:
        """Return the gate *name*."""
        gate = self._gates.get(name)
        if gate is None:
            gate = self._gates[name] = GateControl(name)
        return gate

    def states(self) -> dict[str, dict[str, int | bool]]:
        """Return each gate's `open`, `waiting` and `arrived`."""
        return {
            name: {"open": gate.is_open, "waiting": gate.waiting, "arrived": gate.arrived}
            for name, gate in self._gates.items()
        }
