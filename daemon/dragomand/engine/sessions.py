"""Stored conversations: finding, reading, deleting them, and who may write to one.

One writer a session: whoever runs a turn or holds a stream claims the session first. Which sessions a client
may list: its own, those it made or continued on this connection; a session's id, which cannot be guessed, is
what lets anybody else read or continue it.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import msgspec
from dragoman_protocol import session as wire
from dragoman_protocol.session import ForkOrigin, SessionInfo, SessionState, TurnInfo, TurnStatus, Usage

from dragomand.store.errors import StorageError
from dragomand.store.rows import ItemRow, SessionRow, TurnRow
from dragomand.store.store import Store

from .channel import Channel
from .errors import EngineError, from_storage
from .records import to_event

LONGEST_ITEM = 15 * 1024 * 1024
"""Longest item, in bytes, that is told whole: an answer has at most 16 MiB."""

Claim = Literal["turn", "stream"]
"""Why a session is taken."""


class Sessions:
    """The sessions of the store, and the channels of those in which something happens."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """Read and write *store*; *clock* gives Unix seconds."""
        self.store = store
        self._clock = clock
        self._claims: dict[str, Claim] = {}
        self._channels: dict[str, Channel] = {}
        self._seen: dict[str, set[str]] = {}

    # -- who may write

    @contextmanager
    def claim(self, session_id: str, why: Claim) -> Iterator[None]:
        """Be the one writer for the block. Raises `session_busy`."""
        taken = self._claims.get(session_id)
        if taken is not None:
            raise EngineError("session_busy", _busy(taken), session_id=session_id)
        self._claims[session_id] = why
        try:
            yield
        finally:
            del self._claims[session_id]

    def claimed(self, session_id: str) -> bool:
        """Whether somebody writes to it now."""
        return session_id in self._claims

    @property
    def open(self) -> int:
        """How many sessions have a writer now."""
        return len(self._claims)

    # -- whose sessions

    def note(self, caller_id: str, session_id: str) -> bool:
        """Remember that this client knows this session; True the first time (then arrange `forget`)."""
        first = caller_id not in self._seen
        self._seen.setdefault(caller_id, set()).add(session_id)
        return first

    def forget(self, caller_id: str) -> None:
        """The client is gone."""
        self._seen.pop(caller_id, None)

    def seen_by(self, caller_id: str) -> Collection[str]:
        """Return the sessions that this client made or continued."""
        return self._seen.get(caller_id, set())

    # -- channels

    async def channel(self, session_id: str) -> Channel:
        """Return the session's channel, made from the store if nothing happens in it yet."""
        known = self._channels.get(session_id)
        if known is None or known.unborn:
            row = await self.load(session_id)
            known = self._channels.get(session_id) or self.channel_of(row)
        return known

    def channel_of(self, row: SessionRow) -> Channel:
        """Return the channel of a session that was just loaded or is about to be made."""
        channel = self._channels.get(row.session_id)
        if channel is None:
            channel = Channel(
                session_id=row.session_id,
                epoch=row.epoch,
                last_seq=row.last_seq,
                append=self.store.append_items,
                clock=self._clock,
            )
            self._channels[row.session_id] = channel
        return channel

    def tidy(self, session_id: str) -> None:
        """Let the channel go if nothing happens in it and nobody watches."""
        channel = self._channels.get(session_id)
        if channel is not None and not channel.watched and not self.claimed(session_id):
            del self._channels[session_id]

    # -- reading

    async def load(self, session_id: str) -> SessionRow:
        """Return a session's row. Raises `session_not_found`."""
        with storage_errors():
            row = await self.store.session(session_id)
        if row is None:
            raise EngineError(
                "session_not_found", f"There is no session {session_id!r}.", session_id=session_id
            )
        return row

    async def check_free(self, session_id: str) -> None:
        """Raise `session_exists` if there is a session with this id."""
        with storage_errors():
            row = await self.store.session(session_id)
        if row is not None:
            raise EngineError(
                "session_exists",
                f"There is a session {session_id} already; continue it with sessionId, or choose another id.",
                session_id=session_id,
            )

    async def list(
        self,
        *,
        limit: int,
        cursor: str | None,
        cwd: str | None,
        tag: str | None,
        only: Collection[str] | None,
    ) -> wire.SessionListResult:
        """Return a page, newest first; *only* restricts it to these ids."""
        _in_range("limit", limit, 500)
        with storage_errors(), bad_cursor():
            rows, following = await self.store.sessions(
                limit=limit, cursor=cursor, cwd=cwd, tag=tag, ids=only
            )
        return wire.SessionListResult(data=[self._info(row) for row in rows], next_cursor=following)

    async def get(self, session_id: str) -> wire.SessionGetResult:
        """Return a session and its newest 200 turns."""
        row = await self.load(session_id)
        with storage_errors():
            turns = await self.store.turns(session_id, limit=200)
        return wire.SessionGetResult(session=self._info(row), turns=[_turn_info(turn) for turn in turns])

    async def messages(
        self, session_id: str, *, limit: int, cursor: str | None
    ) -> wire.SessionMessagesResult:
        """Return a page of items, oldest first."""
        _in_range("limit", limit, 1000)
        row = await self.load(session_id)
        with bad_cursor():
            after = 0 if cursor is None else _seq(cursor)
        with storage_errors():
            items = await self.store.items(session_id, after_seq=after, limit=limit)
        last = items[-1].seq if items else after
        return wire.SessionMessagesResult(
            data=[_item(item) for item in items],
            next_cursor=str(last) if items and last < row.last_seq else None,
        )

    async def delete(self, session_id: str) -> None:
        """Delete a session for good. Raises `session_not_found`, `session_busy`."""
        with self.claim(session_id, "turn"), storage_errors():
            deleted = await self.store.delete_session(session_id)
        if not deleted:
            raise EngineError(
                "session_not_found", f"There is no session {session_id!r}.", session_id=session_id
            )
        self._channels.pop(session_id, None)

    def _info(self, row: SessionRow) -> SessionInfo:
        channel = self._channels.get(row.session_id)
        return info_of(row, running=channel is not None and bool(channel.turn_id))


