"""One answer as it comes in: its text, its events, its counts. No event is made per delta: what one chunk
brought of a block is one event, and none at all while nobody watches."""

import re
import time
from collections.abc import Callable

from dragoman_protocol.session import Usage
from dragoman_protocol.stream import AssistantText, Event, TextDelta, Thinking, ThinkingDelta

from dragomand.upstream import failures
from dragomand.upstream.interface import Failure
from dragomand.upstream.messages_api.endpoint import StreamReader
from dragomand.upstream.messages_api.sse import EventReader, TooLongError, next_event
from dragomand.upstream.messages_api.wire import (
    ApiEvent,
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    Counts,
    ErrorEvent,
    MessageDelta,
    MessageStart,
    MessageStop,
    Ping,
    UnreadableError,
    decode,
)
from dragomand.upstream.models import Tokens, cost_usd

_PIECE = re.compile(
    rb'event: content_block_delta\ndata: \{"type":"content_block_delta","index":(\d{1,4}),'
    rb'"delta":\{"type":"text_delta","text":"([^"\\\x00-\x1f]*)"\} *\} *\n\n'
).match
"""A piece of text without escapes, as the API writes it."""


class _Open:
    """A block that is being written."""

    __slots__ = ("item_id", "kind", "parts", "told", "told_chars")

    def __init__(self, item_id: str, block: Block) -> None:
        self.item_id = item_id
        self.kind = block.type
        self.parts = [text] if (text := block.text or block.thinking) else []
        self.told = 0
        self.told_chars = 0

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def news(self) -> Event | None:
        """Return what was not told yet as one delta."""
        if self.told == len(self.parts):
            return None
        text = "".join(self.parts[self.told :])
        kind = TextDelta if self.kind == "text" else ThinkingDelta
        delta = kind(item_id=self.item_id, offset=self.told_chars, text=text)
        self.told = len(self.parts)
        self.told_chars += len(text)
        return delta


