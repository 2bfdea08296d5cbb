"""Subscriptions to sessions: replay from the store, then live, without a gap and without a duplicate.

Attaching reads the store until it has caught up with the channel and goes live in that same instant, so
nothing has to be kept back meanwhile. The running items' text so far closes the gap of the deltas that were
missed.
"""

from collections.abc import Callable

from dragoman_protocol.stream import StreamAttachResult, StreamEventParams

from .channel import Channel, Published, cursor_of, read_cursor
from .errors import EngineError
from .records import to_event
from .sessions import Sessions, storage_errors

PAGE = 200
"""Items that are read at once for a replay."""

Deliver = Callable[[Published], bool]
"""Sends one event on; False if it was not taken."""

Dropped = Callable[[str], None]
"""Told when the reader was too slow for a durable event: the subscription is over, and where to continue."""


class _Attachment:
    """One client's subscription to one session."""

    def __init__(
        self, channel: Channel, deliver: Deliver, dropped: Dropped, ended: Callable[["_Attachment"], None]
    ) -> None:
        self.channel = channel
        self.live = False
        self.open = True
        self.position = ""
        """The cursor of the last durable event that was taken."""
        self._deliver = deliver
        self._dropped = dropped
        self._ended = ended
        self._unsubscribe = channel.subscribe(self._receive)

    def send(self, event: Published) -> None:
        """Deliver one event. An ephemeral one may be lost; a durable one that is not taken ends this."""
        if not self.open:
            return
        if self._deliver(event):
            self.position = event.params.cursor or self.position
        elif not event.ephemeral:
            self.end()
            self._dropped(self.position)

    def end(self) -> None:
        """Stop receiving."""
        if self.open:
            self.open = False
            self._unsubscribe()
            self._ended(self)

    def _receive(self, event: Published) -> None:
        if self.live:
            self.send(event)


class Attachments:
    """Who is attached to what."""

    def __init__(self, sessions: Sessions) -> None:
        """Attach to the channels of *sessions*."""
        self._sessions = sessions
        self._open: dict[tuple[str, str], _Attachment] = {}
        self._clients: set[str] = set()

    @property
    def open(self) -> int:
        """How many subscriptions there are."""
        return len(self._open)

    def enters(self, caller_id: str) -> bool:
        """True the first time for this client: then somebody has to call `leave` when it goes."""
        first = caller_id not in self._clients
        self._clients.add(caller_id)
        return first

    async def attach(
        self, session_id: str, cursor: str | None, caller_id: str, deliver: Deliver, dropped: Dropped
    ) -> StreamAttachResult:
        """Replay what came after *cursor* (None: everything), then deliver live until `detach`.

        What is replayed has been delivered when this returns. Attaching again replaces the attachment before.
        Raises `session_not_found`, and `invalid_params` for what is not a cursor.
        """
        epoch, after = ("", 0) if cursor is None else _parse(cursor)
        channel = await self._sessions.channel(session_id)
        key = (caller_id, session_id)
        # The new one subscribes before the old one leaves: a channel that nobody watches is let go.
        attachment = _Attachment(channel, deliver, dropped, lambda ended: self._ended(key, ended))
        self.detach(session_id, caller_id)
        self._open[key] = attachment
        lost = cursor is not None and (epoch != channel.epoch or after > channel.last_seq)
        try:
            await self._replay(attachment, 0 if lost else after)
        except BaseException:
            attachment.end()
            raise
        return StreamAttachResult(
            cursor=channel.cursor,
            status="resync" if lost else "replayed",
            reason="epoch_reset" if lost else None,
            turn_id=channel.turn_id or None,
        )

    def detach(self, session_id: str, caller_id: str) -> None:
        """Stop delivering; nothing happens if there is no attachment."""
        attachment = self._open.get((caller_id, session_id))
        if attachment is not None:
            attachment.end()

    def leave(self, caller_id: str) -> None:
        """The client is gone."""
        self._clients.discard(caller_id)
        for key in [key for key in self._open if key[0] == caller_id]:
            self._open[key].end()

    async def _replay(self, attachment: _Attachment, after: int) -> None:
        channel = attachment.channel
        attachment.position = cursor_of(channel.epoch, after)
        while attachment.open and after < channel.last_seq:
            with storage_errors():
                rows = await self._sessions.store.items(
                    channel.session_id, after_seq=after, limit=min(PAGE, channel.last_seq - after)
                )
            if not rows:  # deleted meanwhile
                break
            for row in rows:
                cursor = cursor_of(channel.epoch, row.seq)
                params = StreamEventParams(
                    session_id=channel.session_id, event=to_event(row), seq=row.seq, cursor=cursor
                )
                attachment.send(Published(params))
            after = rows[-1].seq
        for text in channel.running_texts():
            attachment.send(text)
        attachment.live = True

    def _ended(self, key: tuple[str, str], attachment: _Attachment) -> None:
        if self._open.get(key) is attachment:
            del self._open[key]
        self._sessions.tidy(key[1])


def _parse(cursor: str) -> tuple[str, int]:
    try:
        return read_cursor(cursor)
    except ValueError as error:
        raise EngineError("invalid_params", f"{error}.", path="$.cursor", reason="not a cursor") from None
