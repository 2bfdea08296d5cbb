"""What a simulator is told to do: rules, replies, faults. Plain values, built in Python or read from JSON.

A script is a list of rules; the first rule that matches a request and is not used up answers it, and a
request that no rule matches is answered with an echo of its prompt. The JSON form has the field names of
these classes; members of a union carry `type` (``{"type": "tool_use", "name": "Bash", "input": {…}}``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

_MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-4-5")


class ScriptError(ValueError):
    """A script cannot be used. The text says where and why."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of a script: immutable, and strict about field names, so that a typing mistake is an error."""


class When(Value, frozen=True):
    """Which requests a rule answers: those for which all conditions hold that are given."""

    text: str | None = None
    """Is contained in the prompt: the person's last text, without what Claude Code adds to it."""
    regex: str | None = None
    """Is found in the prompt (`re.search`); its groups are available to templates as `{0}`, `{1}` …"""
    first_text: str | None = None
    """Is contained in the first prompt of the conversation."""
    system: str | None = None
    """Is contained in the system prompt."""
    model: str | None = None
    """Is contained in the model's name."""
    tool_result: bool | None = None
    """Whether the request brings the result of a tool."""
    tool: str | None = None
    """The name of a tool that the request offers to the model."""
    stream: bool | None = None
    """Whether a stream is asked for."""
    nth: int | None = None
    """Only the n-th (from 1) of the requests for which everything else holds."""
    path: str = "/v1/messages"
    """The endpoint; a rule for another one than `/v1/messages` can only carry a fault."""


class Thinking(Value, frozen=True, tag="thinking"):
    """A block of thinking, streamed in pieces like text."""

    thinking: str


class ToolUse(Value, frozen=True, tag="tool_use"):
    """The model asks for a tool. Strings in `input` are templates. The id is made up when not given."""

    name: str
    input: dict[str, Any] = {}
    id: str | None = None


class Gate(Value, frozen=True, tag="gate"):
    """The reply pauses here until somebody opens the gate of that name."""

    name: str


class Pause(Value, frozen=True, tag="pause"):
    """The reply pauses here for so many milliseconds."""

    ms: float


class Ping(Value, frozen=True, tag="ping"):
    """A `ping` event."""


Part = str | Thinking | ToolUse | Gate | Pause | Ping
"""A piece of a reply. Strings that follow each other, pauses and gates between them included, are one text
block; any other part ends it."""


class Tokens(Value, frozen=True):
    """The usage that a reply reports; what is None is estimated at four characters a token."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class Reply(Value, frozen=True):
    """One answer of the model."""

    content: list[Part] = []
    """In the order of the stream. Strings are templates, see `dragoman_sim.template`."""
    piece_chars: int = 16
    """How many characters a delta carries; 0 sends each string in one delta."""
    delay_ms: float = 0
    """The pause between deltas."""
    first_delay_ms: float = 0
    """The pause before the response's head."""
    stop_reason: str | None = None
    """Default: `tool_use` if the reply ends with a tool, else `end_turn`."""
    usage: Tokens = Tokens()


At = Literal["before_headers", "after_headers", "before_block", "inside_block", "after_block"]
"""Where a fault strikes: before or after the response's head, after `message_start`, after the first delta,
or after the first content block's end."""


class Status(Value, frozen=True, tag="status"):
    """The request is answered with an HTTP error in the API's shape."""

    status: int
    error_type: str | None = None
    """Default: the API's own word for that status."""
    message: str | None = None
    error_code: str | None = None
    """`error.details.error_code`; e.g. `enforced_spend_limit_reached` for a spend cap."""
    retry_after: float | str | None = None
    """The `retry-after` header as it stands; a number is seconds. None: no such header."""
    retry_after_date_s: float | None = None
    """`retry-after` as an HTTP date so many seconds from now."""
    html: bool = False
    """The body is a proxy's HTML page instead."""
    headers: dict[str, str] = {}
    delay_ms: float = 0
    """The pause before the response."""


class Cut(Value, frozen=True, tag="cut"):
    """The connection is closed in the middle of the reply, with a TCP reset if `reset`."""

    at: At = "inside_block"
    reset: bool = False
    delay_ms: float = 0
    """In the stream: the pause before it, in which what was sent can arrive."""


class Stall(Value, frozen=True, tag="stall"):
    """Nothing more comes, for `for_ms` milliseconds, after which the reply goes on; None: for ever."""

    at: At = "after_headers"
    for_ms: float | None = None


