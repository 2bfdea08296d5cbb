"""What there is of a stream once it is open: its process, which may be put to sleep and woken.

A stream that sleeps stays open for its clients; only its process is gone. The next message resumes the
conversation, and what was resumed is verified as at any other start. A process that has grown, or has served
many turns, is replaced the same way, between two turns.
"""

import math
from dataclasses import dataclass, field

import anyio
from dragoman_protocol.stream import StreamOpenParams

from .caller import Caller
from .channel import Channel
from .errors import EngineError
from .runs import OpenRun, Runs
from .turn import Turn


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """How long a stream and its process last."""

    idle_s: float
    """Without a turn and a watcher: then the stream is closed."""
    sleep_s: float = 300.0
    """Without a turn: then its process is ended."""
    recycle_turns: int = 200
    recycle_bytes: int = 1 << 30
    """After so many turns, or with so much memory held, the process is replaced."""


@dataclass(slots=True)
class OpenStream:
    """An open stream. Times are the event loop's."""

    run: OpenRun
    """The process, or the last one if it sleeps."""
    channel: Channel
    times: StreamTimes
    is_new: bool
    """The session's row has not been written yet."""
    used_at: float
    """When the last turn ended, or the process began."""
    asleep: bool = False
    tired: bool = False
    """Its process is to be ended before the next turn."""
    _turns: int = 0
    _changing: anyio.Lock = field(default_factory=anyio.Lock)

    def turn_ended(self, now: float) -> None:
        """Note the end of a turn."""
        self.used_at = now
        self._turns += 1
        held = self.run.run.memory_bytes
        if self._turns >= self.times.recycle_turns or (held or 0) > self.times.recycle_bytes:
            self.tired = True

    @property
    def closes_at(self) -> float:
        """When it is to be closed, if nothing happens."""
        if self.channel.watched:
            return math.inf
        return max(self.used_at, self.channel.watched_at) + self.times.idle_s

    @property
    def sleeps_at(self) -> float:
        """When its process is to be ended, if nothing happens."""
        if self.asleep:
            return math.inf
        return -math.inf if self.tired else self.used_at + self.times.sleep_s

    async def sleep(self, runs: Runs) -> None:
        """End the process; what it was stays known. Does nothing if it sleeps already."""
        with anyio.CancelScope(shield=True):
            async with self._changing:
                if not self.asleep:
                    self.asleep = True
                    await runs.close(self.run)

    async def wake(self, runs: Runs, params: StreamOpenParams, caller: Caller) -> OpenRun:
        """Return the process, resumed if it sleeps; raises `EngineError`."""
        async with self._changing:
            if self.asleep:
                self.run = await runs.open(self.run.session, params, caller)
                self.asleep = self.tired = False
                self._turns = 0
            return self.run


@dataclass(slots=True, eq=False)
class StreamLife:
    """One open session, from the claim to the end of its process."""

    session_id: str
    params: StreamOpenParams
    caller: Caller
    ready: anyio.Event = field(default_factory=anyio.Event)
    closing: anyio.Event = field(default_factory=anyio.Event)
    closed: anyio.Event = field(default_factory=anyio.Event)
    starting: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    opened: OpenStream | None = None
    error: EngineError | None = None
    turn: Turn | None = None
    used: bool = False
    """Somebody uses the process between two turns."""
    turn_over: anyio.Event = field(default_factory=anyio.Event)
    changed: anyio.Event = field(default_factory=anyio.Event)
    """Set when it may have become unused, or begins to close."""

    def close(self) -> None:
        """Begin to end it: no more turns, and no start that is not complete."""
        self.closing.set()
        self.changed.set()
        self.starting.cancel()
