"""What a stored row looks like to the rest of the daemon.

These are the database's own shapes: renaming a field of the wire changes nothing here, and the other way
round. Instants are Unix seconds, spans milliseconds, money US dollars; None is unknown.
"""

from typing import Literal, NamedTuple

import msgspec

TurnStatus = Literal["running", "completed", "cancelled", "failed", "interrupted"]
"""`interrupted`: the daemon died while the turn ran."""


class SessionRow(msgspec.Struct, kw_only=True):
    """One conversation. The counters and totals are kept by the store, in the commit that changes them."""

    session_id: str
    created_at: float
    updated_at: float
    cwd: str | None = None
    title: str | None = None
    model: str | None = None
    owner: str | None = None
    """What the client that made the session calls itself. A label, not an identity."""
    claude_session_id: str | None = None
    claude_message_count: int | None = None
    """Messages in Claude Code's own record when a turn ended last; None until one has."""
    tags: tuple[str, ...] = ()
    epoch: str
    """Changes when events after `last_seq` may have been seen by someone and are lost."""
    last_seq: int = 0
    turn_count: int = 0
    item_count: int = 0
    cost_usd: float | None = None
    """Sum over the ended turns whose cost is known; None if none is."""
    input_tokens: int = 0
    """This and the three below: sums over the ended turns."""
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    last_turn_status: TurnStatus | None = None
    agent: str | None = None
    """Who answers turns that name nobody; what is said of it is in `kept`."""
    forked_from: str | None = None
    """The session whose turns this one began with; it may be gone."""
    forked_at_turn: str | None = None
    """The last of them, by its id there."""
    forked_seq: int | None = None
    """How many items were copied."""
    claude_fork_session_id: str | None = None
    """Where Claude Code's own conversation has to be taken from, until `claude_message_count` is known: then
    this session has one of its own."""
    claude_fork_leaf_id: str | None = None
    """The last message to take, by Claude Code's id; None: all of them."""
    claude_fork_count: int | None = None
    """How many messages that conversation had at least."""
    kept: bytes | None = None
    """What turns inherit from the ones before: a JSON object that the store does not look into. Written with
    a new session's row; read with `Store.kept`, never with the row, because it may be long."""


class TurnRow(msgspec.Struct, kw_only=True):
    """One turn: a user message and everything until the model stopped."""

    turn_id: str
    session_id: str
    status: TurnStatus
    started_at: float
    completed_at: float | None = None
    """None while it runs, and for ever if it was interrupted: nobody saw the end."""
    message_id: str | None = None
    """The client's id of the message, unique over all sessions."""
    request_digest: str | None = None
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    cost_usd: float | None = None
    stop_reason: str | None = None
    error: bytes | None = None
    """JSON."""
    queued_ms: int = 0
    upstream: str = ""
    duration_ms: int | None = None
    claude_leaf_id: str | None = None
    """The turn's last message in Claude Code's own record, by its id there."""
    claude_message_count: int | None = None
    """How many messages that record had at the turn's end."""
    origin_turn_id: str | None = None
    """The turn that this one is a copy of, in the session that this one's was forked from."""


class ForkPoint(msgspec.Struct, kw_only=True):
    """The end of a turn at which a session can be forked."""

    turn_id: str
    last_seq: int
    """The last item to copy; the first is 1, and there is no gap."""
    turn_count: int
    upstream: str
    status: TurnStatus
    claude_leaf_id: str | None = None
    """Of the last turn up to here of which it is known."""
    claude_message_count: int | None = None
    """Of the same turn."""
    is_end: bool
    """No turn that has ended comes after it."""


class ItemRow(msgspec.Struct, kw_only=True):
    """One final item of a turn. `seq` counts from 1 in its session, without gaps."""

    session_id: str
    turn_id: str
    seq: int
    item_id: str
    kind: str
    created_at: float
    body: bytes
    """A JSON object that the store does not look into."""


class ProcessRunRow(msgspec.Struct, kw_only=True):
    """One run of one Claude Code process for a session; its cost is cumulative and starts anew per run."""

    run_id: str
    session_id: str
    claude_session_id: str | None = None
    claude_version: str | None = None
    started_at: float
    ended_at: float | None = None
    cost_total_usd: float | None = None


class SpendRow(msgspec.Struct, kw_only=True):
    """What a turn, or a call of another program, may take and then took. Money: millionths of a dollar."""

    spend_id: str | None
    """The turn's id, or the call's; None for rows that were joined."""
    session_id: str | None = None
    tree_id: str | None = None
    """The orchestration it is part of."""
    client: str
    """What the client calls itself."""
    project: str | None = None
    """The working directory."""
    model: str | None = None
    upstream: str
    status: TurnStatus = "running"
    started_at: float
    turns: int = 1
    charged: int
    """What counts for budgets: the estimate until the end, then the cost if it is known."""
    cost: int | None = None
    cost_unknown: int = 0
    """How many of the turns have ended with a cost that nobody knows."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    queued_ms: int = 0
    duration_ms: int = 0


class SpendSums(NamedTuple):
    """Sums over rows of spending. Money: millionths of a dollar."""

    turns: int
    completed: int
    failed: int
    stopped: int
    """Cancelled or interrupted."""
    charged: int
    cost: int
    cost_unknown: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_creation_tokens: int
    queued_ms: int
    duration_ms: int


class MovedAside(msgspec.Struct, kw_only=True, frozen=True):
    """A database that could not be read was renamed at open, and a new one begun."""

    path: str
    """Where the damaged file is now; its `-wal` file, if there was one, is beside it."""
    reason: str
    at: float
