"""The events of the Messages API's stream, as far as they are understood here."""

import re

import msgspec


class CacheCreation(msgspec.Struct):
    """How long what was written to the cache is kept."""

    ephemeral_1h_input_tokens: int | None = None


class Counts(msgspec.Struct):
    """Tokens of one message. In `message_delta` they are totals, and those that have not changed may miss."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None


class Message(msgspec.Struct):
    """The message that begins."""

    id: str = ""
    model: str = ""
    usage: Counts = msgspec.field(default_factory=Counts)


class Block(msgspec.Struct):
    """The content block that begins."""

    type: str = ""
    text: str = ""
    thinking: str = ""


class Delta(msgspec.Struct):
    """A piece of a block."""

    type: str = ""
    text: str = ""
    thinking: str = ""


class End(msgspec.Struct):
    """How the message ended."""

    stop_reason: str | None = None


class Fault(msgspec.Struct):
    """What went wrong."""

    type: str = ""
    message: str = ""


class MessageStart(msgspec.Struct, tag="message_start"):
    """A message begins."""

    message: Message


class BlockStart(msgspec.Struct, tag="content_block_start"):
    """A content block begins."""

    index: int
    content_block: Block


class BlockDelta(msgspec.Struct, tag="content_block_delta"):
    """A content block grows."""

    index: int
    delta: Delta


class BlockStop(msgspec.Struct, tag="content_block_stop"):
    """A content block is complete."""

    index: int


class MessageDelta(msgspec.Struct, tag="message_delta"):
    """The message's end is known."""

    delta: End
    usage: Counts = msgspec.field(default_factory=Counts)


class MessageStop(msgspec.Struct, tag="message_stop"):
    """The message is complete."""


class Ping(msgspec.Struct, tag="ping"):
    """Nothing, but somebody is there."""


class ErrorEvent(msgspec.Struct, tag="error"):
    """The answer is broken off."""

    error: Fault = msgspec.field(default_factory=Fault)


ApiEvent = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping | ErrorEvent

_decoder: "msgspec.json.Decoder[ApiEvent]" = msgspec.json.Decoder(ApiEvent)
_WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_SURROGATES = re.compile(
    rb"""\\(?:
        u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}   # a pair: one character
        | (?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})
        | .
    )""",
    re.VERBOSE | re.DOTALL,
)


class UnreadableError(Exception):
    """An event's data is not what the API promises."""


def decode(data: bytes) -> ApiEvent | None:
    """Return the event in *data*; None for one of a kind that this version does not know.

    Bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD. Raises `UnreadableError`.
    """
    try:
        return _decoder.decode(data)
    except _WRONG:
        pass
    mended = _SURROGATES.sub(_mend, data.decode(errors="replace").encode())
    try:
        return _decoder.decode(mended)
    except _WRONG as wrong:
        if _is_of_another_kind(mended):
            return None
        raise UnreadableError(str(wrong)) from None


def _mend(found: "re.Match[bytes]") -> bytes:
    return rb"\ufffd" if found["lone"] else found[0]


def _is_of_another_kind(data: bytes) -> bool:
    try:
        event = msgspec.json.decode(data)
    except _WRONG:
        return False
    known = {kind.__struct_config__.tag for kind in ApiEvent.__args__}
    return isinstance(event, dict) and isinstance(event.get("type"), str) and event["type"] not in known
