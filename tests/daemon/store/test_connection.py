# ruff: noqa: ASYNC220, ASYNC221, ASYNC230, ASYNC240 - nothing else runs in a test's event loop
import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dragomand.store import connection as connection_module
from dragomand.store.connection import is_damage, translated
from dragomand.store.errors import StorageError, StorageFullError
from dragomand.store.store import Store


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


async def test_files_are_private_whatever_the_umask(path: str, open_store: Any) -> None:
    before = os.umask(0)
    try:
        store = await open_store()
        await store.set_state("k", b"v")
        assert {name: mode(name) for name in (path, path + "-wal")} == {path: 0o600, path + "-wal": 0o600}
    finally:
        os.umask(before)
    assert not Path(path + "-shm").exists()


async def test_files_that_were_open_to_others_are_closed_to_them(path: str, open_store: Any) -> None:
    await (await open_store()).close()
    os.chmod(path, 0o644)
    Path(path + "-wal").touch(mode=0o644)
    await open_store()
    assert mode(path) == 0o600
    assert mode(path + "-wal") == 0o600


async def test_settings(raw: SimpleNamespace, store: Store) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "locking_mode": "exclusive",
        "foreign_keys": 1,
        "trusted_schema": 0,
        "secure_delete": 1,
        "temp_store": 2,
        "auto_vacuum": 2,
        "cell_size_check": 1,
    }
    found = {name: raw.connections[-1].execute(f"PRAGMA {name}").fetchone()[0] for name in expected}
    assert found == expected
    assert raw.connections[-1].isolation_level is None


async def test_nobody_else_can_open_it(store: Store, path: str) -> None:
    code = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0).execute("SELECT count(*) FROM session")
except sqlite3.OperationalError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "database is locked"


HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_database_that_is_held_is_an_error_with_a_name(
    open_store: Any, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await open_store()).close()
    monkeypatch.setattr(connection_module, "_LOCK_PATIENCE_S", 0.01)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        with pytest.raises(StorageError, match="another process has it open"):
            await open_store()
        holder.communicate(timeout=30)
    await open_store()


@pytest.mark.parametrize("what", ["folder", "parent", "unreadable"])
async def test_a_path_that_cannot_be_opened(path: str, tmp_path: Path, what: str) -> None:
    if what == "folder":
        os.mkdir(path)
    elif what == "parent":
        path = str(tmp_path / "none" / "dragoman.db")
    else:
        (tmp_path / "file").touch()
        path = str(tmp_path / "file" / "dragoman.db")
    with pytest.raises(StorageError, match=r"cannot be (opened or )?created"):
        await Store.open(path, clock=lambda: 0.0)


async def test_an_sqlite_that_is_too_old(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 9))
    with pytest.raises(StorageError, match=r"too old; 3\.37"):
        await Store.open(path, clock=lambda: 0.0)
    assert not os.path.exists(path)


async def test_without_a_write_ahead_log_there_is_no_store(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda _path, **options: connect(":memory:", **options))
    with pytest.raises(StorageError, match="cannot use a write-ahead log here"):
        await Store.open(path, clock=lambda: 0.0)


def spoil(path: str, how: str) -> None:
    size = os.stat(path).st_size
    with open(path, "r+b") as file:
        if how == "header":
            file.write(b"not a database at all, sorry....")
        elif how == "schema page":
            file.seek(100)
            file.write(os.urandom(3996))
        elif how == "cut":
            file.truncate(size // 2 + 100)
        elif how == "other pages":
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))


@pytest.mark.parametrize("how", ["header", "schema page", "cut", "other pages"])
async def test_a_damaged_file_is_moved_aside_and_reported(
    open_store: Any, path: str, rows: SimpleNamespace, how: str
) -> None:
    store = await open_store()
    await store.open_turn(
        rows.turn("t", "s"), [rows.item("t", "s", 1, body=b"x" * 50_000)], rows.session("s")
    )
    await store.close()
    spoil(path, how)
    spoiled = Path(path).read_bytes()

    store = await open_store()
    assert store.moved_aside is not None
    assert store.moved_aside.path == path + ".damaged-19700101T001640Z"
    assert store.moved_aside.at == 1000.0
    assert store.moved_aside.reason
    assert Path(store.moved_aside.path).read_bytes() == spoiled
    assert await store.session("s") is None
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))

    store = await open_store()
    assert store.moved_aside is None
    assert await store.session("s") is not None
    await store.close()
    spoil(path, "header")
    store = await open_store()
    assert store.moved_aside is not None
    assert store.moved_aside.path == path + ".damaged-19700101T001640Z-2"


def test_a_log_moves_with_its_database(path: str) -> None:
    for suffix in ("", "-wal"):
        Path(path + suffix).write_text("old" + suffix)
    report = connection_module._move_aside(path, "because", 0.0)
    assert (report.path, report.reason, report.at) == (path + ".damaged-19700101T000000Z", "because", 0.0)
    assert [Path(report.path + suffix).read_text() for suffix in ("", "-wal")] == ["old", "old-wal"]
    assert len(list(Path(path).parent.iterdir())) == 2


async def test_damage_that_stays_is_an_error_not_a_loop(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object, **__: object) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(sqlite3, "connect", damaged)
    with pytest.raises(StorageError, match="malformed"):
        await Store.open(path, clock=lambda: 0.0)


async def test_damage_met_later_fails_the_call_and_not_the_store(
    open_store: Any, path: str, rows: SimpleNamespace
) -> None:
    store = await open_store()
    await store.open_turn(
        rows.turn("t", "s"), [rows.item("t", "s", 1, body=b"x" * 500_000)], rows.session("s")
    )
    await store.open_turn(rows.turn("u", "r"), [rows.item("u", "r", 1)], rows.session("r"))
    await store.close_turn(rows.turn("t", "s", status="completed"), [])
    await store.close_turn(rows.turn("u", "r", status="completed"), [])
    await store.close()
    data = Path(path).read_bytes()
    # The middle of a chain of overflow pages: each begins with the number of the next.
    at = (data.index(b"x" * 4000) // 4096 + 20) * 4096
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xff\xff\xff\xff")
    store = await open_store()
    assert store.moved_aside is None
    with pytest.raises(StorageError, match="malformed"):
        await store.items("s")
    assert len(await store.items("r")) == 1
    await store.set_state("k", b"v")


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("text")
    error.sqlite_errorcode = code
    return error


def test_errors_are_translated() -> None:
    assert isinstance(translated("/p", sqlite_error(sqlite3.SQLITE_FULL)), StorageFullError)
    assert "another process" in str(translated("/p", sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT)))
    assert "cannot be opened" in str(translated("/p", sqlite_error(sqlite3.SQLITE_CANTOPEN_ISDIR)))
    assert (
        str(translated("/p", sqlite3.ProgrammingError("odd"))) == "/p: SQLite says: odd (ProgrammingError)."
    )
    assert is_damage(sqlite_error(sqlite3.SQLITE_CORRUPT_INDEX))
    assert not is_damage(sqlite3.ProgrammingError("odd"))


async def test_opening_that_is_cancelled_leaves_nothing_open(path: str, open_store: Any) -> None:
    opening = asyncio.create_task(Store.open(path, clock=lambda: 0.0))
    turn = asyncio.Event()
    asyncio.get_running_loop().call_soon(turn.set)
    await turn.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            await asyncio.to_thread(thread.join, 30)
    store = await open_store()
    await store.set_state("k", b"v")
