"""What the engine may ask of whoever answers a turn, and what it gets back.

Two upstreams stand behind it: `claude_code` (the CLI) and `messages_api` (the API itself). The engine knows
only this file. An upstream converts the provider's shapes into the events of `dragoman_protocol.stream`,
once, here; it never waits for a consumer: events are handed to a sink that returns at once.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dragoman_protocol.content import Prompt
from dragoman_protocol.query import ApiOptions, ThinkingChoice
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import Event

if TYPE_CHECKING:
    from dragomand.upstream.limits_heard import LimitsHeard

EventSink = Callable[[Event], None]
"""Takes each event, in order, without blocking. It numbers and publishes them; upstream does not."""

FailureCategory = Literal[
    "throttle", "quota", "overload", "auth", "caller", "crash", "protocol", "mismatch", "missing"
]
"""The four classes of `limits` (throttle, quota, overload, auth), and: `caller` (400, 404, 413, 422: the
request itself is wrong), `crash` (the process ended), `protocol` (it said what cannot be understood),
`mismatch` (it opened another conversation than the one to resume, or one that has lost messages), `missing`
(no executable)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a turn or a start failed, classified by status and reason, never by a result's `subtype`."""

    category: FailureCategory
    message: str
    status: int | None = None
    """HTTP status of the provider, where there was one."""
    retry_after_ms: int | None = None
    """The pause that was asked for; only with `throttle` and `overload`."""
    resets_at: float | None = None
    """Unix seconds at which a quota is available again; None: nobody said, or only once somebody pays."""
    detail: str | None = None
    """E.g. the last lines of stderr, redacted."""
    unsent: bool = False
    """The message never reached the upstream, so it can be sent again without being carried out twice."""
    window: str | None = None
    """Which limit window is used up (`five_hour`, `seven_day_opus` …), where it is one."""


class UpstreamError(Exception):
    """A start or a turn could not be carried out; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        """Carry *failure*."""
        super().__init__(failure.message)
        self.failure = failure


def always() -> bool:
    """Answer that deltas are wanted."""
    return True


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """A message of the turns before, for an upstream that keeps no record of its own."""

    role: Literal["user", "assistant"]
    content: Prompt


class ApiCall(Protocol):
    """One admitted call of the API. Who makes it notes what the answer says; nothing noted is a failure."""

    status: int | None
    """HTTP status of the answer."""
    usage: Usage | None
    """What the answer says it took."""
    finished: bool
    """Whether the answer came to its end."""

    failure: Failure | None
    """Why there is no whole and good answer."""
    begun: bool
    """Whether something of the answer has reached whoever asked: then the call is not repeated."""

    def note_limits(self, heard: "LimitsHeard") -> None:
        """Pass on what the answer says of the provider's limits."""


Attempt = Callable[[ApiCall], Awaitable["TurnOutcome"]]
"""Makes a call once, and notes in it what became of it."""

