"""Rows of sessions: made, changed, listed, deleted; and the runs of Claude Code that belong to them.

Functions that run in the connection's thread. Those that write run inside a transaction of the caller's.
"""

import base64
import binascii
import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec

from dragomand.store.errors import StorageError, UnknownRowError
from dragomand.store.rows import ProcessRunRow, SessionRow

MAX_PAGE = 1000
"""No read returns more rows than this, whatever its `limit`."""

_SCRUB_DUE = "store/scrub_due"
_COLUMNS = [name for name in SessionRow.__struct_fields__ if name not in ("tags", "kept")]
_SELECT = """
    SELECT session_key, session_id, created_at, updated_at, cwd, title, model, owner, claude_session_id,
      claude_message_count, epoch, last_seq, turn_count, item_count, cost_usd, input_tokens, output_tokens,
      cache_read_tokens, cache_creation_tokens, last_turn_status, agent, forked_from, forked_at_turn,
      forked_seq, claude_fork_session_id, claude_fork_leaf_id, claude_fork_count
    FROM session
"""


def insert_session(connection: sqlite3.Connection, path: str, row: SessionRow) -> int:
    """Write `row` and return its key. Raises `StorageError` if there is a session with its id."""
    values = [*(getattr(row, name) for name in _COLUMNS), row.kept]
    cursor = connection.execute(
        """
        INSERT INTO session (session_id, created_at, updated_at, cwd, title, model, owner, claude_session_id,
          claude_message_count, epoch, last_seq, turn_count, item_count, cost_usd, input_tokens,
          output_tokens, cache_read_tokens, cache_creation_tokens, last_turn_status, agent, forked_from,
          forked_at_turn, forked_seq, claude_fork_session_id, claude_fork_leaf_id, claude_fork_count, kept)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (session_id) DO NOTHING
        """,
        values,
    )
    if cursor.rowcount == 0 or cursor.lastrowid is None:
        raise StorageError(path, f"session {row.session_id} exists already")
    if row.tags:
        _set_tags(connection, cursor.lastrowid, row.tags)
    return cursor.lastrowid


def find_session(connection: sqlite3.Connection, path: str, session_id: str) -> tuple[int, int]:
    """Return the key and the last `seq` of a session; raises `UnknownRowError`."""
    sql = "SELECT session_key, last_seq FROM session WHERE session_id = ?"
    found = connection.execute(sql, (session_id,)).fetchone()
    if found is None:
        raise UnknownRowError(path, f"there is no session {session_id}")
    return found[0], found[1]


def update_session(
    connection: sqlite3.Connection, path: str, session_id: str, changes: dict[str, Any]
) -> None:
    """Set the columns in `changes`: what `Store.update_session` takes."""
    key, _ = find_session(connection, path, session_id)
    for column, value in changes.items():
        if column == "tags":
            _set_tags(connection, key, value)
        else:
            connection.execute(_SET[column], (value, key))


_SET = {
    "model": "UPDATE session SET model = ? WHERE session_key = ?",
    "claude_session_id": "UPDATE session SET claude_session_id = ? WHERE session_key = ?",
    "claude_message_count": "UPDATE session SET claude_message_count = ? WHERE session_key = ?",
    "title": "UPDATE session SET title = ? WHERE session_key = ?",
    "agent": "UPDATE session SET agent = ? WHERE session_key = ?",
    "kept": "UPDATE session SET kept = ? WHERE session_key = ?",
    "updated_at": "UPDATE session SET updated_at = ? WHERE session_key = ?",
}


def delete_session(connection: sqlite3.Connection, session_id: str) -> bool:
    """Delete the session and all that refers to it, note that a scrub is due; tell whether there was one."""
    found = connection.execute("DELETE FROM session WHERE session_id = ?", (session_id,)).rowcount > 0
    if found:
        connection.execute("INSERT OR REPLACE INTO state VALUES (?, x'')", (_SCRUB_DUE,))
    return found


def is_scrub_due(connection: sqlite3.Connection) -> bool:
    """Tell whether something was deleted and the file has not been scrubbed since (see `scrub`)."""
    return connection.execute("SELECT 1 FROM state WHERE key = ?", (_SCRUB_DUE,)).fetchone() is not None


def note_scrubbed(connection: sqlite3.Connection) -> None:
    """Note that the file was scrubbed."""
    connection.execute("DELETE FROM state WHERE key = ?", (_SCRUB_DUE,))


