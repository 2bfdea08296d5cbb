"""The settings: what they are, what they mean, their defaults. `config` reads them.

`docs/configuration.md` is generated from this file (`dragomand.config_doc`).
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from dragoman_protocol.lifecycle import Scope
from msgspec import Meta

_WEEK_MS = 604_800_000
_STEERS = "ANTHROPIC|CLAUDE|DRAGOMAN|LD_|DYLD_|BUN_|NODE_OPTIONS|HOME$"

Milliseconds = Annotated[int, Meta(ge=1, le=_WEEK_MS, description="milliseconds")]
MillisecondsOr0 = Annotated[int, Meta(ge=0, le=_WEEK_MS, description="milliseconds")]
Count = Annotated[int, Meta(ge=1, le=65_536, description="a whole number")]
CountOr0 = Annotated[int, Meta(ge=0, le=65_536, description="a whole number")]
Bytes = Annotated[int, Meta(ge=4_096, le=1 << 40, description="bytes")]
Switch = Annotated[bool, Meta(description="true or false")]
Folder = Annotated[str, Meta(pattern=r"\A/", description="an absolute path (~/ allowed)")]
FolderOrEmpty = Annotated[
    str, Meta(pattern=r"\A(/|\Z)", description="an absolute path (~/ allowed), or nothing")
]
UrlOrEmpty = Annotated[
    str, Meta(pattern=r"\A(https?://[^\s/@]+(/\S*)?)?\Z", description="an http or https URL, or nothing")
]
Rate = Annotated[int, Meta(ge=0, le=1_000_000_000, description="a whole number")]
Share = Annotated[float, Meta(ge=0, le=1, description="a number")]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000, description="an amount in dollars")]
Variable = Annotated[
    str,
    Meta(
        pattern=rf"\A(?!{_STEERS})[A-Za-z_][A-Za-z0-9_]*\Z",
        description="the name of a variable that does not steer Claude Code itself",
    ),
]


class _Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One table of the file."""


class DaemonSettings(_Section, frozen=True, kw_only=True):
    """The life of the process."""

    idle_exit_ms: MillisecondsOr0 = 1_800_000
    """How long the daemon stays with no connection and nothing to do; 0: for ever."""
    grace_ms: MillisecondsOr0 = 5_000
    """How long a stopping daemon waits for running turns before it cancels them."""
    max_connections: Count = 256
    """How many clients may be connected at once."""


class ClaudeSettings(_Section, frozen=True, kw_only=True):
    """How Claude Code is found and started."""

    path: FolderOrEmpty = ""
    """The Claude Code executable; nothing: the one bundled with `claude-agent-sdk`, else `claude` on PATH."""
    start_timeout_ms: Milliseconds = 30_000
    """How long Claude Code may take from its start to its readiness."""
    base_url: UrlOrEmpty = ""
    """Where the Messages API is (`ANTHROPIC_BASE_URL`); nothing: Anthropic's own."""
    allowed_env: tuple[Variable, ...] = (
        "PATH",
        "LANG",
        "LANGUAGE",
        "LC_ALL",
        "LC_CTYPE",
        "TERM",
        "COLORTERM",
        "NO_COLOR",
        "TZ",
        "SSH_AUTH_SOCK",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "GOPATH",
        "JAVA_HOME",
        "EDITOR",
    )
    """The environment variables that a query or session may set for Claude Code's tools."""
    max_retries: Annotated[int, Meta(ge=0, le=10, description="a whole number")] = 1
    """How often Claude Code itself repeats a failed API call (`CLAUDE_CODE_MAX_RETRIES`) where its calls do
    not go through the daemon's gateway, which repeats them within the limits of all (`retry.maxAttempts`)."""
    api_timeout_ms: Milliseconds = 600_000
    """How long one API call of Claude Code's may take (`API_TIMEOUT_MS`)."""
    stall_timeout_ms: Milliseconds = 330_000
    """How long Claude Code may say nothing in a turn while no tool runs and nobody is asked."""
    bare_home: FolderOrEmpty = ""
    """HOME and configuration folder for Claude Code, apart from the user's own; nothing: the user's own."""


