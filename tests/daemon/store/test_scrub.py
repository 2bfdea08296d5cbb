import asyncio
import errno
import os
import random
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dragomand.store import connection as connection_module
from dragomand.store import scrub
from dragomand.store.errors import StorageError
from dragomand.store.scrub import zero_unused
from dragomand.store.store import Store

LEAKY = 5
"""A seed with which SQLite moves rows that are deleted later."""


def bytes_on_disk(path: str) -> bytes:
    # Opening the file drops SQLite's POSIX locks in this process. Nobody else comes for it in these tests.
    return b"".join(Path(name).read_bytes() for name in (path, path + "-wal") if os.path.exists(name))


def mark(session_id: str, what: str, size: int) -> str:
    return f"<{session_id}/{what}>" * (size // 10 + 1)


async def busy_life(
    store: Store, path: str, rows: SimpleNamespace, seed: int, steps: int
) -> tuple[int, set[str]]:
    """Write, grow and delete sessions at random; return the number of deletes and what they left on disk."""
    chance = random.Random(seed)
    live: dict[str, int] = {}
    deleted: set[str] = set()
    left: set[str] = set()
    for step in range(steps):
        luck = chance.random()
        if luck < 0.12 or not live:
            name = f"s{len(live) + len(deleted):05d}"
            session = rows.session(
                name,
                cwd=mark(name, "cwd", chance.choice([5, 60])),
                title=mark(name, "title", chance.choice([5, 60, 300])),
                tags=(mark(name, "tag", 5),) * chance.randint(0, 4),
            )
            turn = rows.turn(
                name + "t",
                name,
                message_id=mark(name, "message", 30),
                error=mark(name, "error", 200).encode(),
            )
            await store.open_turn(turn, [], session)
            live[name] = 0
        elif luck < 0.9:
            name = chance.choice(list(live))
            count = chance.randint(1, 5)
            items = [
                rows.item(
                    name + "t",
                    name,
                    live[name] + 1 + number,
                    item_id=mark(name, "item", 20),
                    body=mark(name, "body", chance.choice([10, 100, 500, 3000, 9000])).encode(),
                )
                for number in range(count)
            ]
            await store.append_items(items)
            live[name] += count
            if luck < 0.3:
                await store.update_session(name, title=mark(name, "title", chance.choice([5, 100, 300])))
                await store.set_state(f"k{step % 50}", b"x" * chance.randint(1, 400))
        else:
            name = chance.choice(list(live))
            del live[name]
            deleted.add(name)
            assert await store.delete_session(name)
            on_disk = bytes_on_disk(path)
            left |= {one for one in deleted if one.encode() in on_disk}
    for name, count in live.items():
        items = await store.items(name, limit=1000)
        assert [item.seq for item in items] == list(range(1, count + 1))
        assert all(name.encode() in item.body for item in items)
    return len(deleted), left


def check_integrity(path: str) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


async def test_a_delete_leaves_nothing_behind(store: Store, path: str, rows: SimpleNamespace) -> None:
    text = b"the secret of the turn"
    turn = rows.turn("t", "s-deleted", message_id="m-deleted")
    await store.open_turn(
        turn,
        [rows.item("t", "s-deleted", 1, body=text * 1000)],
        rows.session("s-deleted", title="secret title"),
    )
    await store.open_turn(
        rows.turn("u", "kept"), [rows.item("u", "kept", 1, body=b"kept text")], rows.session("kept")
    )
    await store.record_run(rows.run("r-deleted", "s-deleted"))
    assert text in bytes_on_disk(path)
    assert await store.delete_session("s-deleted") is True
    on_disk = bytes_on_disk(path)
    assert [word for word in (text, b"secret", b"deleted") if word in on_disk] == []
    assert b"kept text" in on_disk
    assert await store.session("s-deleted") is None
    assert await store.turns("s-deleted") == []
    assert await store.items("s-deleted") == []
    assert await store.turn_by_message("m-deleted") is None
    assert await store.delete_session("s-deleted") is False
    # The store goes on as before.
    await store.append_items([rows.item("u", "kept", 2)])
    assert len(await store.items("kept")) == 2


@pytest.mark.parametrize("seed", [2, LEAKY, 7])
async def test_not_even_after_a_busy_life(store: Store, path: str, rows: SimpleNamespace, seed: int) -> None:
    deletes, left = await busy_life(store, path, rows, seed, 300)
    assert deletes > 10
    assert left == set()
    await store.close()
    check_integrity(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 16))
async def test_not_even_after_a_long_life(store: Store, path: str, rows: SimpleNamespace, seed: int) -> None:
    _, left = await busy_life(store, path, rows, seed, 800)
    assert left == set()
    await store.close()
    check_integrity(path)


