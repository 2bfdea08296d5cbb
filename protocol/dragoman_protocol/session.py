"""Stored conversations: sessions, their turns and their items."""

from typing import Any, Literal

import msgspec

from .values import Params, Value

SessionState = Literal["idle", "running", "interrupted"]
"""`interrupted`: the last turn was cut off by the end of the daemon and has no result."""

TurnStatus = Literal["running", "completed", "cancelled", "failed", "interrupted"]
"""`cancelled` by a client, `interrupted` by the end of the daemon, `failed` with an error."""


class Usage(Value, frozen=True):  # type: ignore[misc]  # a rule of dataclasses, not of msgspec
    """Tokens of a turn, as the model's provider counted them. Cache reads are not part of `inputTokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0


class ForkOrigin(Value):
    """Where a session was forked from. The original may have gone on since, or have been deleted."""

    session_id: str
    turn_id: str
    """The last turn that was taken over, by the original's id."""
    seq: int
    """The fork's own events up to this `seq` are copies of the original's."""


class SessionInfo(Value):
    """One session in a list."""

    session_id: str
    state: SessionState
    created_at: float
    """Unix seconds."""
    updated_at: float
    """Unix seconds of the last change."""
    cwd: str | None = None
    title: str | None = None
    """The client's title, or the first line of the first prompt."""
    model: str | None = None
    turn_count: int = 0
    item_count: int = 0
    cost_usd: float | None = None
    """Estimate by Claude Code, summed over turns; absent when unknown, never 0 for unknown. What turns cost
    that a fork took over counts where they were run, not again in the fork; the same with `usage`."""
    usage: Usage = Usage()
    tags: list[str] = msgspec.field(default_factory=list)
    claude_session_id: str | None = None
    agent: str | None = None
    """Who answers turns that name no agent themselves."""
    forked_from: ForkOrigin | None = None


class TurnInfo(Value):
    """One turn of a session."""

    turn_id: str
    status: TurnStatus
    started_at: float
    completed_at: float | None = None
    message_id: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    error_kind: str | None = None
    forked_from: str | None = None
    """The original's id of this turn, which was run there and is a copy here."""


class Item(Value):
    """One final item of a conversation, as it is stored. Deltas are never stored."""

    item_id: str
    turn_id: str
    seq: int
    kind: str
    """`userMessage`, `assistantText`, `thinking`, `toolUse`, `toolResult`, `usage`, `permissionAsked`, …"""
    created_at: float
    body: dict[str, Any]
    """The event of that kind as it was published (see `stream/event`), without its `type`; of one that is
    longer than a message may be, only `omittedBytes`, its length."""


class SessionListParams(Params):
    """Which sessions to list, newest first."""

    limit: int = 50
    """1 to 500."""
    cursor: str | None = None
    """`nextCursor` of the page before."""
    cwd: str | None = None
    """Only sessions of this working directory (exact, resolved path)."""
    tag: str | None = None


class SessionListResult(Value):
    """A page of sessions."""

    data: list[SessionInfo]
    next_cursor: str | None = None


class SessionGetParams(Params):
    """Which session to look at."""

    session_id: str


class SessionGetResult(Value):
    """One session with its turns, oldest first (the newest 200)."""

    session: SessionInfo
    turns: list[TurnInfo]


class SessionMessagesParams(Params):
    """Which items to read, oldest first."""

    session_id: str
    limit: int = 200
    """1 to 1000. A page has fewer where they are long together (4 MiB): what counts is `nextCursor`."""
    cursor: str | None = None


class SessionMessagesResult(Value):
    """A page of items."""

    data: list[Item]
    next_cursor: str | None = None


class SessionForkParams(Params):
    """Which session to fork, and where. It may be running: only turns that have ended are taken over."""

    session_id: str
    at_turn_id: str | None = None
    """The last turn to take over; absent: all that have ended."""
    new_session_id: str | None = None
    """The fork's id, a UUID; absent: the daemon makes one."""
    title: str | None = None
    """Default: the original's."""
    tags: list[str] | None = None
    """Default: the original's."""


class SessionForkResult(Value):
    """The fork. Its first turn continues from there; until then nothing is asked of Claude."""

    session: SessionInfo


class SessionDeleteParams(Params):
    """Which session to delete for good."""

    session_id: str


class SessionDeleteResult(Value):
    """What was removed."""

    deleted: bool
    """Always true: a session that does not exist is an error, `session_not_found`."""