class DirectSettings(_Section, frozen=True, kw_only=True):
    """Queries that the Messages API answers itself, without Claude Code (`upstream: messagesApi`).

    Where the API is says `claude.baseUrl`; Amazon Bedrock and Google Vertex AI are explained in
    [messages-api.md](messages-api.md#amazon-bedrock-and-google-vertex-ai).
    """

    provider: Literal["auto", "anthropic", "bedrock", "vertex"] = "auto"
    """Whose API is asked; `auto`: what CLAUDE_CODE_USE_BEDROCK or _VERTEX says, else Anthropic's."""
    region: Annotated[
        str, Meta(pattern=r"\A[a-z0-9-]{0,40}\Z", description="a region's name, or nothing")
    ] = ""
    """The cloud's region; nothing: AWS_REGION, AWS_DEFAULT_REGION or the profile's, CLOUD_ML_REGION."""
    project: Annotated[
        str, Meta(pattern=r"\A[A-Za-z0-9.:_-]{0,100}\Z", description="a project's id, or nothing")
    ] = ""
    """Vertex AI's project; nothing: ANTHROPIC_VERTEX_PROJECT_ID, GOOGLE_CLOUD_PROJECT or the credential's."""
    profile: Annotated[
        str, Meta(pattern=r"\A[^\x00-\x1f]{0,100}\Z", description="a profile's name, or nothing")
    ] = ""
    """The profile in AWS's own files; nothing: AWS_PROFILE, or the default one."""
    cloud_url: UrlOrEmpty = ""
    """Where the cloud is; nothing: ANTHROPIC_BEDROCK_BASE_URL, ANTHROPIC_VERTEX_BASE_URL, or its own."""
    model_prefix: Annotated[
        str, Meta(pattern=r"\A[a-z-]{0,20}\Z", description="us, eu, global …, or nothing")
    ] = ""
    """Bedrock's inference profiles for `opus` …; nothing: `us` or `eu` by the region, else `global`."""
    credential_timeout_ms: Milliseconds = 10_000
    """How long finding or renewing a cloud's credential may take."""
    model: Annotated[str, Meta(min_length=1, description="a model's alias or full name")] = "sonnet"
    """The model of a query that names none."""
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number")] = 16_000
    """The longest answer of a query that does not say `api.maxTokens`."""
    max_connections: Count = 256
    """How many calls may be on their way at once."""
    connect_timeout_ms: Milliseconds = 10_000
    """How long connecting may take."""
    first_byte_timeout_ms: Milliseconds = 120_000
    """How long the first byte of an answer may take."""
    idle_timeout_ms: Milliseconds = 60_000
    """How long an answer may be silent."""
    pings_timeout_ms: Milliseconds = 300_000
    """How long an answer may consist of pings only."""


