"""The store: sessions, turns, items and small state, written to disk before a call returns.

    store = await Store.open(path, clock=time.time)
    await store.open_turn(turn, items, new_session)
    page, cursor = await store.sessions(limit=50, cursor=None)
    await store.close()

Calls may run at the same time. Writes are carried out in the order in which they were called and share
commits; each is all or nothing. A read sees every write that has returned. Rows given to a write are copied
at the call. Every call raises `StorageError` when the database fails; the store stays usable after that.

Items and turns are written once and never changed, but for a turn's end. An item's `seq` is its session's
next number: 1, 2, 3.
"""

import os
import sqlite3
import uuid
from collections.abc import Callable, Collection, Sequence
from copy import copy
from typing import TypeVar

from msgspec import UNSET, UnsetType

from dragomand.store import forks, sessions, spending, transcripts
from dragomand.store.connection import Connection, connect, is_full
from dragomand.store.errors import StorageError
from dragomand.store.group_commit import GroupCommit, Job
from dragomand.store.migrate import migrate, read_migrations
from dragomand.store.rows import (
    ForkPoint,
    ItemRow,
    MovedAside,
    ProcessRunRow,
    SessionRow,
    SpendRow,
    SpendSums,
    TurnRow,
)

T = TypeVar("T")


class Store:
    """The session database. `open` makes one; `close` it, or its thread keeps the process from ending."""

    def __init__(
        self, path: str, commits: GroupCommit, recovered: list[str], moved_aside: MovedAside | None
    ) -> None:
        """Put an opened database behind the calls; use `open`."""
        self.path = path
        self.recovered = recovered
        """Ids of sessions whose turn a dead daemon left `running`: now `interrupted`, with a new epoch."""
        self.moved_aside = moved_aside
        """Not None: the history could not be read and is at another path now; this database began empty."""
        self.recovery_due = False
        """For want of space the turns that a dead daemon left are not marked yet; the next write tries it."""
        self.unfinished_delete: str | None = None
        """Why the text of a deleted session could not be overwritten; tried again at each opening."""
        self._commits = commits

    @classmethod
    async def open(cls, path: str, *, clock: Callable[[], float]) -> "Store":
        """Open the database at `path`, or create it (mode 0600) in an existing folder; `clock`: Unix seconds.

        Applies the migrations it lacks and marks turns that are still `running` as `interrupted`; on a full
        disk that is left to the first write that succeeds. A file that
        SQLite finds damaged is renamed, never deleted, and reported in `moved_aside`. Raises `StorageError`
        (`NewerSchemaError` for a newer version's database, which is left as it is).
        """
        now = clock()

        def prepare(connection: sqlite3.Connection) -> tuple[list[str] | None, bool]:
            migrate(connection, path, read_migrations(), now)
            return _recover_if_possible(connection), sessions.is_scrub_due(connection)

        connection, (recovered, scrub_due), moved_aside = await connect(path, prepare, now)
        unfinished = await _finish_delete(connection) if scrub_due else None
        commits = GroupCommit(connection, path)
        commits.start()
        store = cls(path, commits, recovered or [], moved_aside)
        store.recovery_due = recovered is None
        store.unfinished_delete = unfinished
        return store

    async def close(self) -> None:
        """Finish the writes that were called, bring the log into the database and close it. Twice is fine."""
        await self._commits.close()

    async def _write(self, job: Job[T]) -> T:
        """Do the job; before the first, what the opening could not do. Whoever comes meanwhile does it too:
        a second time it finds nothing, because no turn is opened before it is done."""
        if self.recovery_due:
            await self._commits.write(Job(_interrupt_running))
            self.recovery_due = False
        return await self._commits.write(job)

    # -- writes: each returns after its commit

    async def open_turn(
        self,
        turn: TurnRow,
        items: Sequence[ItemRow],
        new_session: SessionRow | None = None,
        spend: SpendRow | None = None,
    ) -> None:
        """Write a turn that begins, with its first items; `new_session` is created in the same commit.

        `spend` is what it may take; it is kept when the session is deleted.

        Raises `DuplicateMessageError` if a turn of any session has its message id, and `UnknownRowError` if
        there is no such session.
        """
        row, kept, session, taken = copy(turn), _kept(items), copy(new_session), copy(spend)

        def work(db: sqlite3.Connection) -> None:
            transcripts.open_turn(db, self.path, row, kept, session)
            if taken is not None:
                spending.open_spend(db, taken)

        await self._write(Job(work, *_weight(kept)))

    async def fork_session(self, row: SessionRow) -> SessionRow:
        """Create `row` with copies of the turns of the session that it was forked from, up to the one it
        names; return it as stored. Its counters must be those of the `ForkPoint`.

        Raises `UnknownRowError` if that session or turn is not there (any more).
        """
        session = copy(row)
        return await self._write(Job(lambda db: forks.fork_session(db, self.path, session)))

    async def append_items(self, items: Sequence[ItemRow]) -> None:
        """Write items of one session that continue its `seq` without a gap; of any of its turns."""
        kept = _kept(items)
        if kept:
            await self._write(
                Job(lambda db: transcripts.append_items(db, self.path, kept), *_weight(kept))
            )

    async def close_turn(
        self, turn: TurnRow, items: Sequence[ItemRow], spend: SpendRow | None = None
    ) -> None:
        """Write the end of a running turn with its last items, and add its figures to the session's totals.

        Every field of `turn` is written, and of `spend` what it took. Raises `UnknownRowError` if that turn
        is not running.
        """
        row, kept, taken = copy(turn), _kept(items), copy(spend)

        def work(db: sqlite3.Connection) -> None:
            transcripts.close_turn(db, self.path, row, kept)
            if taken is not None:
                spending.close_spend(db, taken)

        await self._write(Job(work, *_weight(kept)))

    async def update_session(
        self,
        session_id: str,
        *,
        model: str | UnsetType | None = UNSET,
        claude_session_id: str | UnsetType | None = UNSET,
        claude_message_count: int | UnsetType | None = UNSET,
        title: str | UnsetType | None = UNSET,
        tags: Sequence[str] | UnsetType = UNSET,
        agent: str | UnsetType | None = UNSET,
        kept: bytes | UnsetType | None = UNSET,
        updated_at: float | UnsetType = UNSET,
    ) -> None:
        """Change the given fields of a session, and no other. Raises `UnknownRowError`."""
        given = {
            "model": model,
            "claude_session_id": claude_session_id,
            "claude_message_count": claude_message_count,
            "title": title,
            "tags": tags if tags is UNSET else tuple(tags),
            "agent": agent,
            "kept": kept,
            "updated_at": updated_at,
        }
        changes = {name: value for name, value in given.items() if value is not UNSET}
        await self._write(Job(lambda db: sessions.update_session(db, self.path, session_id, changes)))

    async def record_run(self, run: ProcessRunRow) -> None:
        """Write or replace the record of one run. Raises `UnknownRowError` if its session does not exist."""
        row = copy(run)
        await self._write(Job(lambda db: sessions.record_run(db, self.path, row)))

    async def delete_session(self, session_id: str) -> bool:
        """Delete a session and all of its rows; False if there was none.

        When this returns, their text is overwritten in the database and gone from its log.
        """

        def work(db: sqlite3.Connection) -> bool:
            spending.forget_session(db, session_id)
            return sessions.delete_session(db, session_id)

        return await self._write(Job(work, scrubbed=sessions.note_scrubbed))

    async def open_spend(self, row: SpendRow) -> None:
        """Write what a call that belongs to no turn may take."""
        taken = copy(row)
        await self._write(Job(lambda db: spending.open_spend(db, taken)))

    async def close_spend(self, row: SpendRow) -> None:
        """Write what it took."""
        taken = copy(row)
        await self._write(Job(lambda db: spending.close_spend(db, taken)))

    async def condense_spending(self, before: float) -> int:
        """Join rows of spending that began before `before` by day; return how many fewer there are."""
        return await self._write(Job(lambda db: spending.condense(db, before)))

    async def set_state(self, key: str, value: bytes) -> None:
        """Keep `value` under `key` for another part of the daemon, replacing what was there."""
        sql = "INSERT OR REPLACE INTO state VALUES (?, ?)"
        await self._write(Job(lambda db: db.execute(sql, (key, value)) and None, size=len(value)))

    # -- reads

    async def session(self, session_id: str) -> SessionRow | None:
        """Return one session."""
        return await self._commits.read(lambda db: sessions.read_session(db, session_id))

    async def kept(self, session_id: str) -> bytes | None:
        """Return what the session's turns inherit from the ones before."""
        return await self._commits.read(lambda db: sessions.read_kept(db, session_id))

    async def fork_point(self, session_id: str, turn_id: str | None = None) -> ForkPoint | None:
        """Return the end of a turn, by default of the last; None if the session has no such ended turn."""
        return await self._commits.read(lambda db: forks.fork_point(db, session_id, turn_id))

    async def sessions(
        self,
        *,
        limit: int,
        cursor: str | None,
        cwd: str | None = None,
        tag: str | None = None,
        ids: Collection[str] | None = None,
    ) -> tuple[list[SessionRow], str | None]:
        """Return one page of sessions, the last updated first, and the cursor of the next (None: no more).

        Only those that match all of the given: working directory, tag, being one of `ids`. A session that is
        updated between two pages moves to the front and can be missed by them; none comes twice otherwise.
        Raises ValueError for a cursor that is not from here or a `limit` below 1.
        """
        after = None if cursor is None else sessions.from_cursor(cursor)
        size = _page(limit)
        wanted = None if ids is None else list(ids)
        rows, following = await self._commits.read(
            lambda db: sessions.list_sessions(db, limit=size, after=after, cwd=cwd, tag=tag, ids=wanted)
        )
        return rows, None if following is None else sessions.to_cursor(following)

    async def turns(self, session_id: str, *, limit: int = 200) -> list[TurnRow]:
        """Return the newest `limit` turns of a session, oldest first."""
        size = _page(limit)
        return await self._commits.read(lambda db: transcripts.list_turns(db, session_id, size))

    async def items(self, session_id: str, *, after_seq: int = 0, limit: int = 200) -> list[ItemRow]:
        """Return up to `limit` items of a session that come after `after_seq`, in order."""
        size = _page(limit)
        return await self._commits.read(lambda db: transcripts.list_items(db, session_id, after_seq, size))

    async def turn_items(self, turn_id: str) -> list[ItemRow]:
        """Return all items of a turn, in order."""
        return await self._commits.read(lambda db: transcripts.turn_items(db, turn_id))

    async def turn_by_message(self, message_id: str) -> TurnRow | None:
        """Return the turn that was opened with this message id."""
        return await self._commits.read(lambda db: transcripts.turn_by_message(db, message_id))

    async def runs(self, session_id: str, *, limit: int = 200) -> list[ProcessRunRow]:
        """Return the newest `limit` runs of a session, oldest first."""
        size = _page(limit)
        return await self._commits.read(lambda db: sessions.list_runs(db, session_id, size))

    async def get_state(self, key: str) -> bytes | None:
        """Return what `set_state` kept under `key`."""
        sql = "SELECT value FROM state WHERE key = ?"
        found: tuple[bytes] | None = await self._commits.read(lambda db: db.execute(sql, (key,)).fetchone())
        return None if found is None else found[0]

    async def spent(self, since: float = 0.0) -> SpendSums:
        """Return the sums of what began at or after `since` (Unix seconds)."""
        return await self._commits.read(lambda db: spending.total(db, since))

    async def spent_by(
        self, group: spending.Grouping, *, since: float = 0.0, limit: int = 100
    ) -> list[tuple[str, SpendSums]]:
        """Return the same by `group`, what cost most first; rows that have none are left out."""
        return await self._commits.read(lambda db: spending.by(db, group, since, limit))

    async def charged(
        self, group: spending.Grouping | None = None, key: str = "", *, since: float = 0.0
    ) -> int:
        """Return what was charged since `since` to those whose `group` is `key`; to all without a group."""
        return await self._commits.read(lambda db: spending.charged(db, group, key, since))

    async def turns_started(
        self, since: float, *, limit: int = 10_000, upstream: str | None = None
    ) -> list[float]:
        """Return when turns (of one `upstream`) began since `since`, oldest first, the newest `limit`."""
        return await self._commits.read(lambda db: spending.started_since(db, since, limit, upstream))

    async def counts(self) -> dict[str, int]:
        """Return the number of `sessions`, `turns` and `items`, and the `bytes` that the files take."""
        sql = "SELECT count(*), coalesce(sum(turn_count), 0), coalesce(sum(item_count), 0) FROM session"
        found = await self._commits.read(lambda db: db.execute(sql).fetchone())
        return {**dict(zip(("sessions", "turns", "items"), found, strict=True)), "bytes": _size(self.path)}


