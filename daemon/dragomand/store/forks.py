"""Forks: a new session that begins with copies of another one's turns.

Functions that run in the connection's thread. What is copied never changes again (turns that have ended, and
their items), so neither session can be told by the other that it was copied.
"""

import sqlite3
import uuid

from dragomand.store.errors import StorageError, UnknownRowError
from dragomand.store.rows import ForkPoint, SessionRow
from dragomand.store.sessions import find_session, insert_session, read_session

_COPIED = """message_id, status, started_at, completed_at, request_digest, model, input_tokens, output_tokens,
  cache_read_tokens, cache_creation_tokens, cost_usd, stop_reason, error, queued_ms, upstream, duration_ms,
  claude_leaf_id, claude_message_count"""


def fork_point(connection: sqlite3.Connection, session_id: str, turn_id: str | None) -> ForkPoint | None:
    """Return the end of that turn, or of the last that has ended; None if there is no such turn."""
    found = connection.execute(
        """
        SELECT turn_key, turn_id, session_key, upstream, status FROM turn JOIN session USING (session_key)
        WHERE session_id = ?1 AND status != 'running' AND (?2 IS NULL OR turn_id = ?2)
        ORDER BY turn_key DESC LIMIT 1
        """,
        (session_id, turn_id),
    ).fetchone()
    if found is None:
        return None
    turn_key, turn_id, session_key, upstream, status = found
    upto = (session_key, turn_key)
    sql = "SELECT coalesce(max(seq), 0) FROM item WHERE session_key = ? AND turn_key <= ?"
    (last_seq,) = connection.execute(sql, upto).fetchone()
    sql = "SELECT count(*) FROM turn WHERE session_key = ? AND turn_key <= ?"
    (turn_count,) = connection.execute(sql, upto).fetchone()
    sql = "SELECT 1 FROM turn WHERE session_key = ? AND turn_key > ? AND status != 'running' LIMIT 1"
    is_end = connection.execute(sql, upto).fetchone() is None
    leaf = connection.execute(
        """
        SELECT claude_leaf_id, claude_message_count FROM turn
        WHERE session_key = ? AND turn_key <= ? AND claude_leaf_id IS NOT NULL
        ORDER BY turn_key DESC LIMIT 1
        """,
        upto,
    ).fetchone()
    leaf_id, count = leaf or (None, None)
    return ForkPoint(
        turn_id=turn_id,
        last_seq=last_seq,
        turn_count=turn_count,
        upstream=upstream,
        status=status,
        claude_leaf_id=leaf_id,
        claude_message_count=count,
        is_end=is_end,
    )


def fork_session(connection: sqlite3.Connection, path: str, row: SessionRow) -> SessionRow:
    """Write `row`, with copies of what it says it was forked from, and return it as it is then.

    Its counters are those of the copies; its totals begin at nothing, because what the copied turns cost is
    counted where they were run.
    """
    source, _ = find_session(connection, path, row.forked_from or "")
    sql = "SELECT turn_key FROM turn WHERE session_key = ? AND turn_id = ? AND status != 'running'"
    last = connection.execute(sql, (source, row.forked_at_turn)).fetchone()
    if last is None:
        raise UnknownRowError(path, f"session {row.forked_from} has no ended turn {row.forked_at_turn}")
    key = insert_session(connection, path, row)
    sql = "SELECT turn_key FROM turn WHERE session_key = ? AND turn_key <= ? ORDER BY turn_key"
    copied = 0
    for (turn_key,) in connection.execute(sql, (source, last[0])).fetchall():
        copied += _copy_turn(connection, turn_key, key)
    if copied != row.last_seq:
        raise StorageError(path, f"the fork has {copied} items, where {row.last_seq} were expected")
    forked = read_session(connection, row.session_id)
    assert forked is not None
    return forked


def _copy_turn(connection: sqlite3.Connection, turn_key: int, session_key: int) -> int:
    """Copy one turn with its items; return how many these were. Its message stays the original's alone."""
    copy = connection.execute(
        f"""
        INSERT INTO turn (session_key, turn_id, origin_turn_id, {_COPIED})
        SELECT ?, ?, turn_id, {_COPIED.replace("message_id, status", "NULL, status", 1)}
        FROM turn WHERE turn_key = ?
        """,  # noqa: S608 (names of our own)
        (session_key, str(uuid.uuid4()), turn_key),
    )
    items = connection.execute(
        """
        INSERT INTO item (session_key, turn_key, seq, item_id, kind, created_at, body)
        SELECT ?, ?, seq, item_id, kind, created_at, body FROM item WHERE turn_key = ? ORDER BY seq
        """,
        (session_key, copy.lastrowid, turn_key),
    )
    return items.rowcount
