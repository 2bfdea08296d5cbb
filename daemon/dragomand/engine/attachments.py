"""Subscriptions to sessions: replay from the store, then live, without a gap and without a duplicate.

Attaching subscribes first and then reads the store up to where the channel stood at that moment; what is
published meanwhile is kept back and delivered after it. The running items' text so far closes the gap of the
deltas that were missed.
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
"""Sends one event on; False if the reader is too slow: the subscription is over then."""


class _Attachment:
    """One client's subscription to one session."""

    def __init__(self, channel: Channel, deliver: Deliver, ended: Callable[[], None]) -> None:
        self.live = False
        self.held: list[Published] = []
        self._deliver = deliver
        self._ended = ended
        self.open = True
        self.unsubscribe = channel.subscribe(self._receive)

    def send(self, event: Published) -> bool:
        """Deliver one event; ends the subscription if it was not taken."""
        if self.open and not self._deliver(event):
            self.end()
        return self.open

    def end(self) -> None:
        """Stop receiving."""
        if self.open:
            self.open = False
            self.unsubscribe()
            self._ended()

    def _receive(self, event: Published) -> None:
        if self.live:
            self.send(event)
        elif not event.ephemeral:
            self.held.append(event)


class Attachments:
    """Who is attached to what."""

    def __init__(self, sessions: Sessions) -> None:
        """Attach to the channels of *sessions*."""
        self._sessions = sessions
        self._open: dict[tuple[str, str], _Attachment] = {}
        self._clients: set[str] = set()

    def enters(self, caller_id: str) -> bool:
        """True the first time for this client: then somebody has to call `leave` when it goes."""
        first = caller_id not in self._clients
        self._clients.add(caller_id)
        return first

    async def attach(
        self, session_id: str, cursor: str | None, caller_id: str, deliver: Deliver
    ) -> StreamAttachResult:
        """Replay what came after *cursor* (None: everything), then deliver live until `detach`.

        What is replayed has been delivered when this returns. Attaching again replaces the attachment before.
        Raises `session_not_found`, and `invalid_params` for what is not a cursor.
        """
        epoch, after = ("", 0) if cursor is None else _parse(cursor)
        channel = await self._sessions.channel(session_id)
        self.detach(session_id, caller_id)
        key = (caller_id, session_id)
        attachment = self._open[key] = _Attachment(channel, deliver, lambda: self._ended(key, attachment))
        lost = cursor is not None and (epoch != channel.epoch or after > channel.last_seq)
        try:
            await self._replay(attachment, channel, 0 if lost else after)
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

    async def _replay(self, attachment: _Attachment, channel: Channel, after: int) -> None:
        upto = channel.last_seq
        while after < upto and attachment.open:
            with storage_errors():
                rows = await self._sessions.store.items(
                    channel.session_id, after_seq=after, limit=min(PAGE, upto - after)
                )
            if not rows:
                break
            for row in rows:
                params = StreamEventParams(
                    session_id=channel.session_id,
                    event=to_event(row),
                    seq=row.seq,
                    cursor=cursor_of(channel.epoch, row.seq),
                )
                if not attachment.send(Published(params)):
                    return
            after = rows[-1].seq
        for event in (*attachment.held, *channel.running_texts()):
            attachment.send(event)
        attachment.held.clear()
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
