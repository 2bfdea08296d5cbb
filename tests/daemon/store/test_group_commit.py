# ruff: noqa: ASYNC221, ASYNC240 - nothing else runs in a test's event loop
import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dragomand.store import group_commit
from dragomand.store.errors import StorageError, StorageFullError
from dragomand.store.store import Store

DEADLINE_S = 30


class Gate:
    """Holds the store's thread at a read: meanwhile calls come together, as they would during a commit."""

    def __init__(self, store: Store) -> None:
        self._opened = threading.Event()
        self.reached = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.read = asyncio.create_task(store._commits.read(self._hold))

    def _hold(self, _connection: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self._opened.wait(DEADLINE_S)

    async def __aenter__(self) -> "Gate":
        await asyncio.wait_for(self.reached.wait(), DEADLINE_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._opened.set()
        await self.read


async def submitted() -> None:
    """Return once the tasks that exist have made their first step."""
    turn = asyncio.Event()
    asyncio.get_running_loop().call_soon(turn.set)
    await turn.wait()


def begins(raw: SimpleNamespace) -> int:
    return sum(statement.startswith("BEGIN") for statement in raw.statements)


def commits(raw: SimpleNamespace) -> int:
    return sum(statement == "COMMIT" for statement in raw.statements)


async def test_writes_that_come_together_share_a_commit(raw: SimpleNamespace, store: Store) -> None:
    before = commits(raw)
    async with Gate(store):
        writes = [asyncio.create_task(store.set_state(f"k{n}", b"v")) for n in range(100)]
        await submitted()
        assert not any(write.done() for write in writes)
        assert commits(raw) == before
    await asyncio.gather(*writes)
    assert commits(raw) == before + 1
    assert await store.get_state("k99") == b"v"


async def test_a_batch_has_a_bound(raw: SimpleNamespace, store: Store) -> None:
    before = commits(raw)
    async with Gate(store):
        writes = [
            asyncio.create_task(store.set_state(f"k{n}", b"")) for n in range(group_commit.BATCH_ROWS * 2 + 1)
        ]
        await submitted()
    await asyncio.gather(*writes)
    assert commits(raw) == before + 3


async def test_a_batch_has_a_bound_in_bytes(
    raw: SimpleNamespace, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "BATCH_BYTES", 1000)
    before = commits(raw)
    async with Gate(store):
        writes = [
            asyncio.create_task(store.set_state(f"k{n}", b"x" * size))
            for n, size in enumerate((600, 600, 5000, 1))
        ]
        await submitted()
    await asyncio.gather(*writes)
    assert commits(raw) == before + 4


async def test_a_lone_write_waits_for_nobody(raw: SimpleNamespace, store: Store) -> None:
    before = commits(raw)
    for number in range(5):
        await store.set_state("k", b"%d" % number)
        assert commits(raw) == before + number + 1


async def test_every_write_is_inside_a_transaction_of_ours(
    raw: SimpleNamespace, store: Store, rows: SimpleNamespace
) -> None:
    raw.statements.clear()
    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 1)], rows.session("s"))
    await store.set_state("k", b"v")
    assert raw.statements[0] == "BEGIN IMMEDIATE"
    assert begins(raw) == commits(raw) == 2
    assert raw.statements[-1] == "COMMIT"


async def test_order_of_calls_is_order_of_writes(store: Store, rows: SimpleNamespace) -> None:
    """Items accept no gap, so any other order would fail."""
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    appends = [store.append_items([rows.item("t", "s", seq)]) for seq in range(1, 1001)]
    await asyncio.gather(*appends)
    assert (await store.counts())["items"] == 1000


async def test_order_holds_at_the_door(
    store: Store, rows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "QUEUE_ROWS", 8)
    monkeypatch.setattr(group_commit, "BATCH_ROWS", 4)
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    await asyncio.gather(*(store.append_items([rows.item("t", "s", seq)]) for seq in range(1, 101)))
    assert [item.seq for item in await store.items("s")] == list(range(1, 101))


async def test_a_refused_write_takes_none_of_its_batch_with_it(
    raw: SimpleNamespace, store: Store, rows: SimpleNamespace
) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    before = commits(raw)
    async with Gate(store):
        calls = [
            store.append_items([rows.item("t", "s", 1)]),
            store.append_items([rows.item("t", "s", 2), rows.item("none", "s", 3)]),
            store.append_items([rows.item("t", "s", 2)]),
            store.update_session("s", title="\ud800"),
            store.open_turn(rows.turn("u", "s"), [rows.item("u", "s", 9)]),
            store.set_state("k", b"v"),
        ]
        writes = [asyncio.create_task(call) for call in calls]
        await submitted()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result).__name__ for result in results] == [
        "NoneType",
        "UnknownRowError",
        "NoneType",
        "UnicodeEncodeError",
        "StorageError",
        "NoneType",
    ]
    assert commits(raw) == before + 1
    assert [item.seq for item in await store.items("s")] == [1, 2]
    assert [turn.turn_id for turn in await store.turns("s")] == ["t"]


