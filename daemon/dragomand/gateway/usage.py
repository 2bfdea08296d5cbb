"""What an answer of the Messages API took, read from its bytes as they go by.

The reader is told of bytes after they were passed on; it never holds any back, and what it cannot read it
ignores. Of a stream it decodes the two or three lines that count and no delta.
"""

from contextlib import suppress

import msgspec
from dragoman_protocol.session import Usage

_MOST_LINE = 1 << 20
_MOST_JSON = 16 << 20
_BEGINNING = 200
"""Within so many bytes of a line stands its type."""
_COUNTING = (b'"message_start"', b'"message_delta"', b'"message_stop"', b'"error"')


class _Tokens(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Message(msgspec.Struct):
    type: str = ""
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
        self.usage: Usage | None = None
        """What was said so far."""
        self.failed = False
        """Whether the stream told of an error."""
        self.complete = not self._stream
        """Whether the answer is whole: of a stream, whether its last event has come."""

    def feed(self, data: bytes) -> None:
        """Take what went by."""
        if self._stream:
            self._feed_stream(data)
        elif self._json and len(self._rest) <= _MOST_JSON:
            self._rest += data

    def end(self) -> None:
        """The answer is over."""
        if self._stream:
            self._line(bytes(self._rest))
        elif self._json and len(self._rest) <= _MOST_JSON:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                self._note(_MESSAGE.decode(self._rest).usage)
        self._rest.clear()

    def _feed_stream(self, data: bytes) -> None:
        lines = data.split(b"\n")
        if len(lines) == 1:
            self._keep(data)
            return
        if not self._skipping:
            self._line(bytes(self._rest) + lines[0])
        self._skipping = False
        self._rest.clear()
        for line in lines[1:-1]:
            self._line(line)
        self._keep(lines[-1])

    def _keep(self, part: bytes) -> None:
        """Keep the beginning of a line; one that is too long to matter is skipped."""
        if len(self._rest) + len(part) > _MOST_LINE:
            self._skipping = True
            self._rest.clear()
        elif not self._skipping:
            self._rest += part

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        beginning = line[:_BEGINNING]
        if not any(kind in beginning for kind in _COUNTING):
            return
        try:
            event = _EVENT.decode(line[5:])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if event.type == "message_start" and event.message is not None:
            self._note(event.message.usage)
        elif event.type == "message_delta":
            self._note(event.usage)
        elif event.type == "message_stop":
            self.complete = True
        elif event.type == "error":
            self.failed = True

    def _note(self, said: _Tokens | None) -> None:
        """Later counts replace earlier ones: they are totals."""
        if said is None:
            return
        known = self.usage or Usage()
        self.usage = Usage(
            input_tokens=_newer(said.input_tokens, known.input_tokens),
            output_tokens=_newer(said.output_tokens, known.output_tokens),
            cache_read_tokens=_newer(said.cache_read_input_tokens, known.cache_read_tokens),
            cache_creation_tokens=_newer(said.cache_creation_input_tokens, known.cache_creation_tokens),
        )


def _newer(said: int | None, known: int) -> int:
    return known if said is None or said < 0 else said