def read_session(connection: sqlite3.Connection, session_id: str) -> SessionRow | None:
    """Return one session."""
    found = connection.execute(_SELECT + "WHERE session_id = ?", (session_id,)).fetchone()
    return None if found is None else _to_row(connection, found)


def read_kept(connection: sqlite3.Connection, session_id: str) -> bytes | None:
    """Return what a session's turns inherit."""
    found = connection.execute("SELECT kept FROM session WHERE session_id = ?", (session_id,)).fetchone()
    return None if found is None else found[0]


def list_sessions(
    connection: sqlite3.Connection,
    *,
    limit: int,
    after: tuple[float, int] | None,
    cwd: str | None,
    tag: str | None,
    ids: Collection[str] | None,
) -> tuple[list[SessionRow], tuple[float, int] | None]:
    """Return one page, newest update first, and where the next one begins (None: there is none)."""
    clauses, values = _conditions(after, cwd, tag, ids)
    where = "WHERE " + " AND ".join(clauses) if clauses else ""
    order = "ORDER BY updated_at DESC, session_key DESC LIMIT ?"
    found = connection.execute(" ".join((_SELECT, where, order)), [*values, limit + 1]).fetchall()
    rows = [_to_row(connection, values) for values in found[:limit]]
    if len(found) <= limit:
        return rows, None
    return rows, (rows[-1].updated_at, found[limit - 1][0])


def record_run(connection: sqlite3.Connection, path: str, run: ProcessRunRow) -> None:
    """Insert or replace the record of a run."""
    key, _ = find_session(connection, path, run.session_id)
    connection.execute(
        "INSERT OR REPLACE INTO process_run VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            run.run_id,
            key,
            run.claude_session_id,
            run.claude_version,
            run.started_at,
            run.ended_at,
            run.cost_total_usd,
        ),
    )


def list_runs(connection: sqlite3.Connection, session_id: str, limit: int) -> list[ProcessRunRow]:
    """Return the newest `limit` runs of a session, oldest first."""
    found = connection.execute(
        """
        SELECT run_id, session_id, r.claude_session_id, claude_version, started_at, ended_at, cost_total_usd
        FROM process_run r JOIN session USING (session_key)
        WHERE session_id = ? ORDER BY started_at DESC, run_id DESC LIMIT ?
        """,
        (session_id, limit),
    ).fetchall()
    names = ProcessRunRow.__struct_fields__
    return [ProcessRunRow(**dict(zip(names, values, strict=True))) for values in reversed(found)]


def to_cursor(place: tuple[float, int]) -> str:
    """Return the opaque text for a place in the list of sessions."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def from_cursor(cursor: str) -> tuple[float, int]:
    """Return the place that `to_cursor` made `cursor` from; raises ValueError for any other text."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.json.decode(text, type=tuple[float, int])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        place = None
    if place is None or not -(2**63) <= place[1] < 2**63:
        raise ValueError(f"{cursor[:64]!r} is not a cursor of this list")
    return place


def _conditions(
    after: tuple[float, int] | None, cwd: str | None, tag: str | None, ids: Collection[str] | None
) -> tuple[list[str], list[Any]]:
    clauses: list[str] = []
    values: list[Any] = []
    if after is not None:
        clauses.append("(updated_at, session_key) < (?, ?)")
        values.extend(after)
    if cwd is not None:
        clauses.append("cwd = ?")
        values.append(cwd)
    if tag is not None:
        clauses.append("session_key IN (SELECT session_key FROM session_tag WHERE tag = ?)")
        values.append(tag)
    if ids is not None:
        clauses.append("session_id IN (SELECT value FROM json_each(?))")
        values.append(msgspec.json.encode(list(ids)).decode())
    return clauses, values


def _set_tags(connection: sqlite3.Connection, key: int, tags: Collection[str]) -> None:
    connection.execute("DELETE FROM session_tag WHERE session_key = ?", (key,))
    rows = [(key, position, tag) for position, tag in enumerate(tags)]
    connection.executemany("INSERT INTO session_tag VALUES (?, ?, ?)", rows)


def _to_row(connection: sqlite3.Connection, values: tuple[Any, ...]) -> SessionRow:
    sql = "SELECT tag FROM session_tag WHERE session_key = ? ORDER BY position"
    tags = tuple(tag for (tag,) in connection.execute(sql, values[:1]))
    return SessionRow(**dict(zip(_COLUMNS, values[1:], strict=True)), tags=tags)
