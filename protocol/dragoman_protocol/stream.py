"""The ordered events of a session.

Durable events have a gap-free `seq` and are stored. Ephemeral ones (`textDelta`, `thinkingDelta`, `waiting`,
`raw`) have none: a delta carries `itemId` and `offset`, so the text can be rebuilt exactly whatever was
coalesced or left out, and the final item follows anyway.
"""

from typing import Any, Literal

import msgspec

from .content import Prompt
from .query import AnsweredBy, ForkChoice, OutputAttempt, Priority, TurnOptions
from .session import TurnStatus, Usage
from .values import Params, Value


class TurnStarted(Value, tag="turnStarted", tag_field="type"):
    """A turn was admitted and begins."""

    turn_id: str
    message_id: str | None = None
    queued_ms: int = 0
    upstream: AnsweredBy = "claudeCode"
    upstream_reason: str | None = None
    """Why, in words."""


class ProcessStarted(Value, tag="processStarted", tag_field="type"):
    """The conversation goes on in another Claude Code process than before, resumed and verified."""

    reason: Literal["slept", "recycled", "pressure", "died"]
    """What became of the one before: ended after `session.sleepMs` without a turn; after many turns or with
    much memory; because memory was short; or it died, or was killed, between two turns."""
    start: Literal["warm", "cold"] | None = None
    claude_session_id: str | None = None


class UserMessage(Value, tag="userMessage", tag_field="type"):
    """What was asked, so that every watcher sees it (06.14)."""

    item_id: str
    content: Prompt


class TextDelta(Value, tag="textDelta", tag_field="type"):
    """A piece of the answer. Ephemeral."""

    item_id: str
    offset: int
    """Where `text` begins in the item's text, in code points."""
    text: str


class ThinkingDelta(Value, tag="thinkingDelta", tag_field="type"):
    """A piece of the model's thinking. Ephemeral."""

    item_id: str
    offset: int
    text: str


class AssistantText(Value, tag="assistantText", tag_field="type"):
    """A whole text block of the answer; the same `itemId` as its deltas."""

    item_id: str
    text: str


class Thinking(Value, tag="thinking", tag_field="type"):
    """A whole thinking block; the same `itemId` as its deltas."""

    item_id: str
    text: str


class ToolUse(Value, tag="toolUse", tag_field="type"):
    """The model calls a tool. `itemId` is the tool use id."""

    item_id: str
    name: str
    input: dict[str, Any]


class ToolResult(Value, tag="toolResult", tag_field="type"):
    """What a tool answered."""

    item_id: str
    tool_use_id: str
    content: Any
    is_error: bool = False


class PermissionAsked(Value, tag="permissionAsked", tag_field="type"):
    """A tool waits for a person's word (`permission/request` went to the client that may answer)."""

    permission_id: str
    tool_name: str
    input: dict[str, Any]


class PermissionResolved(Value, tag="permissionResolved", tag_field="type"):
    """A permission was decided."""

    permission_id: str
    decision: Literal["allow", "deny"]
    by: str
    """`client`, `timeout`, `disconnect`, `shutdown`, `noClient` or `withdrawn` (its turn ended)."""


class Waiting(Value, tag="waiting", tag_field="type"):
    """Not admitted yet. Ephemeral; sent when the turn has to queue, and when it waits for another reason."""

    reason: str
    """One of `WaitReason`."""
    position: int
    """How many are served before it, as it stands."""
    text: str | None = None
    """The reason in words, with the figures."""
    expected_at: float | None = None
    """Unix seconds; absent where nothing can be said."""


class Retrying(Value, tag="retrying", tag_field="type"):
    """Claude Code repeats a failed call to its API. Ephemeral."""

    attempt: int
    category: str
    retry_after_ms: int | None = None


class StructuredOutput(Value, tag="structuredOutput", tag_field="type"):
    """The answer fits the query's `outputSchema`."""

    value: Any
    attempts: list[OutputAttempt]


class UsageReported(Value, tag="usage", tag_field="type"):
    """Tokens and estimated cost of the turn."""

    usage: Usage
    cost_usd: float | None = None


class RateLimit(Value, tag="rateLimit", tag_field="type"):
    """What the provider says about a limit window (`five_hour`, `seven_day`, or a name not known today)."""

    window: str | None
    status: str
    resets_at: float | None = None
    utilization: float | None = None


class TurnCompleted(Value, tag="turnCompleted", tag_field="type"):
    """The last event of a turn, whatever happened."""

    turn_id: str
    status: TurnStatus
    stop_reason: str | None = None
    error: dict[str, Any] | None = None
    """`{kind, message, …}` for `failed`."""