def info_of(row: SessionRow, *, running: bool) -> SessionInfo:
    """Return what is told of a session; *running*: a turn runs in it now."""
    # "running" without a running turn: it was cut off, and the disk is too full to say so.
    state: SessionState = "interrupted" if row.last_turn_status in ("interrupted", "running") else "idle"
    return SessionInfo(
        session_id=row.session_id,
        state="running" if running else state,
        created_at=row.created_at,
        updated_at=row.updated_at,
        cwd=row.cwd,
        title=row.title,
        model=row.model,
        turn_count=row.turn_count,
        item_count=row.item_count,
        cost_usd=row.cost_usd,
        usage=usage_of(row),
        tags=list(row.tags),
        claude_session_id=row.claude_session_id,
        agent=row.agent,
        forked_from=_origin(row),
    )


def _origin(row: SessionRow) -> ForkOrigin | None:
    if row.forked_from is None or row.forked_at_turn is None:
        return None
    return ForkOrigin(session_id=row.forked_from, turn_id=row.forked_at_turn, seq=row.forked_seq or 0)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn the store's errors into the engine's."""
    try:
        yield
    except StorageError as error:
        raise from_storage(error) from error


@contextmanager
def bad_cursor() -> Iterator[None]:
    """Turn a cursor that cannot be read into `invalid_params`."""
    try:
        yield
    except ValueError as error:
        raise EngineError(
            "invalid_params",
            f"cursor: {error}. Pass nextCursor of the page before, or none.",
            path="$.cursor",
        ) from None


def usage_of(row: SessionRow | TurnRow) -> Usage:
    """Return the four counters of a row."""
    return Usage(
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cache_read_tokens=row.cache_read_tokens,
        cache_creation_tokens=row.cache_creation_tokens,
    )


def _turn_info(row: TurnRow) -> TurnInfo:
    error: dict[str, Any] = msgspec.json.decode(row.error) if row.error else {}
    return TurnInfo(
        turn_id=row.turn_id,
        status=msgspec.convert(row.status, TurnStatus),
        started_at=row.started_at,
        completed_at=row.completed_at,
        message_id=row.message_id,
        model=row.model,
        usage=usage_of(row),
        cost_usd=row.cost_usd,
        error_kind=error.get("kind"),
        forked_from=row.origin_turn_id,
    )


def _seq(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 15:
        raise ValueError(f"{cursor[:100]!r} is not a cursor of this list")
    return int(cursor)


def _item(row: ItemRow) -> wire.Item:
    told = msgspec.json.encode(to_event(row))
    body = msgspec.json.decode(told)
    kind = body.pop("type")
    if len(told) > LONGEST_ITEM:
        body = {"omittedBytes": len(told)}
    return wire.Item(
        item_id=row.item_id, turn_id=row.turn_id, seq=row.seq, kind=kind, created_at=row.created_at, body=body
    )


def _busy(taken: Claim) -> str:
    if taken == "stream":
        return "This session has an open stream: use stream/send, or close it with stream/close."
    return "A turn of this session is running already: wait for its end, or stop it with stream/interrupt."


def _in_range(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise EngineError(
            "invalid_params",
            f"{name} must be from 1 to {most}; got {value}.",
            path=f"$.{name}",
            reason="out of range",
        )
