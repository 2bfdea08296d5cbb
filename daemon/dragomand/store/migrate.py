"""Bring a database to this version's schema: numbered SQL files, one transaction each.

A file that was once released is never edited: its checksum is recorded in the databases that it made. The
highest number is also SQLite's `user_version`, which can be read without knowing any table.
"""

import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence

import msgspec

from dragomand.store.errors import NewerSchemaError, StorageError

APPLICATION_ID = 0x44524147
"""Tells our databases from other programs' (`PRAGMA application_id`): "DRAG"."""

_FOLDER = os.path.join(os.path.dirname(__file__), "migrations")
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_RECORD = """
    CREATE TABLE IF NOT EXISTS schema_migration (
      number INTEGER PRIMARY KEY,
      name TEXT NOT NULL,
      checksum TEXT NOT NULL,
      applied_at REAL NOT NULL
    ) STRICT
"""


class Migration(msgspec.Struct, frozen=True):
    """One numbered step: the SQL statements that lead from the schema before to this one."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the SQL text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def read_migrations(folder: str = _FOLDER) -> list[Migration]:
    """Return the migrations in `folder` (by default this version's own), first to last."""
    found = []
    for file_name in sorted(os.listdir(folder)):
        if match := _FILE_NAME.fullmatch(file_name):
            with open(os.path.join(folder, file_name), encoding="utf-8") as file:
                found.append(Migration(int(match[1]), match[2], file.read()))
    return found


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration], now: float) -> int:
    """Apply the `migrations` that the database lacks and return how many these were.

    `connection` is in autocommit mode; `path` is for error texts; `now` is recorded. Raises
    `NewerSchemaError` for a database of a newer version and `StorageError` for one whose recorded migrations
    are not ours; neither is changed. A step that fails leaves no trace of it.
    """
    known = migrations[-1].number
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > known:
        raise NewerSchemaError(path, version, known)
    applied = _check_record(connection, path, migrations) if version else 0
    for migration in migrations[applied:]:
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            _apply(connection, migration, now)
    return len(migrations) - applied


def check_ours(connection: sqlite3.Connection, path: str) -> None:
    """Raise `StorageError` unless the database is new or one of ours. Changes nothing."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION_ID:
        return
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application or tables:
        raise StorageError(path, "it is a database of another program; move it away and start again")


def _check_record(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration]) -> int:
    recorded = connection.execute("SELECT number, checksum FROM schema_migration ORDER BY number").fetchall()
    expected = [(step.number, step.checksum) for step in migrations[: len(recorded)]]
    for found, ours in zip(recorded, expected, strict=True):
        if found != ours:
            raise StorageError(
                path,
                f"its migration {found[0]} is not the one of this version (recorded checksum "
                f"{found[1][:12]}, expected {ours[1][:12]}). Start the version that wrote the database",
            )
    return len(recorded)


def _apply(connection: sqlite3.Connection, migration: Migration, now: float) -> None:
    connection.execute(_RECORD)
    for statement in _statements(migration.sql):
        connection.execute(statement)
    row = (migration.number, migration.name, migration.checksum, now)
    connection.execute("INSERT INTO schema_migration VALUES (?, ?, ?, ?)", row)
    # PRAGMA takes no parameters; both are integers of our own.
    connection.execute(f"PRAGMA user_version = {migration.number:d}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")


def _statements(sql: str) -> Iterator[str]:
    """Split at the semicolons that end a statement. (`executescript` would commit by itself.)"""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