AdmitCall = Callable[[Attempt], Awaitable["TurnOutcome"]]
"""Waits for the permit of one call of the API, has it made, settles it; and once more where it failed and may
be repeated. What it raises of its own (it waited too long) is none of the upstream's failures: it goes
through `UpstreamRun.send`."""


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that decides how an upstream is started."""

    session_id: str
    """Ours, a UUID; also the new Claude Code session's id unless `resume` is given."""
    cwd: Path
    resume: str | None = None
    """The Claude Code session id to continue; what was opened is verified against it."""
    resume_message_count: int | None = None
    """`TurnOutcome.message_count` of the last turn; a conversation with fewer now is a `mismatch`."""
    resume_holds: str | None = None
    """A `TurnOutcome.leaf_id` that it must have; one without is a `mismatch`. A fork ends there."""
    fork: bool = False
    """Leave the conversation to resume as it is, and go on in a copy with the id `session_id`."""
    model: str | None = None
    fallback_model: str | None = None
    """Several have commas between them."""
    agent: str | None = None
    """Who answers: a name in `agents`."""
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Definitions in Claude Code's own form."""
    system_prompt: str | None = None
    append_system_prompt: str | None = None
    exclude_dynamic_sections: bool = False
    allowed_tools: tuple[str, ...] | None = None
    disallowed_tools: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    permission_mode: str | None = None
    max_turns: int | None = None
    max_budget_usd: float | None = None
    task_budget_tokens: int | None = None
    thinking: ThinkingChoice | None = None
    effort: str | None = None
    mcp_servers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, in Claude Code's own form."""
    add_dirs: tuple[Path, ...] = ()
    """Already checked, like `cwd`."""
    skills: tuple[str, ...] | None = None
    """The only ones there are; None: all that Claude Code finds."""
    settings: dict[str, Any] | None = None
    """Above all other settings."""
    setting_sources: tuple[str, ...] | None = None
    """None: the user's own alone."""
    plugins: tuple[str, ...] = ()
    betas: tuple[str, ...] = ()
    file_checkpointing: bool = False
    hook_events: bool = False
    verbatim_prompt: bool = False
    env: dict[str, str] = field(default_factory=dict)
    """Already checked against the allow-list."""
    api: ApiOptions | None = None
    """What only `messages_api` understands."""
    output_schema: dict[str, Any] | None = None
    """The JSON Schema that the answer has to fit; `append_system_prompt` says so in words already."""
    history: tuple[HistoryMessage, ...] = ()
    """The completed turns before, oldest first; only for `messages_api`."""
    deltas_wanted: Callable[[], bool] = always
    """Whether anybody watches; without a watcher an upstream may leave deltas out."""
    admit_call: AdmitCall | None = None
    """Before each call of the API, where the upstream makes them itself; None: nothing limits them."""
    client: str | None = None
    """Who asks, if a process that has worked for the same one may be used again."""


@dataclass(frozen=True, slots=True)
class PermissionAsk:
    """Claude Code asks whether a tool may run (`can_use_tool`)."""

    tool_name: str
    input: dict[str, Any]
    tool_use_id: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class PermissionAnswer:
    """The answer; anything but an explicit allow is a denial."""

    allow: bool
    message: str | None = None
    updated_input: dict[str, Any] | None = None
    interrupt: bool = False


AskPermission = Callable[[PermissionAsk], Awaitable[PermissionAnswer]]
"""Asks a person, with a deadline of its own. It is cancelled when Claude Code withdraws the question."""


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """How a turn ended."""

    status: Literal["completed", "interrupted", "failed"]
    text: str = ""
    usage: Usage = Usage()  # noqa: RUF009 (it is frozen)
    cost_total_usd: float | None = None
    """Claude Code's cumulative estimate for this process; None when unknown."""
    cost_usd: float | None = None
    """This turn's share of it: the difference to the turn before in this process, never negative."""
    model: str | None = None
    stop_reason: str | None = None
    duration_api_ms: int | None = None
    message_count: int | None = None
    """Messages of the whole conversation after this turn, as the upstream keeps it; None when unknown."""
    leaf_id: str | None = None
    """The last message of the conversation, by the upstream's own id: where it can be forked later."""
    failure: Failure | None = None
    last_events: tuple[Event, ...] = ()
    """The turn's last events, which were not given to the sink: they can be stored together with its end."""


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """How one run reaches the Messages API without knowing the key: through the daemon's gateway."""

    grant_id: str
    """By which its calls are told from others'."""
    base_url: str
    unix_socket: str | None
    """Where calls go; None: to the base URL's own port."""
    token: str = field(repr=False)
    """Takes the place of the key; worth nothing elsewhere, nor after `revoke`."""
    revoke: Callable[[], object]
    """Ends the access; can be repeated."""
    last_failure: Callable[[], Failure | None] = lambda: None
    """Why the newest of its calls that failed did, in the provider's own words; None: none has."""
    rehearse: Callable[[str | None], object] = lambda _: None
    """While it is given a mark, calls whose body contains that are answered by the gateway itself, with it,
    and all others refused; None: they go to the provider."""