class Answer:
    """Takes an answer's stream."""

    def __init__(
        self,
        sink: Callable[[Event], None],
        wanted: Callable[[], bool],
        reader: StreamReader | None = None,
    ) -> None:
        """Give events to *sink*, deltas only while *wanted* says so (later ones begin where those ended).

        *reader* makes server-sent events of the chunks; None: they are such events.
        """
        self._sink = sink
        self._wanted = wanted
        self._reader = reader or EventReader()
        self._message_id = ""
        self._open: dict[int, _Open] = {}
        self.held: list[Event] = []
        """Whole items that were not given to the sink yet; left in the end are those of the last chunk."""
        self.tokens = Tokens()
        self.model: str | None = None
        self.stop_reason: str | None = None
        self.text = ""
        """The newest complete text block."""
        self.begun = False
        """Whether the API has begun to answer."""
        self.complete = False
        """Whether the answer has come to its end."""
        self.failure: Failure | None = None

    def feed(self, chunk: bytes) -> bool:
        """Take *chunk*; True if it brought more than pings. `complete` or `failure` may be set then."""
        if self._is_piece(chunk):
            return True
        try:
            alive = self._read(self._reader.feed(chunk))
        except (UnreadableError, TooLongError) as wrong:
            self.failure = Failure("protocol", f"The Messages API's stream cannot be understood: {wrong}.")
            alive = True  # what came before it stays said
        if not self.complete:
            self._let_go()
            if self._open and self._wanted():
                self._tell()
        return alive

    def _is_piece(self, chunk: bytes) -> bool:
        """Take a chunk that is one plain piece of text, as most are; False if it is something else."""
        piece = None if self._reader.holds else _PIECE(chunk)
        if piece is None or piece.end() != len(chunk):
            return False
        block = self._open.get(int(piece[1]))
        if block is None:
            return False
        if piece[2]:
            block.parts.append(piece[2].decode(errors="replace"))
        if self.held:
            self._let_go()
        if self._wanted():
            self._tell()
        return True

    @property
    def said(self) -> str:
        """What the newest text block says so far, whether anybody was told of it or not."""
        begun = [block for _, block in sorted(self._open.items()) if block.kind == "text" and block.parts]
        return begun[-1].text if begun else self.text

    @property
    def usage(self) -> Usage:
        """The counts so far."""
        tokens = self.tokens
        return Usage(
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_creation_tokens=tokens.cache_write,
        )

    @property
    def cost_usd(self) -> float | None:
        """The estimated cost so far; None before the API has begun, and for a model without a price."""
        return cost_usd(self.model, self.tokens) if self.begun else None

    def _read(self, events: bytes) -> bool:
        at, alive = 0, False
        while at < len(events):
            after = self._read_pieces(events, at)
            if after > at:
                at, alive = after, True
                continue
            data, at = next_event(events, at)
            if data is not None:
                alive |= self._take(decode(data))
        return alive

    def _read_pieces(self, events: bytes, at: int) -> int:
        """Read the plain pieces of text that follow each other from *at* on; return where they end.

        This is nearly all of an answer, so they are cut out of the bytes as they stand. A piece with an
        escape in it, or of another form, is left to the decoder.
        """
        pieces = []
        index = b""
        while (piece := _PIECE(events, at)) is not None and (not index or piece[1] == index):
            index = piece[1]
            pieces.append(piece[2])
            at = piece.end()
        if pieces:
            self._add(int(index), b"".join(pieces).decode(errors="replace"))
        return at

    def _take(self, event: ApiEvent | None) -> bool:
        kind = type(event)
        if kind is BlockDelta:
            self._grow(event)  # type: ignore[arg-type]
        elif isinstance(event, BlockStart):
            item_id = f"{self._message_id}.{event.index}"
            self._open[event.index] = _Open(item_id, event.content_block)
        elif isinstance(event, BlockStop):
            self._end_block(event.index)
        elif isinstance(event, MessageStart):
            self.begun = True
            self._message_id, self.model = event.message.id, event.message.model or None
            self._count(event.message.usage)
        elif isinstance(event, MessageDelta):
            self.stop_reason = event.delta.stop_reason or self.stop_reason
            self._count(event.usage)
        elif isinstance(event, MessageStop):
            self.complete = True
        elif isinstance(event, ErrorEvent):
            self.failure = failures.of_event(event.error.type, event.error.message, None, time.time())
        return kind is not Ping

    def _grow(self, event: BlockDelta) -> None:
        delta = event.delta
        self._add(event.index, delta.text or delta.thinking)

    def _add(self, index: int, text: str) -> None:
        if not text:
            return
        block = self._open.get(index)
        if block is None:
            raise UnreadableError(f"content block {index} grows and was never begun")
        block.parts.append(text)

    def _end_block(self, index: int) -> None:
        block = self._open.get(index)
        if block is None:
            return
        self._let_go()
        if self._wanted():
            self._tell()
        del self._open[index]
        if block.kind == "text":
            self.text = block.text
            self.held.append(AssistantText(item_id=block.item_id, text=self.text))
        elif block.kind == "thinking" and block.parts:
            self.held.append(Thinking(item_id=block.item_id, text=block.text))

    def _let_go(self) -> None:
        for event in self.held:
            self._sink(event)
        self.held.clear()

    def _tell(self) -> None:
        for block in self._open.values():
            delta = block.news()
            if delta is not None:
                self._sink(delta)

    def _count(self, counts: Counts) -> None:
        tokens = self.tokens
        if counts.input_tokens is not None:
            tokens.input = counts.input_tokens
        if counts.output_tokens is not None:
            tokens.output = counts.output_tokens
        if counts.cache_read_input_tokens is not None:
            tokens.cache_read = counts.cache_read_input_tokens
        if counts.cache_creation_input_tokens is not None:
            tokens.cache_write = counts.cache_creation_input_tokens
        if counts.cache_creation is not None:
            tokens.cache_write_1h = counts.cache_creation.ephemeral_1h_input_tokens or 0