class LimitsSettings(_Section, frozen=True, kw_only=True):
    """How much may run and wait at once."""

    max_running: Count = 8
    """How many turns run at once."""
    max_calls: Count = 16
    """How many API calls are answered at once: the daemon's own, and those that go through the gateway."""
    calls_at_start: Count = 4
    """How many API calls to one family of models are answered at once before it is known how many the
    provider bears: one more as long as all goes well, up to `maxCalls`, fewer after each 429 or 529."""
    max_queued: CountOr0 = 512
    """How many turns wait for their start, of all clients together."""
    max_queued_per_client: CountOr0 = 64
    """How many turns of one client wait for their start."""
    queue_timeout_ms: Milliseconds = 60_000
    """How long a turn waits for its start before it is given up; `batch` ones wait without limit."""
    queries_per_minute: Rate = 60
    """How many turns may begin in a minute, of all clients together (04.2); 0: any."""
    queries_per_hour: Rate = 1_000
    """How many turns may begin in an hour, of all clients together (04.3); 0: any."""
    requests_per_minute: Rate = 0
    """How many API calls may begin in a minute, for each family of models. 0: as many as the
    provider lets."""
    input_tokens_per_minute: Rate = 0
    """How many tokens API calls may bring in a minute, for each family of models; not those read from a
    cache; 0: as many as the provider lets."""
    output_tokens_per_minute: Rate = 0
    """How many tokens API calls may be answered with in a minute, for each family of models; 0: likewise."""
    max_depth: Annotated[int, Meta(ge=1, le=64, description="a whole number")] = 8
    """How deep turns may start turns, as tools that ask the daemon do."""
    people_share: Share = 0.0
    """The share of each of the account's usage windows (0 to 1) that is kept for people: `batch` is parked
    before it."""
    people_place: Switch = True
    """Whether one place is kept free for people while one was active in the last five minutes."""


class BreakerSettings(_Section, frozen=True, kw_only=True):
    """When a provider that fails is left alone, for each host and family of models (04.6 to 04.9)."""

    failure_threshold: Annotated[int, Meta(ge=1, le=1_000, description="a whole number")] = 5
    """How many failures in a row open it; half of at least five within a minute do too."""
    timeout_ms: Milliseconds = 60_000
    """How long it stays open at first; each failure to come back doubles that, to five minutes at most."""
    half_open_requests: Annotated[int, Meta(ge=1, le=100, description="a whole number")] = 2
    """How many calls at a time try whether the provider is back."""
    success_threshold: Annotated[int, Meta(ge=1, le=100, description="a whole number")] = 2
    """How many of them must succeed to close it."""


class RetrySettings(_Section, frozen=True, kw_only=True):
    """When an API call that failed is made once more, as long as nothing of its answer has been passed on."""

    max_attempts: Annotated[int, Meta(ge=1, le=10, description="a whole number")] = 3
    """How often a call is made at most."""
    budget: Annotated[int, Meta(ge=0, le=1_000, description="a whole number")] = 10
    """How many retries all clients together may have in stock; each success adds a tenth of one."""


class BudgetSettings(_Section, frozen=True, kw_only=True):
    """What may be spent, in US dollars, as far as costs can be estimated; 0: no cap.

    A cap that `budget/set` sets goes before.
    """

    hour_usd: Dollars = 10.0
    """In each hour, all clients together (04.4)."""
    day_usd: Dollars = 0.0
    """In each day (UTC), all clients together."""
    client_usd: Dollars = 0.0
    """By each client, by the name it gives itself, in each day."""
    project_usd: Dollars = 0.0
    """In each working directory, in each day."""
    session_usd: Dollars = 0.0
    """By each session."""
    tree_usd: Dollars = 0.0
    """By each orchestration with all below it."""
    ask_timeout_ms: Milliseconds = 120_000
    """How long a client may take to answer whether a cap is raised; then it is not."""


class GatewaySettings(_Section, frozen=True, kw_only=True):
    """API calls of Claude Code and of other programs through the daemon, which alone holds the key."""

    enabled: Switch = True
    """Whether there is a gateway (only ever with an API key); `false`: Claude Code gets the key itself."""


class QuerySettings(_Section, frozen=True, kw_only=True):
    """One turn."""

    timeout_ms: Milliseconds = 600_000
    """How long a `query/run` may take that names no `timeoutMs` of its own."""


class PermissionSettings(_Section, frozen=True, kw_only=True):
    """Questions to a person."""

    timeout_ms: Milliseconds = 300_000
    """How long a client may take to answer whether a tool may run; then it may not."""