class Pings(Value, frozen=True, tag="pings"):
    """Only pings come, one every `every_ms`: `count` of them, then the reply goes on; None: for ever."""

    at: Literal["before_block", "inside_block", "after_block"] = "before_block"
    every_ms: float = 1000
    count: int | None = None


class StreamError(Value, frozen=True, tag="stream_error"):
    """An `error` event ends the stream. A request without a stream gets the HTTP error of that kind."""

    error_type: str = "overloaded_error"
    message: str = "Overloaded"
    at: Literal["before_block", "inside_block", "after_block"] = "inside_block"


class Malformed(Value, frozen=True, tag="malformed"):
    """Something in the reply is not what the API promises; the reply goes on after it.

    `json`: data that is no JSON · `sse`: lines that are no event · `utf8`: a delta with invalid UTF-8 ·
    `surrogate`: a delta with a lone surrogate escape · `long_line`: a valid delta of 3 MB in one line.
    """

    what: Literal["json", "sse", "utf8", "surrogate", "long_line"] = "json"
    at: Literal["before_block", "inside_block", "after_block"] = "inside_block"


Fault = Status | Cut | Stall | Pings | StreamError | Malformed


class Rule(Value, frozen=True):
    """One rule: when it applies, what it answers, and what goes wrong.

    A list of replies is one whole turn: the first answers the prompt, the next one the results of the tools
    that the first asked for, and so on; the last one stays. A fault in the middle strikes `reply`.
    """

    when: When = When()
    reply: str | Reply | list[str | Reply] | None = None
    """A string is a reply of that text; None is the echo."""
    fault: str | Fault | None = None
    """A string is one of the names in `dragoman_sim.faults.NAMED`."""
    times: int | None = None
    """How often the rule answers before it is used up; None: for ever."""


RetryAfter = Literal["seconds", "date", "ms", "none"]
"""The form in which a refusal by a limit a minute asks for a pause: `retry-after` in seconds or as a date,
`retry-after-ms`, or not at all."""


class Window(Value, frozen=True):
    """A subscription's limit over hours or days; it begins with the first request."""

    name: str = "5h"
    """As headers have it: `5h`, `7d`, `7d_opus`, …"""
    max_requests: int | None = None
    max_tokens: int | None = None
    """Of both directions together."""
    seconds: float = 18_000
    warn_at: float = 0.9
    """The share of it beyond which the answers warn."""


class Limits(Value, frozen=True):
    """The API's own limits, per credential; those a minute first, None is unlimited."""

    requests_per_minute: int | None = None
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    enforce: bool = True
    """False: the headers tell the truth, but nothing is refused."""
    burst_s: float = 60
    """How many seconds' worth may be used at once, after nothing was used for as long."""
    retry_after: RetryAfter = "seconds"
    spend_tokens: int | None = None
    """So many tokens, of both directions, reach the spend cap; nothing is answered after that."""
    spend_answer: Literal["cap", "limit", "balance"] = "cap"
    """How the API says so: 429 with a code, 400 with a date, or 402."""
    windows: list[Window] = []
    """Of credentials that come as `Authorization: Bearer`, as a subscription's token does."""
    overage: bool = False
    """Whether what is beyond a window is answered, and paid for."""


class Script(Value, frozen=True):
    """Everything a simulator is told."""

    rules: list[Rule] = []
    limits: Limits | None = None
    keys: list[str] | None = None
    """The credentials that are accepted (401 otherwise); None accepts any, but not none."""
    models: list[str] = msgspec.field(default_factory=lambda: list(_MODELS))
    """What `GET /v1/models` lists."""
    max_request_bytes: int = 32 * 1024 * 1024
    """A longer request is answered 413, as the API does."""


def read_script(data: bytes | str) -> Script:
    """Return the script in JSON *data*: an object, or only its list of rules. Raises `ScriptError`."""
    raw = data.encode() if isinstance(data, str) else data
    try:
        if raw.lstrip()[:1] == b"[":
            return Script(rules=msgspec.json.decode(raw, type=list[Rule]))
        return msgspec.json.decode(raw, type=Script)
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise ScriptError(f"The script is not valid: {wrong}") from None


def load_script(file: str | Path) -> Script:
    """Return the script in *file*. Raises `ScriptError`, also when the file cannot be read."""
    try:
        return read_script(Path(file).read_bytes())
    except OSError as failed:
        raise ScriptError(f"The script {file} cannot be read: {failed.strerror}") from None
