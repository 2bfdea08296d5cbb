"""The ordered events of one session: numbered, committed, then published.

A durable event is published only after its row is committed, so whatever a client has seen with a `seq` is in
the store, and a number is never used twice, a crash included. What comes after it waits behind it, at most
one group commit. Ephemeral events with nothing in front of them go out at once.

Publishing never waits for a subscriber: a subscriber is a plain function that must return at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import msgspec
from dragoman_protocol.stream import (
    AssistantText,
    Event,
    StreamEventParams,
    TextDelta,
    Thinking,
    ThinkingDelta,
)

from dragomand.store.errors import StorageError
from dragomand.store.rows import ItemRow

from .records import is_durable, to_row

MAX_PENDING = 4096
"""Events that may wait behind a commit. Beyond it deltas are joined to the one before, other ephemeral events
are left out, and a durable one ends the turn: the database does not keep up."""

_encode = msgspec.json.Encoder().encode

Delta = TextDelta | ThinkingDelta


class Published:
    """One event on its way to subscribers; encoded once however many there are."""

    __slots__ = ("_raw", "params")

    def __init__(self, params: StreamEventParams) -> None:
        """Carry *params*, the wire's value of the event."""
        self.params = params
        self._raw: msgspec.Raw | None = None

    @property
    def ephemeral(self) -> bool:
        """Whether it may be left out."""
        return self.params.seq is None

    @property
    def raw(self) -> msgspec.Raw:
        """The encoded `StreamEventParams`."""
        if self._raw is None:
            self._raw = msgspec.Raw(_encode(self.params))
        return self._raw


Subscriber = Callable[[Published], None]
"""Takes each published event, in order, and returns at once; it must not raise."""

Write = Callable[[list[ItemRow]], Awaitable[None]]
"""Stores numbered rows; returns after the commit."""


def cursor_of(epoch: str, seq: int) -> str:
    """Return the opaque cursor that stands for everything up to *seq*."""
    return f"{epoch}:{seq}"


def read_cursor(cursor: str) -> tuple[str, int]:
    """Take a cursor apart: epoch and seq. Raises `ValueError` for what is not a cursor."""
    epoch, colon, seq = cursor.rpartition(":")
    if not colon or not seq.isascii() or not seq.isdigit() or len(seq) > 15:
        raise ValueError(f"{cursor[:100]!r} is not a cursor; pass one exactly as it was received")
    return epoch, int(seq)