class OpenAccess(Protocol):
    """Gives access for one run."""

    async def __call__(self, *, unix: bool) -> ApiAccess | None:
        """Return access, over a unix socket if the run can use one; None: there is no gateway."""


@dataclass(frozen=True, slots=True)
class SpareState:
    """One process that was started ahead and that nobody uses yet."""

    key: str
    cwd: str | None
    """None: of no folder."""
    ready: bool
    age_s: float
    memory_bytes: int | None
    rehearsed: bool = False


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is kept warm, and how often it was of use."""

    max_spare: int
    spares: list[SpareState] = field(default_factory=list)
    keys: int = 0
    """How many kinds of processes were asked for lately."""
    warm: int = 0
    cold: int = 0
    kept: int = 0
    """How many wait for the next conversation of a client that they have worked for."""
    ended: dict[str, int] = field(default_factory=dict)
    """How many spares were never used, by the reason of their end."""
    held_back: Literal["memory", "starts", "crashes"] | None = None
    """Why fewer wait than are wanted."""


@dataclass(frozen=True, slots=True)
class Rewound:
    """Which files were put back, or would be."""

    files: tuple[str, ...]
    insertions: int
    deletions: int


class UpstreamRun(Protocol):
    """One running conversation with an upstream. One turn at a time."""

    @property
    def api_access(self) -> ApiAccess | None:
        """The gateway's access that its calls are made with; None: they go past it."""

    @property
    def upstream_session_id(self) -> str | None:
        """The upstream's own session id (`claudeSessionId`), once known."""

    @property
    def version(self) -> str | None:
        """The upstream's version (Claude Code's), once known."""

    @property
    def pid(self) -> int | None:
        """Its outermost process, from which all of its tools descend; None: there is none."""

    @property
    def warm(self) -> bool | None:
        """Whether its process had been started before anybody asked for it; None: there is no process."""

    @property
    def alive(self) -> bool:
        """Whether it can take a turn; False once its process has ended, or listens no longer."""

    @property
    def memory_bytes(self) -> int | None:
        """What its processes hold; None when unknown."""

    async def send(self, prompt: Prompt, message_id: str, sink: EventSink) -> TurnOutcome:
        """Run one turn; events go to *sink*; returns at its end.

        Failures of the turn are in the outcome; only a programming error raises. When this call is cancelled,
        the turn is interrupted and the run must be closed.
        """

    async def interrupt(self) -> bool:
        """Ask the running turn to stop; True if there was one. `send` then returns `interrupted`."""

    async def rewind_files(self, message_id: str, *, dry_run: bool) -> Rewound:
        """Put files back as they were when this message came; not while a turn runs.

        Raises `UpstreamError` `caller` where that cannot be done.
        """

    async def close(self) -> None:
        """End the run by a bounded ladder: end of input, terminate, kill; in 6 s no descendant is left."""


@dataclass(frozen=True, slots=True)
class StartBreaker:
    """What stops the starting of processes, or may soon. Times are Unix seconds."""

    of_all: bool
    """Whether it stops every kind of start that has not worked yet; else one kind."""
    state: Literal["closed", "open", "half_open"]
    failures: int
    """Crashes in a row."""
    opened_at: float | None
    retry_at: float | None


class Starting(Protocol):
    """What starts processes, as far as its breakers go."""

    def start_breakers(self) -> list[StartBreaker]:
        """Return those that count something."""

    def reset_starts(self) -> int:
        """Let what crashed start at once; returns how many breakers were not closed."""


class Upstream(Protocol):
    """Starts runs."""

    async def open(self, spec: RunSpec, ask: AskPermission) -> UpstreamRun:
        """Start a run and wait until it is ready (bounded by `claude.startTimeoutMs`).

        Raises `UpstreamError`: `missing` (no executable), `crash`, `protocol`, `auth`.
        """

    async def close(self) -> None:
        """Close every run that is still open, and everything that is kept warm."""
