"""The ordered events of one session: numbered, committed, then published.

A durable event is published only after its row is committed, so whatever a client has seen with a `seq` is in
the store, and a number is never used twice, a crash included. What comes after it waits behind it, at most one
group commit. Ephemeral events with nothing in front of them go out at once.

Publishing never waits for a subscriber: a subscriber is a plain function that must return at once.
"""

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
"""Ephemeral events that may wait behind a commit; further ones are left out (their final item follows)."""

_encode = msgspec.json.Encoder().encode


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
"""Takes each published event, in order, and returns at once."""

Write = Callable[[list[ItemRow]], Awaitable[None]]
"""Stores numbered rows; returns after the commit."""


def cursor_of(epoch: str, seq: int) -> str:
    """Return the opaque cursor that stands for everything up to *seq*."""
    return f"{epoch}:{seq}"


def read_cursor(cursor: str) -> tuple[str, int]:
    """Take a cursor apart: epoch and seq. Raises `ValueError` for what is not a cursor."""
    epoch, colon, seq = cursor.rpartition(":")
    if not colon or not seq.isascii() or not seq.isdigit():
        raise ValueError(f"{cursor!r} is not a cursor; pass one exactly as it was received")
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
        self.turn_id = ""
        """The running turn; empty between turns."""
        self.failure: StorageError | None = None
        """Why events can no longer be stored, once that happened in this turn."""
        self._append = append
        self._clock = clock
        self._subscribers: dict[int, Subscriber] = {}
        self._next_subscriber = 0
        self._pending: deque[Event] = deque()
        self._left_out = 0
        self._wake = anyio.Event()
        self._committing = False
        self._finishing = False
        self._texts: dict[str, tuple[type[TextDelta] | type[ThinkingDelta], list[str]]] = {}

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
        return lambda: self._subscribers.pop(key, None) and None

    def running_texts(self) -> list[Published]:
        """Return what the items that are being written say so far, each as one delta from offset 0."""
        return [
            Published(
                StreamEventParams(
                    session_id=self.session_id, event=kind(item_id=item_id, offset=0, text="".join(parts))
                )
            )
            for item_id, (kind, parts) in self._texts.items()
        ]

    # -- a turn

    def begin(self, turn_id: str) -> None:
        """Start a turn: what is published from now on belongs to it, until `end`."""
        self.turn_id = turn_id
        self.failure = None
        self._finishing = False
        self._wake = anyio.Event()

    def finish(self) -> None:
        """Let `pump` return once everything that was published is out."""
        self._finishing = True
        self._wake.set()

    def end(self) -> None:
        """The turn is over."""
        self.turn_id = ""
        self._texts.clear()

    def publish(self, event: Event) -> None:
        """Take the next event; returns at once. Upstream's sink."""
        self._note_text(event)
        if is_durable(event):
            self._pending.append(event)
            self._wake.set()
        elif not self._pending and not self._committing:
            self._deliver([(event, None)])
        elif len(self._pending) < MAX_PENDING:
            self._pending.append(event)
        else:
            self._left_out += 1

    async def pump(self) -> None:
        """Commit and deliver what waits, until `finish`. Runs in a task for the length of a turn.

        A failing store does not raise here: `failure` says so, later durable events are dropped with it (they
        would leave a gap), and whoever runs the turn ends it.
        """
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            while self._pending:
                events = list(self._pending)
                self._pending.clear()
                try:
                    await self.commit(events, self._append)
                except StorageError as error:
                    self.failure = error
                    self._pending.clear()
            if self._finishing:
                return
            if self.failure is not None:
                self._finishing = True
                return

    async def commit(self, events: Sequence[Event], write: Write) -> None:
        """Number the durable ones of *events*, store them through *write*, then deliver all in order.

        Not ended half-way by cancellation. When *write* raises, nothing was numbered or delivered.
        """
        rows: list[ItemRow] = []
        numbered: list[tuple[Event, int | None]] = []
        now = self._clock()
        for event in events:
            if is_durable(event):
                seq = self.last_seq + len(rows) + 1
                rows.append(
                    to_row(event, session_id=self.session_id, turn_id=self.turn_id, seq=seq, created_at=now)
                )
                numbered.append((event, seq))
            else:
                numbered.append((event, None))
        self._committing = True
        try:
            with anyio.CancelScope(shield=True):
                await write(rows)
        finally:
            self._committing = False
        self.last_seq += len(rows)
        self._deliver(numbered)

    # -- inside

    def _deliver(self, events: Sequence[tuple[Event, int | None]]) -> None:
        subscribers = list(self._subscribers.values())
        if not subscribers:
            return
        for event, seq in events:
            cursor = None if seq is None else cursor_of(self.epoch, seq)
            published = Published(
                StreamEventParams(session_id=self.session_id, event=event, seq=seq, cursor=cursor)
            )
            for subscriber in subscribers:
                subscriber(published)

    def _note_text(self, event: Event) -> None:
        if isinstance(event, TextDelta | ThinkingDelta):
            known = self._texts.get(event.item_id)
            if known is None:
                self._texts[event.item_id] = (type(event), [event.text])
            else:
                known[1].append(event.text)
        elif isinstance(event, AssistantText | Thinking):
            self._texts.pop(event.item_id, None)