async def test_secure_delete_alone_would_leave_copies(
    store: Store, path: str, rows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shows that these tests can fail, and why `zero_unused` exists."""
    monkeypatch.setattr(connection_module, "zero_unused", lambda _path: 0)
    _, left = await busy_life(store, path, rows, seed=LEAKY, steps=300)
    assert left


async def test_a_delete_that_was_cut_off_is_finished_at_the_next_start(
    open_store: Any, path: str, rows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    scrubs: list[str] = []
    zero = scrub.zero_unused

    def failing(_path: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def counted(path: str) -> int:
        scrubs.append(path)
        return zero(path)

    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 1)], rows.session("s"))
    monkeypatch.setattr(connection_module, "zero_unused", failing)
    with pytest.raises(StorageError, match="not yet overwritten"):
        await store.delete_session("s")
    assert await store.session("s") is None
    await store.set_state("k", b"the store goes on")
    await store.close()
    store = await open_store()
    assert "Input/output error" in store.unfinished_delete
    assert await store.get_state("k") == b"the store goes on"

    monkeypatch.setattr(connection_module, "zero_unused", counted)
    store = await open_store()
    assert scrubs == [path]
    assert store.unfinished_delete is None
    assert await store.get_state("k") == b"the store goes on"
    await open_store()
    assert scrubs == [path]


async def test_a_database_that_cannot_be_opened_again_is_tried_again(
    store: Store, rows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 1)], rows.session("s"))
    connect = sqlite3.connect

    def refused(*_: Any, **__: Any) -> sqlite3.Connection:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    monkeypatch.setattr(sqlite3, "connect", refused)
    with pytest.raises(StorageError, match="disk I/O error"):
        await store.delete_session("s")
    with pytest.raises(StorageError, match="disk I/O error"):
        await store.set_state("k", b"v")
    with pytest.raises(StorageError, match="disk I/O error"):
        await store.session("s")
    monkeypatch.setattr(sqlite3, "connect", connect)
    await store.set_state("k", b"v")
    assert await store.session("s") is None


async def test_a_log_that_cannot_be_emptied(
    store: Store, rows: SimpleNamespace, raw: SimpleNamespace
) -> None:
    log = SimpleNamespace(execute=lambda _sql: SimpleNamespace(fetchone=lambda: (1, 5, 2)))
    with pytest.raises(sqlite3.OperationalError, match="log could not be emptied"):
        connection_module._empty_log(log)  # type: ignore[arg-type]


async def test_other_writes_of_the_batch_are_answered_too(store: Store, rows: SimpleNamespace) -> None:
    for name in ("a", "b"):
        await store.open_turn(
            rows.turn(name + "t", name), [rows.item(name + "t", name, 1)], rows.session(name)
        )
    results = await asyncio.gather(
        store.delete_session("a"),
        store.set_state("k", b"v"),
        store.delete_session("none"),
        store.delete_session("b"),
        store.append_items([rows.item("at", "a", 2)]),
        return_exceptions=True,
    )
    assert results[:4] == [True, None, False, True]
    assert isinstance(results[4], StorageError)
    assert await store.get_state("k") == b"v"


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
def test_any_database_stays_the_same_to_sqlite(path: str, page_size: int, auto_vacuum: int) -> None:
    """Tables, indexes, overflow pages, free pages and pointer maps, more than one of them at 512 bytes."""
    chance = random.Random(page_size + auto_vacuum)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size = {page_size}")
    connection.execute(f"PRAGMA auto_vacuum = {auto_vacuum}")
    connection.execute("CREATE TABLE a (k INTEGER PRIMARY KEY, t TEXT, b BLOB)")
    connection.execute("CREATE INDEX i ON a (t)")
    connection.execute("CREATE TABLE w (t TEXT PRIMARY KEY, n) WITHOUT ROWID")
    for _ in range(3):
        for _ in range(300):
            text = "t" * chance.randint(0, 300) + str(chance.random())
            blob = chance.randbytes(chance.choice([0, 10, 100, 5000]))
            connection.execute("INSERT INTO a (t, b) VALUES (?, ?)", (text, blob))
            connection.execute("INSERT INTO w VALUES (?, 1)", (text,))
        connection.execute("DELETE FROM a WHERE k % 3 = 1")
        connection.execute("DELETE FROM w WHERE t LIKE '%5'")
    connection.commit()
    before = list(connection.iterdump())
    connection.close()
    size = os.stat(path).st_size

    assert zero_unused(path) > 0
    assert zero_unused(path) == 0
    assert os.stat(path).st_size == size
    connection = sqlite3.connect(path)
    assert list(connection.iterdump()) == before
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.execute("INSERT INTO a (t) VALUES ('more')")
    connection.commit()
    connection.execute("VACUUM")
    connection.close()


def test_an_empty_file_has_no_pages(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert zero_unused(str(empty)) == 0


def test_pages_whose_first_byte_is_no_type() -> None:
    assert scrub._pages_of_no_tree(10, 4096, 4096, False) == {262145}
    maps = scrub._pages_of_no_tree(2000, 4096, 4096, True) - {262145}
    assert maps == {2, 2 + 820, 2 + 2 * 820}
    # A pointer map that would be the lock byte's page is the page after it.
    assert scrub._pages_of_no_tree(3_000_000, 512, 512, True) >= {2097153}
    lock = 2**30 // 512 + 1
    every = scrub._pages_of_no_tree(3_000_000, 512, 512, True)
    assert lock in every


def test_a_file_too_large_to_tell_pages_apart_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE a (x)")
    connection.close()
    monkeypatch.setattr(scrub, "_TOO_LARGE", 2)
    with pytest.raises(OSError, match="too large"):
        zero_unused(path)
