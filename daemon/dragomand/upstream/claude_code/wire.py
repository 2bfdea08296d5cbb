"""The lines of Claude Code's stream-json and the frames in them.

A frame is decoded once, into a value that has only what is used; a frame of a type or shape that is not known
here is None, and its line is passed on as it is. Lines may be several MB long.
"""

import re
from typing import Any

import msgspec

MAX_LINE_BYTES = 32 * 1024 * 1024
"""A longer line is not kept; the turn it belongs to fails."""


class Overlong:
    """Stands for a line of more than `MAX_LINE_BYTES`."""


OVERLONG = Overlong()


class Lines:
    """Cuts a stream of bytes into lines; holds at most one unfinished line of `limit` bytes."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        """Refuse lines longer than *limit* bytes."""
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._skipping = False

    def feed(self, data: bytes) -> list[bytes | Overlong]:
        """Return the lines that *data* completes, without their ends; blank ones are left out."""
        *ends, rest = data.split(b"\n")
        lines: list[bytes | Overlong] = []
        for end in ends:
            self._add(end)
            line = self._take()
            if isinstance(line, Overlong) or line.strip():
                lines.append(line)
        self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._limit:
            self._skipping = True
            self._parts.clear()
        elif part:
            self._parts.append(part)

    def _take(self) -> bytes | Overlong:
        line = OVERLONG if self._skipping else b"".join(self._parts)
        self._parts, self._size, self._skipping = [], 0, False
        return line


class Block(msgspec.Struct):
    """One content block of a message, of any type."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    content: Any = None
    is_error: bool | None = False


class TokenCounts(msgspec.Struct):
    """The usage of a result."""

    input_tokens: int | None = 0
    output_tokens: int | None = 0
    cache_read_input_tokens: int | None = 0
    cache_creation_input_tokens: int | None = 0


class ModelUsage(msgspec.Struct, rename="camel"):
    """The usage of one model."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cost_usd: float | None = msgspec.field(default=None, name="costUSD")


class Message(msgspec.Struct):
    """A message of the conversation."""

    content: str | list[Block] = ""
    id: str = ""
    model: str = ""


class Delta(msgspec.Struct):
    """What a content block grows by."""

    type: str = ""
    text: str = ""
    thinking: str = ""


class ApiEvent(msgspec.Struct):
    """An event of the Messages API's stream."""

    type: str
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None


class Frame(msgspec.Struct, tag_field="type", kw_only=True):
    """What frames have in common."""

    session_id: str | None = None
    uuid: str | None = None
    parent_tool_use_id: str | None = None


class StreamEvent(Frame, tag="stream_event", kw_only=True):
    """A piece of an answer that is being written."""

    event: ApiEvent


class Assistant(Frame, tag="assistant", kw_only=True):
    """A finished block of the answer."""

    message: Message
    error: str | None = None
    """A category, when this is no answer but the text of an error."""
    is_api_error_message: bool = False
    api_error: str | None = None
    """Claude Code's own word for an error of the API, e.g. `usage_limit_reached`."""
    api_error_code: str | None = None
    """`error.details.error_code` as the API gave it."""
    api_error_params: Any = None
    """What goes with it; `rate_limit_info` is what the refusal said of the windows."""


class User(Frame, tag="user", kw_only=True):
    """The results of tools, our own message repeated, or a note by Claude Code itself."""

    message: Message
    is_replay: bool = msgspec.field(default=False, name="isReplay")


class System(Frame, tag="system", kw_only=True):
    """News about the session."""

    subtype: str
    model: str | None = None
    claude_code_version: str | None = None
    attempt: int = 0
    max_retries: int | None = None
    retry_delay_ms: float | None = None
    error_status: int | None = None
    error: str | None = None


class Lifecycle(Frame, tag="command_lifecycle", kw_only=True):
    """What becomes of a message: queued, started, completed, cancelled, discarded, refused."""

    command_uuid: str
    state: str


class RateLimitInfo(msgspec.Struct, rename="camel"):
    """What the provider says of the limit windows. Nothing in it is trusted before `limits` has judged it."""

    status: Any = None
    """Of the window that decides."""
    resets_at: Any = None
    rate_limit_type: Any = None
    utilization: Any = None
    unified_windows: Any = None
    """Every window by its name: `{utilization, resetsAt, status, surpassedThreshold}`."""
    overage_status: Any = None
    is_using_overage: Any = None
    """What is beyond the window is being paid for: requests are answered although it is `rejected`."""
    error_code: Any = None
    """`credits_required`: what is refused is this request alone, for what is not in the plan."""


