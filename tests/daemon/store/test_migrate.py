# ruff: noqa: ASYNC240 - nothing else runs in a test's event loop
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from dragomand.store.errors import NewerSchemaError, StorageError
from dragomand.store.migrate import APPLICATION_ID, Migration, migrate, read_migrations
from dragomand.store.store import Store

FIRST = Migration(1, "first", "CREATE TABLE a (x);\n-- a comment; with a semicolon\nCREATE TABLE b (y);\n")
SECOND = Migration(2, "second", "ALTER TABLE a ADD COLUMN z;")


@pytest.fixture
def database(path: str) -> Any:
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()


def schema(connection: sqlite3.Connection) -> list[Any]:
    return connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()


def test_ours_are_numbered_from_1_without_a_gap() -> None:
    ours = read_migrations()
    assert [step.number for step in ours] == list(range(1, len(ours) + 1))
    assert all(re.fullmatch(r"[0-9a-f]{64}", step.checksum) for step in ours)


def test_each_is_applied_once_and_recorded(database: sqlite3.Connection, path: str) -> None:
    assert migrate(database, path, [FIRST], 5.0) == 1
    assert migrate(database, path, [FIRST], 6.0) == 0
    assert migrate(database, path, [FIRST, SECOND], 7.0) == 1
    recorded = database.execute("SELECT * FROM schema_migration ORDER BY number").fetchall()
    assert recorded == [(1, "first", FIRST.checksum, 5.0), (2, "second", SECOND.checksum, 7.0)]
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert database.execute("SELECT x, z FROM a").fetchall() == []


@pytest.mark.parametrize("sql", ["CREATE TABLE c (x);\nCREATE TABLE a (x);", "CREATE TABLE c (x);\nnonsense"])
def test_a_step_that_fails_leaves_no_trace(database: sqlite3.Connection, path: str, sql: str) -> None:
    migrate(database, path, [FIRST], 5.0)
    before = schema(database)
    with pytest.raises(sqlite3.OperationalError):
        migrate(database, path, [FIRST, Migration(2, "bad", sql)], 6.0)
    assert schema(database) == before
    assert not database.in_transaction
    assert migrate(database, path, [FIRST, SECOND], 7.0) == 1


def test_a_step_that_ends_the_transaction_is_an_error(database: sqlite3.Connection, path: str) -> None:
    with pytest.raises(sqlite3.OperationalError):
        migrate(database, path, [Migration(1, "bad", "COMMIT;\nnonsense;")], 6.0)
    assert not database.in_transaction


async def test_a_newer_schema_is_refused_and_left_alone(open_store: Any, path: str) -> None:
    await (await open_store()).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = Path(path).read_bytes()
    with pytest.raises(
        NewerSchemaError, match="has number 99, this version of Dragoman knows up to 3"
    ) as refused:
        await open_store()
    assert (refused.value.found, refused.value.known) == (99, 3)
    assert Path(path).read_bytes() == before
    assert [entry.name for entry in Path(path).parent.iterdir()] == ["dragoman.db"]


async def test_a_changed_migration_is_refused(open_store: Any, path: str) -> None:
    await (await open_store()).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE schema_migration SET checksum = 'another'")
    other.close()
    with pytest.raises(
        StorageError, match=r"migration 1 is not the one of this version \(recorded checksum another"
    ):
        await open_store()


@pytest.mark.parametrize("sql", ["CREATE TABLE theirs (x)", "PRAGMA application_id = 77"])
async def test_another_programs_database_is_refused_and_left_alone(
    open_store: Any, path: str, sql: str
) -> None:
    with sqlite3.connect(path) as other:
        other.execute(sql)
        other.execute("VACUUM")
    other.close()
    before = Path(path).read_bytes()
    with pytest.raises(StorageError, match="another program"):
        await open_store()
    assert Path(path).read_bytes() == before


async def test_the_first_schema(store: Store, path: str) -> None:
    await store.close()
    connection = sqlite3.connect(path)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == {"session", "session_tag", "turn", "item", "process_run", "state", "schema_migration",
                      "spend"}
    strict = {row[1]: row[5] for row in connection.execute("PRAGMA table_list") if row[1] in tables}
    assert set(strict.values()) == {1}
    connection.close()


def test_other_files_in_the_folder_are_no_migrations(tmp_path: Path) -> None:
    for name in ("0002_b.sql", "0001_a.sql", "README.md", "1_x.sql", "0003_c.sql~"):
        (tmp_path / name).write_text(f"-- {name}")
    assert [(step.number, step.name) for step in read_migrations(str(tmp_path))] == [(1, "a"), (2, "b")]