class Raw(Value, tag="raw", tag_field="type"):
    """A frame of Claude Code that this version does not know, byte for byte. Ephemeral.

    With a `seq` it stands for an event that is longer than a message may be: its frame is then
    `{"type": "omitted", "kind": …, "bytes": …}`.
    """

    frame: msgspec.Raw


Event = (
    TurnStarted | ProcessStarted | UserMessage | TextDelta | ThinkingDelta | AssistantText | Thinking
    | ToolUse | ToolResult | PermissionAsked | PermissionResolved | Waiting | Retrying | StructuredOutput
    | UsageReported | RateLimit | TurnCompleted | Raw
)  # fmt: skip
"""Everything that can happen in a session; `type` tells which."""

EPHEMERAL: tuple[type, ...] = (TextDelta, ThinkingDelta, Waiting, Retrying, RateLimit, Raw)
"""Events without a `seq`, which are not stored."""


class StreamEventParams(Value):
    """One event of a session (`stream/event`), or the value of a query's `$/progress`."""

    session_id: str
    event: Event
    seq: int | None = None
    """Gap-free within the session; absent for ephemeral events."""
    cursor: str | None = None
    """Where to continue after this event; absent for ephemeral events."""


class StreamOpenParams(TurnOptions, kw_only=True):
    """Open a session whose Claude Code process stays alive between turns (00.38, 06.1), and attach to it."""

    cwd: str | None = None
    session_id: str | None = None
    """Continue this stored session. Absent: a new one, then `cwd` is needed."""
    fork: ForkChoice | None = None
    """The new session begins with the turns of another one, in its folder; not together with `sessionId`."""
    new_session_id: str | None = None
    """The new session's id, a UUID that no session has; absent: the daemon makes one."""
    priority: Priority = "interactive"
    """Of each of its turns; a `batch` waits for its place as long as it takes."""
    title: str | None = None
    tags: list[str] | None = None


class StreamOpenResult(Value):
    """An open session."""

    session_id: str
    cursor: str
    claude_session_id: str | None = None
    """Claude Code's own id of the conversation; it may still change with the first turn."""
    start: Literal["warm", "cold"] | None = None
    """Whether its process had been started before (`warm`), or for this (`cold`)."""


class StreamSendParams(Params):
    """Send a message to an open session; answered when the turn is queued or begun, not at its end."""

    session_id: str
    prompt: Prompt
    message_id: str | None = None


class StreamSendResult(Value):
    """The turn that will answer (00.39)."""

    turn_id: str


class StreamAttachParams(Params):
    """Subscribe to a session's events."""

    session_id: str
    cursor: str | None = None
    """Replay what came after this cursor; absent: from the beginning."""


class StreamAttachResult(Value):
    """The replay is over: its `stream/event`s came before this answer, live ones come after, without gap or
    duplicate."""

    cursor: str
    """Everything up to here has been sent."""
    status: Literal["replayed", "resync"]
    reason: Literal["ring_evicted", "epoch_reset"] | None = None
    """Why the cursor could not be used; the replay was then from the beginning."""
    turn_id: str | None = None
    """The running turn, if there is one."""


class StreamDetachParams(Params):
    """Stop receiving a session's events."""

    session_id: str


class StreamInterruptParams(Params):
    """Stop the running turn of a session."""

    session_id: str
    turn_id: str | None = None
    """Only if this is the running turn; absent: whichever runs."""


class StreamInterruptResult(Value):
    """Whether there was something to stop. The turn still ends with `turnCompleted`."""

    interrupted: bool


class StreamRewindFilesParams(Params):
    """Put the files that Claude Code changed back as they were when a turn began (not those of a shell)."""

    session_id: str
    turn_id: str
    dry_run: bool = False
    """Only say which files they are."""


class StreamRewindFilesResult(Value):
    """What was put back. The conversation stays as it is: Claude is not told."""

    files: list[str]
    """Absolute paths; a file that there was not is removed."""
    insertions: int
    """Lines that this adds, and below: takes away."""
    deletions: int
    rewound: bool
    """False: it was only asked for (`dryRun`)."""


class StreamCloseParams(Params):
    """End the session's process. The session itself stays and can be continued."""

    session_id: str


class StreamDroppedParams(Value):
    """A subscription ended because its reader was too slow; nothing is lost: attach again from `cursor`."""

    session_id: str
    cursor: str
    reason: Literal["slow_reader"] = "slow_reader"
