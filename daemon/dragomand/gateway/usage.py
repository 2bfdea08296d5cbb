"""What an answer of the Messages API took, read from its bytes as they go by.

The reader is told of bytes after they were passed on; it never holds any back, and what it cannot read it
ignores. Of a stream it decodes the two or three lines that count and no delta.
"""

import re
from contextlib import suppress

import msgspec
from dragoman_protocol.session import Usage

from dragomand.upstream.models import Tokens, cost_usd

_MOST_LINE = 1 << 20
_MOST_JSON = 16 << 20
_BEGINNING = 200
"""Within so many bytes of a line stands its type."""
_PING = re.compile(rb'data:\s*\{\s*"type"\s*:\s*"ping"').match
_COUNTING = (b'"message_start"', b'"message_delta"', b'"message_stop"', b'"error"')


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: int | None = None


class _Tokens(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _CacheCreation | None = None


class _Message(msgspec.Struct):
    type: str = ""
    model: str = ""
    usage: _Tokens | None = None


class _Event(msgspec.Struct):
    type: str = ""
    usage: _Tokens | None = None
    message: _Message | None = None


_EVENT = msgspec.json.Decoder(_Event)
_MESSAGE = msgspec.json.Decoder(_Message)


class UsageReader:
    """Reads one answer."""

    def __init__(self, content_type: str) -> None:
        """Read an event stream, or JSON, by *content_type*; of anything else nothing."""
        self._stream = content_type.startswith("text/event-stream")
        self._json = content_type.startswith("application/json")
        self._rest = bytearray()
        self._skipping = False
        self._model = ""
        self._cached_for_an_hour = 0
        self.usage: Usage | None = None
        """What was said so far."""
        self.failed = False
        """Whether the stream told of an error."""
        self.complete = not self._stream
        """Whether the answer is whole: of a stream, whether its last event has come."""

    @property
    def cost_usd(self) -> float | None:
        """The estimated cost so far; None while no usage was told, and for a model without a price."""
        usage = self.usage
        if usage is None:
            return None
        tokens = Tokens(
            input=usage.input_tokens,
            output=usage.output_tokens,
            cache_read=usage.cache_read_tokens,
            cache_write=usage.cache_creation_tokens,
            cache_write_1h=min(self._cached_for_an_hour, usage.cache_creation_tokens),
        )
        return cost_usd(self._model, tokens)

    def feed(self, data: bytes) -> bool:
        """Take what went by; True if it was more than pings."""
        if self._stream:
            return self._feed_stream(data)
        if self._json and len(self._rest) <= _MOST_JSON:
            self._rest += data
        return True

    def end(self) -> None:
        """The answer is over."""
        if self._stream:
            self._line(bytes(self._rest))
        elif self._json and len(self._rest) <= _MOST_JSON:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                self._begin(_MESSAGE.decode(self._rest))
        self._rest.clear()

    def _feed_stream(self, data: bytes) -> bool:
        lines = data.split(b"\n")
        if len(lines) == 1:
            return self._keep(data)
        alive = self._skipping
        if not self._skipping:
            alive = self._line(bytes(self._rest) + lines[0])
        self._skipping = False
        self._rest.clear()
        for line in lines[1:-1]:
            alive |= self._line(line)
        return self._keep(lines[-1]) or alive

    def _keep(self, part: bytes) -> bool:
        """Keep the beginning of a line; one that is too long to matter is skipped. True for a long one."""
        if len(self._rest) + len(part) > _MOST_LINE:
            self._skipping = True
            self._rest.clear()
        elif not self._skipping:
            self._rest += part
        return bool(part) and (self._skipping or len(self._rest) > _BEGINNING)

    def _line(self, line: bytes) -> bool:
        """Read a line; True if it carries an event that is no ping."""
        if not line.startswith(b"data:"):
            return False
        beginning = line[:_BEGINNING]
        if any(kind in beginning for kind in _COUNTING):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                self._take(_EVENT.decode(line[5:]))
        return _PING(line) is None

    def _take(self, event: _Event) -> None:
        if event.type == "message_start" and event.message is not None:
            self._begin(event.message)
        elif event.type == "message_delta":
            self._note(event.usage)
        elif event.type == "message_stop":
            self.complete = True
        elif event.type == "error":
            self.failed = True

    def _begin(self, message: _Message) -> None:
        self._model = message.model
        self._note(message.usage)

    def _note(self, said: _Tokens | None) -> None:
        """Later counts replace earlier ones: they are totals."""
        if said is None:
            return
        known = self.usage or Usage()
        if said.cache_creation is not None:
            self._cached_for_an_hour = _newer(said.cache_creation.ephemeral_1h_input_tokens, 0)
        self.usage = Usage(
            input_tokens=_newer(said.input_tokens, known.input_tokens),
            output_tokens=_newer(said.output_tokens, known.output_tokens),
            cache_read_tokens=_newer(said.cache_read_input_tokens, known.cache_read_tokens),
            cache_creation_tokens=_newer(said.cache_creation_input_tokens, known.cache_creation_tokens),
        )


def _newer(said: int | None, known: int) -> int:
    return known if said is None or said < 0 else said