def _recover_if_possible(connection: sqlite3.Connection) -> list[str] | None:
    """Mark the turns that a dead daemon left; None if the disk is too full for it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        with connection:
            return _interrupt_running(connection)
    except sqlite3.Error as error:
        if not is_full(error):
            raise
        return None


def _interrupt_running(connection: sqlite3.Connection) -> list[str]:
    spending.interrupt_spends(connection)
    return transcripts.interrupt_running(connection, uuid.uuid4().hex)


async def _finish_delete(connection: Connection) -> str | None:
    """Do what a daemon that died between a delete's commit and its end could not; return why it failed."""
    try:
        await connection.scrub()
        await connection.run(sessions.note_scrubbed)
    except (OSError, sqlite3.Error, StorageError) as failed:
        return str(failed)
    except BaseException:
        await connection.close()
        raise
    return None


def _kept(items: Sequence[ItemRow]) -> list[ItemRow]:
    if len({item.session_id for item in items}) > 1:
        raise ValueError("The items of one write belong to one session.")
    return [copy(item) for item in items]


def _weight(items: Sequence[ItemRow]) -> tuple[int, int]:
    return 1 + len(items), sum(len(item.body) for item in items)


def _page(limit: int) -> int:
    if limit < 1:
        raise ValueError(f"limit is {limit}; expected 1 to {sessions.MAX_PAGE} (more count as that)")
    return min(limit, sessions.MAX_PAGE)


def _size(path: str) -> int:
    total = 0
    for name in (path, path + "-wal"):
        if os.path.exists(name):
            total += os.stat(name).st_size
    return total