async def test_a_cancelled_caller_undoes_nothing(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    async with Gate(store):
        writes = [asyncio.create_task(store.append_items([rows.item("t", "s", seq)])) for seq in range(1, 11)]
        await submitted()
        for write in writes[::2]:
            write.cancel()
        await asyncio.wait(writes[::2], timeout=DEADLINE_S)
    await asyncio.gather(*writes[1::2])
    assert all(write.cancelled() for write in writes[::2])
    assert [item.seq for item in await store.items("s")] == list(range(1, 11))


async def test_cancelled_in_the_middle_of_the_commit(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    hold, reached, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()

    def slow(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(reached.set)
        assert hold.wait(DEADLINE_S)
        connection.execute("INSERT OR REPLACE INTO state VALUES ('slow', x'01')")

    first = asyncio.create_task(store._commits.write(group_commit.Job(slow)))
    second = asyncio.create_task(store.append_items([rows.item("t", "s", 1)]))
    await asyncio.wait_for(reached.wait(), DEADLINE_S)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second], timeout=DEADLINE_S)
    hold.set()
    assert await store.get_state("slow") == b"\x01"
    assert (await store.counts())["items"] == 1


async def test_cancelled_at_the_door_nothing_was_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "QUEUE_ROWS", 2)
    async with Gate(store):
        writes = [asyncio.create_task(store.set_state(f"k{number}", b"v")) for number in range(5)]
        await submitted()
        writes[3].cancel()
        await asyncio.wait([writes[3]], timeout=DEADLINE_S)
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result).__name__ for result in results].count("CancelledError") == 1
    assert [await store.get_state(f"k{number}") for number in range(5)] == [b"v", b"v", b"v", None, b"v"]


async def test_a_queue_full_of_bytes_is_full(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "QUEUE_BYTES", 1000)
    async with Gate(store):
        writes = [asyncio.create_task(store.set_state(f"k{number}", b"x" * 600)) for number in range(4)]
        await submitted()
        assert (len(store._commits._writes), len(store._commits._door)) == (2, 2)
    await asyncio.gather(*writes)
    assert await store.get_state("k3") == b"x" * 600


async def test_many_reads_do_not_hold_up_a_write(store: Store) -> None:
    done: list[str] = []

    def note(name: str) -> Any:
        return lambda _task: done.append(name)

    async with Gate(store):
        reads = [asyncio.create_task(store.get_state("k")) for _ in range(group_commit.READS_BETWEEN * 3)]
        write = asyncio.create_task(store.set_state("k", b"v"))
        for read in reads:
            read.add_done_callback(note("read"))
        write.add_done_callback(note("write"))
        await submitted()
    await asyncio.gather(write, *reads)
    await submitted()
    assert done.index("write") <= group_commit.READS_BETWEEN * 2
    assert await reads[-1] == b"v"


async def test_a_read_that_fails_fails_alone(store: Store) -> None:
    async with Gate(store):
        bad = asyncio.create_task(store._commits.read(lambda db: db.execute("SELECT nonsense")))
        good = asyncio.create_task(store.get_state("k"))
        await submitted()
    with pytest.raises(StorageError, match="nonsense"):
        await bad
    assert await good is None


async def test_close_finishes_what_was_called(open_store: Any, raw: SimpleNamespace) -> None:
    store = await open_store()
    async with Gate(store):
        writes = [asyncio.create_task(store.set_state(f"k{number}", b"v")) for number in range(600)]
        await submitted()
        closing = asyncio.create_task(store.close())
        await submitted()
        with pytest.raises(StorageError, match="closed"):
            await store.set_state("late", b"v")
    await asyncio.gather(closing, *writes)
    again = await open_store()
    assert await again.get_state("k599") == b"v"
    assert await again.get_state("late") is None


async def test_no_space(raw: SimpleNamespace, store: Store, rows: SimpleNamespace) -> None:
    """Writes fail by name, reads go on, and when there is space again so do writes."""
    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 1)], rows.session("s"))
    (pages,) = raw.connections[-1].execute("PRAGMA page_count").fetchone()
    raw.connections[-1].execute(f"PRAGMA max_page_count = {pages + 20}")
    big = [rows.item("t", "s", 2, body=b"x" * 1_000_000)]
    for _ in range(3):
        with pytest.raises(StorageFullError, match="no space"):
            await store.append_items(big)
        assert [item.seq for item in await store.items("s")] == [1]
    async with Gate(store):
        together = [
            asyncio.create_task(store.set_state("k", b"v")),
            asyncio.create_task(store.append_items(big)),
        ]
        await submitted()
    results = await asyncio.gather(*together, return_exceptions=True)
    assert [type(result) for result in results] == [StorageFullError, StorageFullError]
    assert await store.get_state("k") is None
    await store.append_items([rows.item("t", "s", 2, body=b"small")])
    raw.connections[-1].execute("PRAGMA max_page_count = 1000000")
    await store.append_items([rows.item("t", "s", 3, body=b"x" * 1_000_000)])
    assert [item.seq for item in await store.items("s")] == [1, 2, 3]


