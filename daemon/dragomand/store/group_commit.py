"""The task that owns the connection: it groups the writes of all callers into commits, and reads in between.

A batch is what came together while the batch before it was being committed, in the order in which it came, up
to `BATCH_ROWS`. Nobody waits for company: a lone write is committed at once, and the more callers there are,
the more of them share one `fsync`. Each write is all or nothing by itself (a savepoint), so one that is
refused takes none of its batch with it. A caller learns of its write after the commit, never before.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from dragomand.store.connection import Connection, translated
from dragomand.store.errors import StorageError

T = TypeVar("T")

BATCH_ROWS = 256
"""A batch takes writes until it has this many rows; one larger write is a batch of its own."""
BATCH_BYTES = 8 * 1024 * 1024
"""The same for the bytes in the rows, so that memory and the log grow in steps of bounded size."""
QUEUE_ROWS = 4096
"""With this many rows accepted and not yet committed, further callers wait at the door, in order."""
QUEUE_BYTES = 64 * 1024 * 1024
"""The same for bytes."""
READS_BETWEEN = 16
"""At most this many reads run between two batches, so that readers cannot hold up the writers."""

_STATEMENT_ERRORS = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}
)
"""What can be wrong with one statement while the transaction around it is sound."""


class Job(Generic[T]):
    """Something to do with the connection, and who waits for it."""

    __slots__ = ("future", "rows", "scrubbed", "size", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], T],
        rows: int = 1,
        size: int = 0,
        scrubbed: Callable[[sqlite3.Connection], object] | None = None,
    ) -> None:
        """Wrap `work`, which writes about `rows` rows with `size` bytes in them.

        A job that deletes has `scrubbed`: when its `work` has returned True, the file is scrubbed of what was
        deleted, then `scrubbed` is called to note that, and only then does the caller learn of it.
        """
        self.work = work
        self.rows = rows
        self.size = size
        self.scrubbed = scrubbed
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self, result: "T | Exception") -> None:
        """Tell the caller, if it still waits."""
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class GroupCommit:
    """Runs the reads and writes of many callers on one connection, in one task, from `start` to `close`."""

    def __init__(self, connection: Connection, path: str) -> None:
        """Own `connection`; `path` is for error texts. `start` must follow."""
        self._connection = connection
        self._path = path
        self._reads: deque[Job[Any]] = deque()
        self._writes: deque[Job[Any]] = deque()
        self._door: deque[Job[Any]] = deque()
        self._queued_rows = 0
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._own(), name="store")

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` between two batches and return its result; it sees every acknowledged write."""
        job = Job(work)
        self._check_open()
        self._reads.append(job)
        self._wake.set()
        return await job.future

    async def write(self, job: Job[T]) -> T:
        """Run the job in one of the next batches; return its result after the commit.

        Writes are carried out in the order of these calls. Raises `StorageError`, or what the job's work
        raised; then it has left no trace. A caller that is cancelled while it waits at the door has written
        nothing; once the write is accepted, cancelling the caller does not undo it.
        """
        self._check_open()
        if self._door or not self._has_room():
            self._door.append(job)
        else:
            self._accept(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            if job in self._door:
                self._door.remove(job)
            raise

    async def close(self) -> None:
        """Carry out what was accepted and what waits, close the connection, end the task."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.shield(self._task)

    def _check_open(self) -> None:
        if self._closing:
            raise StorageError(self._path, "it was closed")

    def _has_room(self) -> bool:
        return self._queued_rows < QUEUE_ROWS and self._queued_bytes < QUEUE_BYTES

    def _accept(self, job: Job[Any]) -> None:
        self._writes.append(job)
        self._queued_rows += job.rows
        self._queued_bytes += job.size
        self._wake.set()

    async def _own(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._reads or self._writes:
                    await self._read_some()
                    await self._write_batch()
                if self._closing:
                    return
        finally:
            # Reached by `close`, and when the event loop is torn down without one.
            self._closing = True
            for job in (*self._reads, *self._writes, *self._door):
                job.settle(StorageError(self._path, "it was closed before the write"))
            await self._connection.close()

    async def _read_some(self) -> None:
        count = min(len(self._reads), READS_BETWEEN)
        jobs = [self._reads.popleft() for _ in range(count)]
        with self._answered(jobs):
            await self._visit(jobs, lambda db: [_attempt(db, job) for job in jobs])

    async def _write_batch(self) -> None:
        jobs = self._next_batch()
        with self._answered(jobs):
            deleted = await self._visit(jobs, lambda db: commit(db, jobs))
            if deleted:
                await self._scrub(deleted)

    @contextmanager
    def _answered(self, jobs: Sequence[Job[Any]]) -> Iterator[None]:
        try:
            yield
        finally:
            # Has an effect only if the block was left by an exception: the end of the event loop, or a bug.
            for job in jobs:
                job.settle(StorageError(self._path, "it was closed; whether the write was done is not known"))

    async def _visit(
        self, jobs: Sequence[Job[Any]], work: Callable[[sqlite3.Connection], Sequence[Any]]
    ) -> list[tuple[Job[Any], Any]]:
        """Settle `jobs` with the results of `work`, and return those that are to be scrubbed first."""
        if not jobs:
            return []
        try:
            results = await self._connection.run(work)
        except (sqlite3.Error, StorageError) as lost:  # not open since a scrub, and it cannot be opened
            results = [lost] * len(jobs)
        deleted = []
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, sqlite3.Error):
                error = translated(self._path, result)
                error.__cause__ = result
                job.settle(error)
            elif job.scrubbed is not None and result is True:
                deleted.append((job, result))
            else:
                job.settle(result)
        return deleted

    async def _scrub(self, deleted: Sequence[tuple[Job[Any], Any]]) -> None:
        try:
            await self._connection.scrub()
        except (OSError, sqlite3.Error, StorageError) as failed:
            reason = f"the session is deleted, its text not yet overwritten ({failed}). Restart the daemon"
            for job, _ in deleted:
                job.settle(StorageError(self._path, reason))
            return
        for job, result in deleted:
            if job.scrubbed is not None:
                with suppress(sqlite3.Error):  # then it is done again at the next start
                    await self._connection.run(job.scrubbed)
            job.settle(result)

    def _next_batch(self) -> list[Job[Any]]:
        jobs: list[Job[Any]] = []
        rows = size = 0
        while self._writes:
            job = self._writes[0]
            rows += job.rows
            size += job.size
            if jobs and (rows > BATCH_ROWS or size > BATCH_BYTES):
                break
            jobs.append(self._writes.popleft())
            self._queued_rows -= job.rows
            self._queued_bytes -= job.size
        while self._door and self._has_room():
            self._accept(self._door.popleft())
        return jobs


def commit(connection: sqlite3.Connection, jobs: Sequence[Job[Any]]) -> list[Any]:
    """Do `jobs` in one transaction and return their results in order, an exception for each that failed.

    A job that fails for a reason of its own is undone alone. When the transaction itself cannot go on (no
    space, a disk error), nothing is written and every job has that error.

    Jobs hardly ever fail, so nothing guards them at first; if one does, all is undone and done again with a
    savepoint for each.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            results: list[Any] = [job.work(connection) for job in jobs]
        except Exception:  # it is found again, and handed to its caller
            if len(jobs) == 1 or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            results = [_guarded(connection, job) for job in jobs]
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - as above
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [error] * len(jobs)
    return results


def _guarded(connection: sqlite3.Connection, job: Job[Any]) -> Any:
    connection.execute("SAVEPOINT job")
    result = _attempt(connection, job)
    if isinstance(result, Exception):
        if isinstance(result, sqlite3.Error) and not _is_its_own(connection, result):
            raise result
        connection.execute("ROLLBACK TO job")
    connection.execute("RELEASE job")
    return result


def _attempt(connection: sqlite3.Connection, job: Job[Any]) -> Any:
    try:
        return job.work(connection)
    except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
        return error


def _is_its_own(connection: sqlite3.Connection, error: sqlite3.Error) -> bool:
    # Errors without a code are the sqlite3 module's own: a value of a type that cannot be stored, and such.
    code = getattr(error, "sqlite_errorcode", None)
    return connection.in_transaction and (code is None or code & 0xFF in _STATEMENT_ERRORS)