class Channel:
    """One session's events while something happens in it or somebody watches."""

    def __init__(
        self, *, session_id: str, epoch: str, last_seq: int, append: Write, clock: Callable[[], float]
    ) -> None:
        """Continue after *last_seq*; *append* stores rows, *clock* gives Unix seconds."""
        self.session_id = session_id
        self.epoch = epoch
        self.last_seq = last_seq
        """The newest number that is committed and published."""
        self.unborn = False
        """Its session is a fork that is not stored yet, so what it begins with cannot be read."""
        self.turn_id = ""
        """The running turn; empty between turns."""
        self.failure: Exception | None = None
        """Why events can no longer be stored, once that happened in this turn."""
        self.watched_at = 0.0
        """When (the event loop's clock) the last one stopped watching."""
        self.on_unwatched: Callable[[], None] | None = None
        """Called then, and must return at once."""
        self._on_pending: Callable[[], None] | None = None
        self.left_out = 0
        """How many ephemeral events were left out for want of room."""
        self._append = append
        self._clock = clock
        self._subscribers: dict[int, Subscriber] = {}
        self._next_subscriber = 0
        self._pending: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._committing = False
        self._finishing = False
        self._texts: dict[str, _RunningText] = {}

    @property
    def cursor(self) -> str:
        """Where a subscriber stands that has seen everything."""
        return cursor_of(self.epoch, self.last_seq)

    @property
    def watched(self) -> bool:
        """Whether anybody is subscribed."""
        return bool(self._subscribers)

    # -- subscribers

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Hand every event from now on to *subscriber*; returns its removal."""
        key = self._next_subscriber = self._next_subscriber + 1
        self._subscribers[key] = subscriber

        def unsubscribe() -> None:
            if self._subscribers.pop(key, None) is not None and not self._subscribers:
                # Not anyio's: whoever leaves may be a connection's callback, which is no task.
                self.watched_at = asyncio.get_running_loop().time()
                if self.on_unwatched is not None:
                    self.on_unwatched()

        return unsubscribe

    def running_texts(self) -> list[Published]:
        """Return the published text of each item that is being written, as one delta from offset 0.

        An item of which something was left out is not among them: its whole text comes when it is complete.
        """
        deltas = [text.delta(item_id) for item_id, text in self._texts.items() if not text.torn]
        return [Published(StreamEventParams(session_id=self.session_id, event=delta)) for delta in deltas]

    # -- a turn

    def begin(self, turn_id: str) -> None:
        """Start a turn: what is published from now on belongs to it, until `end`."""
        self.turn_id = turn_id
        self.failure = None
        self._finishing = False
        self._pending.clear()
        self._wake.clear()

    def when_pending(self, pump: Callable[[], None]) -> None:
        """Call *pump* once in this turn, as soon as an event waits: `pump` is needed then, and not before."""
        self._on_pending = pump
        self._call_pump()

    def finish(self) -> None:
        """Let `pump` return once everything that was published is out."""
        self._finishing = True
        self._wake.set()

    def end(self) -> None:
        """The turn is over."""
        self.turn_id = ""
        self._on_pending = None
        self._pending.clear()
        self._texts.clear()

    def publish(self, event: Event) -> None:
        """Take the next event; returns at once. Durable events only within a turn."""
        if is_durable(event):
            self._line_up(event)
        elif not self._pending and not self._committing:
            self._deliver([(event, None)])
        elif len(self._pending) < MAX_PENDING:
            self._wait_with(event)
        elif not self._join(event):
            self.left_out += 1

    def announce(self, event: Event) -> None:
        """Deliver a durable event without storing it, so without number: the store has failed."""
        self._deliver([(event, None)])

    async def pump(self) -> None:
        """Commit and deliver what waits, until `finish`. Runs in a task for the length of a turn.

        A failure does not raise here: `failure` says so, later durable events are dropped with it (they would
        leave a gap), and whoever runs the turn ends it.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending and not self._committing:
                events = list(self._pending)
                self._pending.clear()
                try:
                    await self.commit(events, self._append)
                except Exception as error:  # noqa: BLE001  # told by whoever runs the turn
                    self._fail(error)
            if (self._finishing and not self._pending) or self.failure is not None:
                return

    async def commit(self, events: Sequence[Event], write: Write) -> None:
        """Number the durable ones of *events*, store them through *write*, then deliver all in order.

        Not ended half-way by cancellation. When *write* raises, nothing was numbered or delivered.
        """
        rows: list[ItemRow] = []
        numbered: list[tuple[Event, int | None]] = []
        now = self._clock()
        for event in events:
            seq = None
            if is_durable(event):
                seq = self.last_seq + len(rows) + 1
                rows.append(
                    to_row(event, session_id=self.session_id, turn_id=self.turn_id, seq=seq, created_at=now)
                )
            numbered.append((event, seq))
        self._committing = True
        try:
            if rows:
                with anyio.CancelScope(shield=True):
                    await write(rows)
        finally:
            self._committing = False
            if self._pending:
                self._wake.set()  # it waited behind this
        self.last_seq += len(rows)
        self._deliver(numbered)

    # -- inside

    def _line_up(self, event: Event) -> None:
        if self.failure is not None:
            return
        if len(self._pending) >= MAX_PENDING:
            self._fail(StorageError("session database", f"{MAX_PENDING} events wait to be written"))
            return
        self._wait_with(event)

    def _wait_with(self, event: Event) -> None:
        self._pending.append(event)
        self._wake.set()
        self._call_pump()

    def _call_pump(self) -> None:
        if self._on_pending is not None and self._pending:
            call, self._on_pending = self._on_pending, None
            call()

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._pending.clear()
        self._wake.set()

    def _join(self, event: Event) -> bool:
        last = self._pending[-1]
        if not isinstance(event, Delta) or not isinstance(last, Delta):
            return False
        if type(event) is not type(last) or event.item_id != last.item_id:
            return False
        if event.offset != last.offset + len(last.text):
            return False
        self._pending[-1] = type(last)(item_id=last.item_id, offset=last.offset, text=last.text + event.text)
        return True

    def _deliver(self, events: Sequence[tuple[Event, int | None]]) -> None:
        subscribers = list(self._subscribers.values())
        for event, seq in events:
            self._note_text(event)
            if not subscribers:
                continue
            cursor = None if seq is None else cursor_of(self.epoch, seq)
            params = StreamEventParams(session_id=self.session_id, event=event, seq=seq, cursor=cursor)
            published = Published(params)
            for subscriber in subscribers:
                subscriber(published)

    def _note_text(self, event: Event) -> None:
        if isinstance(event, Delta):
            text = self._texts.get(event.item_id)
            if text is None:
                text = self._texts[event.item_id] = _RunningText(type(event))
            text.add(event)
        elif isinstance(event, AssistantText | Thinking):
            self._texts.pop(event.item_id, None)


class _RunningText:
    """What an unfinished item says so far."""

    __slots__ = ("_kind", "_length", "_parts", "torn")

    def __init__(self, kind: type[Delta]) -> None:
        self._kind = kind
        self._parts: list[str] = []
        self._length = 0
        self.torn = False
        """Something is missing."""

    def add(self, delta: Delta) -> None:
        if delta.offset != self._length:
            self.torn = True
        self._parts.append(delta.text)
        self._length += len(delta.text)

    def delta(self, item_id: str) -> Delta:
        return self._kind(item_id=item_id, offset=0, text="".join(self._parts))
