"""Writes one answer to its connection, step by step, as far as the script lets it come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from dragoman_sim.event_stream import converted
from dragoman_sim.gates import Gates
from dragoman_sim.http import LAST_CHUNK, Connection, chunk, head
from dragoman_sim.plan import PING, Step, error_event
from dragoman_sim.records import Log, Record
from dragoman_sim.script import Cut, Gate, Pause, Pings, Stall, StreamError

Headers = list[tuple[str, str]]


class _CutError(Exception):
    """The script breaks the answer off."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__()
        self.reset = reset


class _EndError(Exception):
    """The script ends the answer early, with an error event."""

    def __init__(self, fault: StreamError) -> None:
        super().__init__()
        self.fault = fault


@dataclass(slots=True)
class Answer:
    """One answer under way."""

    connection: Connection
    record: Record
    gates: Gates
    log: Log
    binary: bool = False
    """Whether the stream is Amazon's binary one."""

    async def stream(self, headers: Headers, before: Sequence[Step], steps: Sequence[Step]) -> None:
        """Wait *before* the head, then send the event stream of *steps*."""
        try:
            await self._steps(before, send=False)
            await self.connection.write(head(200, [*headers, ("transfer-encoding", "chunked")]))
            try:
                await self._steps(steps, send=True)
            except _EndError as early:
                await self._send(error_event(early.fault))
            await self.connection.write(LAST_CHUNK)
            self.log.end(self.record, "answered")
        except _CutError as cut:
            self._break(cut)
        finally:
            self.log.end(self.record, "abandoned")

    async def whole(
        self,
        status: int,
        headers: Headers,
        before: Sequence[Step],
        after: Sequence[Step],
        body: bytes,
        steps: Sequence[Step] = (),
        instead: bytes = b"",
    ) -> None:
        """Send an answer of one *body*: wait *before* the head, and *after* it.

        Of *steps*, those of the stream that was not asked for, the waits and faults count; as the model would
        be generating, they come before the head. A cut among them sends half of the body; at a `StreamError`
        the whole response *instead* takes the place of this one.
        """
        start = head(status, [*headers, ("content-length", str(len(body)))])
        try:
            await self._steps(before, send=False)
            try:
                await self._steps(steps, send=False)
            except _EndError:
                await self.connection.write(instead)
            except _CutError:
                await self.connection.write(start + body[: len(body) // 2])
                raise
            else:
                await self.connection.write(start)
                await self._steps(after, send=False)
                await self.connection.write(body)
            self.log.end(self.record, "answered")
        except _CutError as cut:
            self._break(cut)
        finally:
            self.log.end(self.record, "abandoned")

    async def later(self, delay_ms: float, response: bytes) -> None:
        """Send *response* after *delay_ms*."""
        try:
            await asyncio.sleep(delay_ms / 1000)
            await self.connection.write(response)
            self.log.end(self.record, "answered")
        finally:
            self.log.end(self.record, "abandoned")

    def _break(self, cut: _CutError) -> None:
        self.log.end(self.record, "cut")
        if cut.reset:
            self.connection.reset()
        else:
            self.connection.close()

    async def _steps(self, steps: Sequence[Step], *, send: bool) -> None:
        for step in steps:
            if isinstance(step, bytes):
                if send:
                    await self._send(step)
            elif isinstance(step, Gate):
                await self.gates[step.name].passed()
            elif isinstance(step, Pause):
                await asyncio.sleep(step.ms / 1000)
            elif isinstance(step, Stall):
                await _stall(step)
            elif isinstance(step, Pings):
                await self._pings(step, send=send)
            elif isinstance(step, Cut):
                raise _CutError(reset=step.reset)
            else:
                raise _EndError(step)

    async def _send(self, events: bytes) -> None:
        await self.connection.write(chunk(converted(events) if self.binary else events))

    async def _pings(self, pings: Pings, *, send: bool) -> None:
        sent = 0
        while pings.count is None or sent < pings.count:
            if send:
                await self._send(PING)
            sent += 1
            await asyncio.sleep(pings.every_ms / 1000)


async def _stall(stall: Stall) -> None:
    """Wait; without a limit until the connection's end cancels this task."""
    if stall.for_ms is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(stall.for_ms / 1000)
