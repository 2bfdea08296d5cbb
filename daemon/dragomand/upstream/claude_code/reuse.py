"""One process for conversation after conversation of the same client: `/clear` instead of a new start.

Only where the settings say so, since Claude Code puts a note on the command before the next prompt. A process
is used again only by the client it has worked for, for the same key and the same choices, and only if nothing
is left over: every turn has completed and no program that a tool has started still runs.
"""

import asyncio
from dataclasses import dataclass

from dragoman_protocol.content import Prompt

from dragomand.process import memory
from dragomand.upstream.claude_code.run import ClaudeCodeRun
from dragomand.upstream.interface import (
    ApiAccess,
    AskPermission,
    EventSink,
    Failure,
    Rewound,
    RunSpec,
    TurnOutcome,
    UpstreamError,
)

MOST_CONVERSATIONS = 50
"""After so many a process has grown too much."""

Tag = tuple[str, str | None, str | None, str]
"""Key, model, permission mode, client."""


@dataclass(slots=True, eq=False)
class _Waiting:
    tag: Tag
    run: ClaudeCodeRun
    conversations: int
    expiry: asyncio.TimerHandle


class Kept:
    """The processes that wait for the next conversation of their client."""

    def __init__(self, most: int, ttl_s: float) -> None:
        """Keep at most *most*, each *ttl_s* seconds."""
        self._most = most
        self._ttl_s = ttl_s
        self._waiting: list[_Waiting] = []
        self._ends: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take(self, tag: Tag, spec: RunSpec, ask: AskPermission) -> "Lease | None":
        """Return a process that waits for *tag*."""
        for waiting in reversed(self._waiting):
            if waiting.tag == tag and waiting.run.pid is not None:
                self._remove(waiting)
                waiting.run.reused(spec, ask)
                return Lease(waiting.run, tag, self, waiting.conversations + 1)
        return None

    def lend(self, run: ClaudeCodeRun, tag: Tag) -> "Lease":
        """Give out *run*, which comes back when it is closed."""
        return Lease(run, tag, self, 1)

    async def give_back(self, lease: "Lease") -> None:
        """Clear the process and keep it, or end it."""
        run = lease.run
        used_up = lease.conversations >= MOST_CONVERSATIONS or not lease.clean or _is_busy(run)
        if used_up or not await run.clear() or not self._most:
            await run.close()
            return
        while len(self._waiting) >= self._most:
            self._end(self._waiting[0])
        expiry = asyncio.get_running_loop().call_later(self._ttl_s, self._expire, run)
        self._waiting.append(_Waiting(lease.tag, run, lease.conversations, expiry))

    def drop(self) -> None:
        """End all of them."""
        for waiting in list(self._waiting):
            self._end(waiting)

    async def close(self) -> None:
        """End all of them, and wait for it."""
        self._most = 0
        self.drop()
        await asyncio.gather(*self._ends)

    def lost(self, run: ClaudeCodeRun) -> None:
        """A process has gone."""
        for waiting in [each for each in self._waiting if each.run is run]:
            self._remove(waiting)

    def _expire(self, run: ClaudeCodeRun) -> None:
        for waiting in [each for each in self._waiting if each.run is run]:
            self._end(waiting)

    def _end(self, waiting: _Waiting) -> None:
        self._remove(waiting)
        task = asyncio.get_running_loop().create_task(waiting.run.close(), name="end a kept process")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _remove(self, waiting: _Waiting) -> None:
        waiting.expiry.cancel()
        self._waiting.remove(waiting)


class Lease:
    """A conversation on a process that goes on after it (`UpstreamRun`)."""

    def __init__(self, run: ClaudeCodeRun, tag: Tag, kept: Kept, conversations: int) -> None:
        """Made by `Kept`."""
        self.run = run
        self.tag = tag
        self.conversations = conversations
        self.clean = True
        """Whether every turn of it has completed."""
        self._kept = kept
        self._session_id: str | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def upstream_session_id(self) -> str | None:
        """The conversation's, also when the process has gone on to another."""
        return self.run.upstream_session_id if self._closing is None else self._session_id

    @property
    def version(self) -> str | None:
        """Claude Code's version."""
        return self.run.version

    @property
    def api_access(self) -> ApiAccess | None:
        """The gateway's access of its process."""
        return self.run.api_access

    @property
    def warm(self) -> bool | None:
        """Whether its process had been started before."""
        return self.run.warm

    @property
    def alive(self) -> bool:
        """Whether it can take a turn."""
        return self._closing is None and self.run.alive

    @property
    def pid(self) -> int | None:
        """Its outermost process."""
        return self.run.pid

    @property
    def memory_bytes(self) -> int | None:
        """What its processes hold."""
        return self.run.memory_bytes

    async def send(self, prompt: Prompt, message_id: str, sink: EventSink) -> TurnOutcome:
        """Run one turn; see `UpstreamRun.send`."""
        done, self.clean = self.clean, False
        outcome = await self.run.send(prompt, message_id, sink)
        self.clean = done and outcome.status == "completed"
        return outcome

    async def rewind_files(self, message_id: str, *, dry_run: bool) -> Rewound:
        """Put files back; see `UpstreamRun.rewind_files`."""
        if self._closing is not None:  # the process may work for the next conversation already
            raise UpstreamError(Failure("caller", "The conversation has ended."))
        return await self.run.rewind_files(message_id, dry_run=dry_run)

    async def interrupt(self) -> bool:
        """Ask the running turn to stop."""
        return self._closing is None and await self.run.interrupt()

    async def close(self) -> None:
        """End the conversation, and the process if it is of no more use."""
        if self._closing is None:
            self._session_id = self.run.upstream_session_id
            self._closing = asyncio.get_running_loop().create_task(self._kept.give_back(self))
        await asyncio.shield(self._closing)


def _is_busy(run: ClaudeCodeRun) -> bool:
    """Whether anything but Claude Code itself runs under the guard; where that cannot be told, yes."""
    if run.pid is None:
        return True
    below = memory.descendants_of(run.pid)
    return below is None or len(below) != 1


def tag_of(key: str, spec: RunSpec, client: str) -> Tag:
    """Return what must be equal for a process to be used again."""
    return key, spec.model, spec.permission_mode, client
