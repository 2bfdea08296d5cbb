"""What there is of a stream once it is open: its process, which may be put to sleep, end, and be woken.

A stream that sleeps stays open for its clients; only its process is gone. The next message resumes the
conversation, and what was resumed is verified as at any other start. A process that has grown, or has served
many turns, is replaced the same way, between two turns; and so is one that was killed there. One that dies
again and again is not replaced at once.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import anyio
from dragoman_protocol.stream import ProcessStarted, StreamOpenParams

from dragomand.policy.crash_breaker import CrashBreaker

from .caller import Caller
from .channel import Channel
from .errors import EngineError
from .runs import OpenRun, Runs
from .turn import Turn

LIVED_S = 60.0
"""A process that has lived so long, in seconds, did not die of its start."""

Why = Literal["slept", "recycled", "pressure", "died"]
"""Why the process of a stream is another one than before."""


_ENDS_STREAM = frozenset({"claude_crashed", "claude_protocol", "resume_mismatch", "auth_failed"})


def ends_stream(error: EngineError | None) -> bool:
    """Whether a turn that ended with *error* has left a process that cannot be used further.

    One that is only not to be started yet will be later.
    """
    return error is not None and error.kind in _ENDS_STREAM and error.data.get("retry_after_ms") is None


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
    tired: Why | None = None
    """Why its process is to be ended before the next turn."""
    _asleep: Why | None = None
    _born: float = 0.0
    _turns: int = 0
    _deaths: CrashBreaker = field(default_factory=CrashBreaker)
    _changing: anyio.Lock = field(default_factory=anyio.Lock)

    def __post_init__(self) -> None:
        """The process has only just begun."""
        self._born = self.used_at

    def turn_ended(self, now: float) -> None:
        """Note the end of a turn."""
        self.used_at = now
        self._turns += 1
        held = self.run.run.memory_bytes
        if self._turns >= self.times.recycle_turns or (held or 0) > self.times.recycle_bytes:
            self.tired = self.tired or "recycled"

    @property
    def closes_at(self) -> float:
        """When it is to be closed, if nothing happens."""
        if self.channel.watched:
            return math.inf
        return max(self.used_at, self.channel.watched_at) + self.times.idle_s

    @property
    def sleeps_at(self) -> float:
        """When its process is to be ended, if nothing happens."""
        if self._asleep is not None:
            return math.inf
        return self.used_at + self.times.sleep_s if self.tired is None else -math.inf

    async def sleep(self, runs: Runs) -> None:
        """End the process; what it was stays known. Does nothing if it sleeps already."""
        with anyio.CancelScope(shield=True):
            async with self._changing:
                if self._asleep is None:
                    self._asleep = self.tired or "slept"
                    await runs.close(self.run)

    async def wake(self, runs: Runs, params: StreamOpenParams, caller: Caller) -> ProcessStarted | None:
        """See to it that `run` can take a turn: resume it if it sleeps or has died.

        Returns what there is to tell, if it is another process now. Raises `EngineError`; it is
        `claude_crashed` with `retry_after_ms` if processes of this stream die one after another.
        """
        async with self._changing:
            if self._asleep is None and not self.run.run.alive:
                await self._bury(runs)
            why = self._asleep
            if why is None:
                return None
            if why == "died":
                self._check_deaths()
            self.run = await runs.open(self.run.session, params, caller)
            self._asleep = self.tired = None
            self._born = anyio.current_time()
            self._turns = 0
            run = self.run.run
            start: Literal["warm", "cold"] = "warm" if run.warm else "cold"
            return ProcessStarted(reason=why, start=start, claude_session_id=run.upstream_session_id)

    async def _bury(self, runs: Runs) -> None:
        """Note that the process has died since its last turn."""
        now = anyio.current_time()
        if now - self._born >= LIVED_S:
            self._deaths.started(now)
        self._deaths.crashed(now)
        self._asleep = "died"
        with anyio.CancelScope(shield=True):
            await runs.close(self.run)

    def _check_deaths(self) -> None:
        wait = self._deaths.refusal(anyio.current_time())
        if wait is not None:
            text = (
                "This stream's Claude Code process was killed or died several times between turns; "
                f"the next one is started in {wait:.0f} s."
            )
            raise EngineError("claude_crashed", text, retry_after_ms=max(1, round(wait * 1000)))


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

    @property
    def occupied(self) -> bool:
        """Whether a turn runs in it, or somebody uses its process."""
        return self.turn is not None or self.used

    def check_free(self) -> None:
        """Raise `session_busy` if something happens in it."""
        if self.occupied:
            raise EngineError(
                "session_busy",
                "A turn of this session is running: wait for its turnCompleted, "
                "or stop it with stream/interrupt.",
                session_id=self.session_id,
                turn_id=None if self.turn is None else self.turn.turn_id,
            )

    def close(self) -> None:
        """Begin to end it: no more turns, and no start that is not complete."""
        self.closing.set()
        self.changed.set()
        self.starting.cancel()
