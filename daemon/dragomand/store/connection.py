"""Open the database file, so that what SQLite acknowledges is on the disk and nobody else can read it.

Nothing but SQLite may open the database, its `-wal` or its `-shm` file in this process while it is open:
closing such a second descriptor would drop the POSIX locks that SQLite holds. (`stat`, `chmod` and `rename`
open nothing.)
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import aiosqlite

from dragomand.store.errors import StorageError, StorageFullError
from dragomand.store.migrate import check_ours
from dragomand.store.rows import MovedAside
from dragomand.store.scrub import zero_unused

T = TypeVar("T")

_OLDEST_SQLITE = (3, 37, 0)
"""The first with STRICT tables."""
_LOCK_PATIENCE_S = 5.0
"""How long to wait for a process that still has the file; it can only be one that is ending."""
_WAL_KEPT_BYTES = 4 * 1024 * 1024
_SIDE_FILES = ("-wal", "-shm", "-journal")
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SETTINGS = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",  # no text in temporary files
    "PRAGMA cell_size_check = ON",
    "PRAGMA synchronous = FULL",
    f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}",
)


class Connection(aiosqlite.Connection):
    """The one connection, with a way to do many statements in one visit to its thread."""

    def __init__(self, path: str) -> None:
        """Be a connection to the file at `path`; awaiting it opens it."""
        self._path = path
        self._lost = False
        self.stopped: asyncio.Future[object] | None = None
        """Done when the thread, told to stop, has closed the connection."""
        super().__init__(lambda: _connect(path), iter_chunk_size=64)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Call `work` with the SQLite connection, in its thread, and return or raise what it does.

        aiosqlite's own methods visit the thread once a statement, which costs more than the statement does.
        A cancelled caller stops waiting; `work` is carried out nevertheless.
        """
        result: T = await self._execute(self._visit, work)  # type: ignore[no-untyped-call]
        return result

    async def scrub(self) -> None:
        """Remove what deleted rows left in the file and its log; see `dragomand.store.scrub`.

        The database is closed and opened again for it. Raises sqlite3.Error or OSError; if it could not be
        opened, the next `run` tries again.
        """
        await self._execute(self._scrub)  # type: ignore[no-untyped-call]

    def stop(self) -> "asyncio.Future[object] | None":
        """Tell the thread to close the connection and end."""
        self.stopped = super().stop()
        return self.stopped

    def _visit(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._lost:
            self._connection = _connect(self._path)
            self._lost = False
        return work(self._conn)

    def _scrub(self) -> None:
        self._visit(_empty_log)
        self._lost = True
        self._conn.close()
        zero_unused(self._path)
        self._visit(lambda _: None)


async def connect(
    path: str, prepare: Callable[[sqlite3.Connection], T], now: float
) -> tuple[Connection, T, MovedAside | None]:
    """Open or create the database at `path`; return the connection, what `prepare` returned, and a report.

    `prepare` runs in the connection's thread once the settings are made, and reads all that the daemon cannot
    do without. If SQLite finds the file damaged in this, its files are renamed to
    ``<path>.damaged-<now in UTC>``, a new database is begun, and the report says so; else the report is None.
    Raises `StorageError`, and what `prepare` raises.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StorageError(path, f"SQLite {sqlite3.sqlite_version} is too old; 3.37 or newer is needed")
    try:
        connection, prepared = await _open(path, prepare)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise translated(path, error) from error
        report = _move_aside(path, str(error), now)
    else:
        return connection, prepared, None
    try:
        connection, prepared = await _open(path, prepare)
    except sqlite3.DatabaseError as error:
        raise translated(path, error) from error
    return connection, prepared, report


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether SQLite says that the file itself is wrong, not the disk, a lock or the statement."""
    return _primary_code(error) in _DAMAGED


def is_full(error: sqlite3.Error) -> bool:
    """Tell whether there was no space for a write."""
    return _primary_code(error) == sqlite3.SQLITE_FULL


def translated(path: str, error: sqlite3.Error) -> StorageError:
    """Return what the store raises for SQLite's `error`; the caller adds ``from error``."""
    code = _primary_code(error)
    if is_full(error):
        return StorageFullError(
            path, "no space is left for the write. Free some on this disk; the next write is tried anew"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(path, "another process has it open. End that process; only the daemon may")
    if code == sqlite3.SQLITE_CANTOPEN:
        return StorageError(path, "it cannot be opened or created. Check the folder and its permissions")
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return StorageError(path, f"SQLite says: {error} ({name})")


def _primary_code(error: sqlite3.Error) -> int:
    # Errors that the sqlite3 module raises by itself have no code.
    return int(getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


async def _open(path: str, prepare: Callable[[sqlite3.Connection], T]) -> tuple[Connection, T]:
    _make_private(path)
    opening = asyncio.ensure_future(_open_whole(path, prepare))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # aiosqlite would lose a connection that its thread is about to open, and its locks stay.
        opening.add_done_callback(_close_unclaimed)
        raise


def _close_unclaimed(opening: "asyncio.Future[tuple[Connection, T]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].stop()


async def _open_whole(path: str, prepare: Callable[[sqlite3.Connection], T]) -> tuple[Connection, T]:
    connection = Connection(path)
    try:
        await connection
    except BaseException:
        # aiosqlite ends its thread without waiting, and that would find the event loop closed.
        if connection.stopped is not None:
            await connection.stopped
        raise
    try:
        return connection, await connection.run(prepare)
    except BaseException:
        await connection.close()
        raise


def _connect(path: str) -> sqlite3.Connection:
    # isolation_level None: no BEGIN but ours.
    connection = sqlite3.connect(path, timeout=_LOCK_PATIENCE_S, isolation_level=None)
    try:
        for setting in _SETTINGS:
            connection.execute(setting)
        check_ours(connection, path)
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # cannot be had later
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StorageError(path, f"SQLite cannot use a write-ahead log here (it chose {mode!r})")
    except BaseException:
        connection.close()
        raise
    return connection


def _empty_log(connection: sqlite3.Connection) -> None:
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("the write-ahead log could not be emptied")


def _make_private(path: str) -> None:
    """Create the file if there is none, and see that it and what SQLite puts beside it has mode 0600.

    SQLite gives its side files the mode of the database. SQLite has none of them open yet.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass
    except OSError as failed:
        raise StorageError(path, f"it cannot be created ({failed.strerror})") from failed
    for suffix in ("", *_SIDE_FILES):
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path + suffix).st_mode & 0o177:
                os.chmod(path + suffix, 0o600)


def _move_aside(path: str, reason: str, now: float) -> MovedAside:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside, count = f"{path}.damaged-{stamp}", 1
    while os.path.exists(aside):
        count += 1
        aside = f"{path}.damaged-{stamp}-{count}"
    # The log first: a log that is left without its database is removed by SQLite, rows and all.
    for suffix in (*_SIDE_FILES, ""):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    return MovedAside(path=aside, reason=reason, at=now)