class SessionSettings(_Section, frozen=True, kw_only=True):
    """Where sessions may work."""

    roots: tuple[Folder, ...] = ()
    """The folders that working directories must be in; none: anywhere the user can go."""
    max_open: Count = 32
    """How many streams may be open, each with a Claude Code process of its own."""
    idle_close_ms: Milliseconds = 600_000
    """How long a stream's process stays without a turn and without anybody attached."""
    sleep_ms: Milliseconds = 300_000
    """How long a stream's process stays without a turn; the stream stays open, the next turn resumes it."""
    recycle_turns: Count = 200
    """After how many turns a stream's process is replaced by one that resumes it."""
    recycle_memory: Bytes = 1_073_741_824
    """How much memory a stream's process may hold after a turn before it is replaced."""


class PoolSettings(_Section, frozen=True, kw_only=True):
    """Claude Code processes that are started ahead, because their like was used lately."""

    max_spare: Annotated[int, Meta(ge=0, le=64, description="a whole number")] = 2
    """How many may wait unused; 0: none."""
    ttl_ms: Milliseconds = 300_000
    """How long one waits, and how long after its last use a kind of process is kept in stock."""
    max_memory: Bytes = 1_073_741_824
    """How much memory all of them may hold."""
    min_free_memory: Bytes = 1_073_741_824
    """How much memory must be free before one is started."""
    generic: Literal["on", "off"] = "on"
    """Whether one of them may be of no folder, to be bound to the folder of whoever asks first."""
    rehearse: Literal["on", "off"] = "on"
    """Whether each goes through a turn that the gateway answers and is taken back, to be fast at once."""
    reuse: Literal["on", "off"] = "off"
    """Whether a process serves its client's next conversation too, after a `/clear` that the model sees."""


class SecuritySettings(_Section, frozen=True, kw_only=True):
    """What clients may ask for."""

    grantable_scopes: tuple[Scope, ...] = ("query", "tools", "approve", "auth", "read-all-sessions", "admin")
    """The scopes that `initialize` may grant."""


class LogSettings(_Section, frozen=True, kw_only=True):
    """The daemon's log, `<state>/log/daemon.log`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least serious kind of line that is written."""
    max_bytes: Bytes = 10_000_000
    """The size at which the file is put aside and a new one begun."""
    keep: Annotated[int, Meta(ge=1, le=100, description="a whole number")] = 3
    """How many files put aside are kept."""


class Config(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All settings. Without arguments: all defaults."""

    daemon: DaemonSettings = DaemonSettings()
    claude: ClaudeSettings = ClaudeSettings()
    direct: DirectSettings = DirectSettings()
    limits: LimitsSettings = LimitsSettings()
    breaker: BreakerSettings = BreakerSettings()
    retry: RetrySettings = RetrySettings()
    budget: BudgetSettings = BudgetSettings()
    gateway: GatewaySettings = GatewaySettings()
    query: QuerySettings = QuerySettings()
    permission: PermissionSettings = PermissionSettings()
    session: SessionSettings = SessionSettings()
    pool: PoolSettings = PoolSettings()
    security: SecuritySettings = SecuritySettings()
    log: LogSettings = LogSettings()


class Setting(msgspec.Struct, frozen=True):
    """One setting as it is looked up: both its names, its type and its default."""

    section: str
    field: str
    key: str
    """As in the file and after `--set`, e.g. `daemon.idleExitMs`."""
    type: Any
    default: Any

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"DRAGOMAN_{self.section}__{self.field}".upper()

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if get_origin(self.type) is tuple:
            return f"a list, each {_words(get_args(self.type)[0])}"
        return _words(self.type)


def settings() -> Iterator[Setting]:
    """Yield every setting in the order of this file."""
    for section in msgspec.structs.fields(Config):
        for field in msgspec.structs.fields(section.type):
            key = f"{section.name}.{field.encode_name}"
            default = getattr(section.default, field.name)
            yield Setting(section.name, field.name, key, field.type, default)


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    meta = get_args(kind)[1]
    bounds = f" from {meta.ge} to {meta.le}" if meta.ge is not None else ""
    return f"{meta.description}{bounds}"