class RateLimitEvent(Frame, tag="rate_limit_event", kw_only=True):
    """News about the limit windows."""

    rate_limit_info: RateLimitInfo


class Result(Frame, tag="result", kw_only=True):
    """The end of a turn."""

    is_error: bool = False
    subtype: str = ""
    api_error_status: int | None = None
    api_error_type: str | None = None
    api_error: str | None = None
    """Claude Code's own word, e.g. `usage_limit_reached`."""
    api_error_code: str | None = None
    terminal_reason: str | None = None
    result: str | None = None
    errors: list[Any] | None = None
    stop_reason: str | None = None
    total_cost_usd: float | None = None
    duration_api_ms: float | None = None
    usage: TokenCounts | None = None
    model_usage_since_last_result: dict[str, ModelUsage] | None = None
    user_message_uuids: list[str] | None = None


class ControlRequest(Frame, tag="control_request", kw_only=True):
    """Claude Code asks us something."""

    request_id: str
    request: dict[str, Any]


class ControlAnswer(msgspec.Struct):
    """What came of a request of ours."""

    subtype: str
    request_id: str
    response: dict[str, Any] | None = None
    error: str | None = None


class ControlResponse(Frame, tag="control_response", kw_only=True):
    """Claude Code answers a request of ours."""

    response: ControlAnswer


class ControlCancel(Frame, tag="control_cancel_request", kw_only=True):
    """Claude Code withdraws a request."""

    request_id: str


class KeepAlive(Frame, tag="keep_alive", kw_only=True):
    """Nothing."""


AnyFrame = (
    StreamEvent
    | Assistant
    | User
    | System
    | Lifecycle
    | RateLimitEvent
    | Result
    | ControlRequest
    | ControlResponse
    | ControlCancel
    | KeepAlive
)

_SURROGATES = re.compile(
    rb"""\\(?:
        u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}   # a pair: one character
        | (?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})
        | .                                                       # any other escape, `\\\\` above all
    )""",
    re.VERBOSE | re.DOTALL,
)

_decoder = msgspec.json.Decoder(AnyFrame)
_encoder = msgspec.json.Encoder()
_MOST_TEXT = 65_536
_WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode(line: bytes) -> AnyFrame | None:
    """Return the frame in *line*; None for one that is not known here or cannot be read."""
    try:
        return _decode(line)
    except _WRONG:
        pass
    try:
        # Half a character (JavaScript cuts texts between the halves) would make the whole line unreadable.
        return _decode(_without_lone_surrogates(line))
    except _WRONG:
        return _decode_result(line)


def _decode(line: bytes) -> AnyFrame:
    frame: AnyFrame = _decoder.decode(line)
    return frame


def _without_lone_surrogates(line: bytes) -> bytes:
    return _SURROGATES.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], line)


def _decode_result(line: bytes) -> Result | None:
    """Return the result in *line* with those of its fields that can be understood; None if it is none.

    Without it a turn would never end, so a field that has changed its type must not hide the frame.
    """
    try:
        fields = msgspec.json.decode(_without_lone_surrogates(line))
    except _WRONG:
        return None
    if not isinstance(fields, dict) or fields.get("type") != "result":
        return None
    known: dict[str, Any] = {}
    for field in msgspec.structs.fields(Result):
        try:
            known[field.name] = msgspec.convert(fields[field.encode_name], field.type)
        except (KeyError, msgspec.ValidationError):
            continue
    return Result(**known)


def encode(frame: dict[str, Any]) -> bytes:
    """Return *frame* as a line."""
    return _encoder.encode(frame) + b"\n"


def as_json(line: bytes) -> tuple[msgspec.Raw, bool]:
    """Return *line* fit to be embedded in JSON, and whether it was JSON itself.

    One that is not becomes a string of its text, shortened to 64 KiB, with U+FFFD for what is no UTF-8.
    """
    try:
        line.decode()
        msgspec.json.decode(line)
    except _WRONG:
        return msgspec.Raw(_encoder.encode(line[:_MOST_TEXT].decode(errors="replace"))), False
    return msgspec.Raw(line.strip()), True