async def test_another_failure_of_sqlite_is_named_and_passes(
    raw: SimpleNamespace, store: Store, rows: SimpleNamespace
) -> None:
    raw.connections[-1].execute("PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="SQLITE_READONLY") as refused:
        await store.set_state("k", b"v")
    assert not isinstance(refused.value, StorageFullError)
    assert isinstance(refused.value.__cause__, sqlite3.Error)
    assert await store.get_state("k") is None
    raw.connections[-1].execute("PRAGMA query_only = OFF")
    await store.set_state("k", b"v")
    assert await store.get_state("k") == b"v"


async def test_a_connection_that_breaks_is_not_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug or a lack of memory in the task itself: callers are told, now and later."""

    async def broken(_work: object) -> None:
        raise MemoryError

    monkeypatch.setattr(store._commits._connection, "run", broken)
    with pytest.raises(StorageError, match="not known"):
        await asyncio.wait_for(store.set_state("k", b"v"), DEADLINE_S)
    with pytest.raises(StorageError, match="closed"):
        await asyncio.wait_for(store.get_state("k"), DEADLINE_S)
    with pytest.raises(MemoryError):
        await store.close()
    store._commits._task = None  # nothing is left to close


FULL_DISK = """
import asyncio, os, sys
from dragomand.store.errors import StorageFullError
from dragomand.store.rows import ItemRow, SessionRow, TurnRow
from dragomand.store.store import Store

folder = sys.argv[1]

def item(seq, size):
    body = b"x" * size
    return ItemRow(session_id="s", turn_id="t", seq=seq, item_id="i", kind="k", created_at=1.0, body=body)

async def main():
    with open(os.path.join(folder, "ballast"), "wb") as ballast:
        ballast.write(bytes(5_000_000))
    store = await Store.open(os.path.join(folder, "dragoman.db"), clock=lambda: 1.0)
    turn = TurnRow(turn_id="t", session_id="s", status="running", started_at=1.0)
    await store.open_turn(turn, [], SessionRow(session_id="s", created_at=1.0, updated_at=1.0, epoch="e"))
    written = full = 0
    while full < 5:
        try:
            await store.append_items([item(written + 1, 50_000)])
            written += 1
        except StorageFullError:
            full += 1
            assert len(await store.items("s", limit=1000)) == written
    os.unlink(os.path.join(folder, "ballast"))
    for _ in range(10):
        await store.append_items([item(written + 1, 50_000)])
        written += 1
    await store.close()
    store = await Store.open(os.path.join(folder, "dragoman.db"), clock=lambda: 1.0)
    assert len(await store.items("s", limit=1000)) == written
    await store.close()
    print("recovered")

asyncio.run(main())
"""


def test_a_disk_that_is_really_full(on_a_small_disk: Any) -> None:
    done = on_a_small_disk(FULL_DISK)
    assert (done.stdout.strip(), done.stderr) == ("recovered", "")


async def test_a_commit_that_fails_is_rolled_back(raw: SimpleNamespace, store: Store) -> None:
    """A constraint that is checked at the COMMIT: the transaction is still there when that has failed."""
    db = raw.connections[-1]

    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA defer_foreign_keys = ON")
        connection.execute("INSERT INTO session_tag VALUES (99, 1, 'x')")

    with pytest.raises(StorageError, match="FOREIGN KEY"):
        await store._commits.write(group_commit.Job(orphan))
    assert not db.in_transaction
    await store.set_state("k", b"v")
    assert db.execute("SELECT count(*) FROM session_tag").fetchone() == (0,)


LEFT_OPEN = """
import asyncio, sys
from dragomand.store.store import Store

async def main():
    store = await Store.open(sys.argv[1], clock=lambda: 0.0)
    await store.set_state("k", b"v")
    waiting = asyncio.create_task(store.set_state("late", b"v"))
    print("written", flush=True)

asyncio.run(main())
print("left", flush=True)
"""


async def test_a_loop_that_ends_without_close_ends_the_thread_too(path: str, open_store: Any) -> None:
    """aiosqlite's thread is no daemon thread; left alone it would keep the process for ever."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OPEN, path],
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert (done.stdout.split(), done.stderr, done.returncode) == (["written", "left"], "", 0)
    assert not Path(path + "-wal").exists()
    assert await (await open_store()).get_state("k") == b"v"
