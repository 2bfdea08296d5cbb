"""Rows of turns and of their items, and what they change in the row of their session.

Functions that run in the connection's thread. Those that write run inside a transaction of the caller's.
A turn's figures count towards its session's totals from the moment it is no longer `running`.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from dragomand.store.errors import DuplicateMessageError, StorageError, UnknownRowError
from dragomand.store.rows import ItemRow, SessionRow, TurnRow
from dragomand.store.sessions import find_session, insert_session

PAGE_BYTES = 4 * 1024 * 1024
"""Bytes of item bodies that are read at a time: what comes of them must fit into a message."""

_TURN_COLUMNS = TurnRow.__struct_fields__
_ITEM_COLUMNS = ItemRow.__struct_fields__
_INSERT_ITEM = """
    INSERT INTO item (session_key, turn_key, seq, item_id, kind, created_at, body) VALUES
"""
_ITEM_ROW = "(?, ?, ?, ?, ?, ?, ?)"
_ROWS_AT_ONCE = 8
"""As many forms of the statement as there are numbers up to it; all stay prepared."""
_SELECT_TURN = """
    SELECT turn_id, session_id, status, started_at, completed_at, message_id, request_digest, t.model,
      t.input_tokens, t.output_tokens, t.cache_read_tokens, t.cache_creation_tokens, t.cost_usd, stop_reason,
      error, queued_ms, upstream, duration_ms, claude_leaf_id, t.claude_message_count, origin_turn_id
    FROM turn t JOIN session USING (session_key)
"""
_SELECT_ITEM = """
    SELECT session_id, turn_id, seq, item_id, kind, i.created_at, body
    FROM item i JOIN session USING (session_key) JOIN turn USING (turn_key)
"""


def open_turn(
    connection: sqlite3.Connection,
    path: str,
    turn: TurnRow,
    items: Sequence[ItemRow],
    new_session: SessionRow | None,
) -> None:
    """Write a turn that begins, its first items and, if given, its session."""
    _check_message(connection, turn)
    if new_session is None:
        key, last_seq = find_session(connection, path, turn.session_id)
        _check_order(path, last_seq, items)
    else:
        _check_order(path, new_session.last_seq, items)
        key = insert_session(connection, path, _begun(new_session, turn, items))
    turn_key = connection.execute(
        """
        INSERT INTO turn (session_key, turn_id, status, started_at, completed_at, message_id, request_digest,
          model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, cost_usd, stop_reason,
          error, queued_ms, upstream, duration_ms, claude_leaf_id, claude_message_count, origin_turn_id)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (key, turn.turn_id, *_values(turn)),
    ).lastrowid
    _insert_items(connection, path, key, items, {turn.turn_id: turn_key or 0})
    if new_session is None:
        at = max([turn.started_at, *[item.created_at for item in items[-1:]]])
        connection.execute(
            """
            UPDATE session SET turn_count = turn_count + 1, last_turn_status = ?, last_seq = last_seq + ?2,
              item_count = item_count + ?2, updated_at = max(updated_at, ?) WHERE session_key = ?
            """,
            (turn.status, len(items), at, key),
        )
    if turn.status != "running":
        _add_to_totals(connection, key, turn)


def append_items(connection: sqlite3.Connection, path: str, items: Sequence[ItemRow]) -> None:
    """Write items of one session."""
    key, last_seq = find_session(connection, path, items[0].session_id)
    _check_order(path, last_seq, items)
    _insert_items(connection, path, key, items, {})
    connection.execute(
        """
        UPDATE session SET last_seq = ?, item_count = item_count + ?, updated_at = max(updated_at, ?)
        WHERE session_key = ?
        """,
        (items[-1].seq, len(items), items[-1].created_at, key),
    )


def close_turn(connection: sqlite3.Connection, path: str, turn: TurnRow, items: Sequence[ItemRow]) -> None:
    """Write the end of a running turn and its last items."""
    key, last_seq = find_session(connection, path, turn.session_id)
    _check_order(path, last_seq, items)
    found = connection.execute(
        """
        UPDATE turn SET status = ?, started_at = ?, completed_at = ?, message_id = ?, request_digest = ?,
          model = ?, input_tokens = ?, output_tokens = ?, cache_read_tokens = ?, cache_creation_tokens = ?,
          cost_usd = ?, stop_reason = ?, error = ?, queued_ms = ?, upstream = ?, duration_ms = ?,
          claude_leaf_id = ?, claude_message_count = ?, origin_turn_id = ?
        WHERE turn_id = ? AND session_key = ? AND status = 'running' RETURNING turn_key
        """,
        (*_values(turn), turn.turn_id, key),
    ).fetchone()
    if found is None:
        raise UnknownRowError(path, f"session {turn.session_id} has no running turn {turn.turn_id}")
    _insert_items(connection, path, key, items, {turn.turn_id: found[0]})
    at = max([turn.completed_at or turn.started_at, *[item.created_at for item in items[-1:]]])
    over = turn.status != "running"
    connection.execute(
        """
        UPDATE session SET last_turn_status = ?, last_seq = last_seq + ?2, item_count = item_count + ?2,
          updated_at = max(updated_at, ?), input_tokens = input_tokens + ?, output_tokens = output_tokens + ?,
          cache_read_tokens = cache_read_tokens + ?, cache_creation_tokens = cache_creation_tokens + ?,
          cost_usd = CASE WHEN ?8 IS NULL THEN cost_usd ELSE coalesce(cost_usd, 0) + ?8 END
        WHERE session_key = ?9
        """,
        (turn.status, len(items), at, *(_figures(turn) if over else (0, 0, 0, 0, None)), key),
    )


def interrupt_running(connection: sqlite3.Connection, new_epoch: str) -> list[str]:
    """Mark the turns that a dead daemon left running as `interrupted`, and return their sessions' ids.

    These sessions get the epoch `new_epoch`: what was published of them after their last stored item is lost.
    """
    running = connection.execute("SELECT session_key, turn_key FROM turn WHERE status = 'running'").fetchall()
    for session_key, turn_key in running:
        turn = _turn_at(connection, turn_key)
        connection.execute("UPDATE turn SET status = 'interrupted' WHERE turn_key = ?", (turn_key,))
        connection.execute(
            "UPDATE session SET last_turn_status = 'interrupted', epoch = ? WHERE session_key = ?",
            (new_epoch, session_key),
        )
        _add_to_totals(connection, session_key, turn)
    keys = dict.fromkeys(key for key, _ in running)
    sql = "SELECT session_id FROM session WHERE session_key = ?"
    return [connection.execute(sql, (key,)).fetchone()[0] for key in keys]


def list_turns(connection: sqlite3.Connection, session_id: str, limit: int) -> list[TurnRow]:
    """Return the newest `limit` turns of a session, oldest first."""
    found = connection.execute(
        _SELECT_TURN + "WHERE session_id = ? ORDER BY turn_key DESC LIMIT ?", (session_id, limit)
    ).fetchall()
    return [_to_turn(values) for values in reversed(found)]


def turn_by_message(connection: sqlite3.Connection, message_id: str) -> TurnRow | None:
    """Return the turn that a message began."""
    found = connection.execute(_SELECT_TURN + "WHERE message_id = ?", (message_id,)).fetchone()
    return None if found is None else _to_turn(found)


def list_items(connection: sqlite3.Connection, session_id: str, after_seq: int, limit: int) -> list[ItemRow]:
    """Return up to `limit` items of a session with a `seq` above `after_seq`, in order.

    Fewer, but at least one, where their bodies have more than `PAGE_BYTES` together.
    """
    sql = _SELECT_ITEM + "WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?"
    items: list[ItemRow] = []
    size = 0
    for values in connection.execute(sql, (session_id, after_seq, limit)):
        item = _to_item(values)
        size += len(item.body)
        if items and size > PAGE_BYTES:
            break
        items.append(item)
    return items


def turn_items(connection: sqlite3.Connection, turn_id: str) -> list[ItemRow]:
    """Return all items of a turn, in order."""
    sql = _SELECT_ITEM + "WHERE turn_id = ? ORDER BY seq"
    return [_to_item(values) for values in connection.execute(sql, (turn_id,))]


def _begun(session: SessionRow, turn: TurnRow, items: Sequence[ItemRow]) -> SessionRow:
    """Return the row of a new session as it is after its first turn has begun."""
    return replace(
        session,
        last_seq=session.last_seq + len(items),
        item_count=session.item_count + len(items),
        turn_count=session.turn_count + 1,
        last_turn_status=turn.status,
        updated_at=max([session.updated_at, turn.started_at, *[item.created_at for item in items[-1:]]]),
    )


def _check_order(path: str, last_seq: int, items: Sequence[ItemRow]) -> None:
    for seq, item in enumerate(items, last_seq + 1):
        if item.seq != seq:
            raise StorageError(path, f"session {item.session_id} expects item {seq} next, not {item.seq}")


def _insert_items(
    connection: sqlite3.Connection,
    path: str,
    session_key: int,
    items: Sequence[ItemRow],
    turn_keys: dict[str, int],
) -> None:
    """Write items whose order was checked; *turn_keys* has those of turns that are known."""
    values: list[Any] = []
    for item in items:
        turn_key = turn_keys.get(item.turn_id)
        if turn_key is None:
            turn_key = turn_keys[item.turn_id] = _turn_key(connection, path, session_key, item.turn_id)
        values += (session_key, turn_key, item.seq, item.item_id, item.kind, item.created_at, item.body)
    # A statement for some rows instead of one for each: between statements the thread lets others run.
    for at in range(0, len(items), _ROWS_AT_ONCE):
        rows = min(_ROWS_AT_ONCE, len(items) - at)
        connection.execute(_INSERT_ITEM + ", ".join([_ITEM_ROW] * rows), values[at * 7 : (at + rows) * 7])


def _turn_key(connection: sqlite3.Connection, path: str, session_key: int, turn_id: str) -> int:
    sql = "SELECT turn_key FROM turn WHERE turn_id = ? AND session_key = ?"
    found = connection.execute(sql, (turn_id, session_key)).fetchone()
    if found is None:
        raise UnknownRowError(path, f"the item's session has no turn {turn_id}")
    key: int = found[0]
    return key


def _check_message(connection: sqlite3.Connection, turn: TurnRow) -> None:
    if turn.message_id is None:
        return
    sql = "SELECT turn_id FROM turn WHERE message_id = ?"
    found = connection.execute(sql, (turn.message_id,)).fetchone()
    if found is not None:
        raise DuplicateMessageError(found[0])


def _figures(turn: TurnRow) -> tuple[int, int, int, int, float | None]:
    return (
        turn.input_tokens,
        turn.output_tokens,
        turn.cache_read_tokens,
        turn.cache_creation_tokens,
        turn.cost_usd,
    )


def _add_to_totals(connection: sqlite3.Connection, session_key: int, turn: TurnRow) -> None:
    connection.execute(
        """
        UPDATE session SET input_tokens = input_tokens + ?, output_tokens = output_tokens + ?,
          cache_read_tokens = cache_read_tokens + ?, cache_creation_tokens = cache_creation_tokens + ?,
          cost_usd = CASE WHEN ?5 IS NULL THEN cost_usd ELSE coalesce(cost_usd, 0) + ?5 END
        WHERE session_key = ?6
        """,
        (*_figures(turn), session_key),
    )


def _turn_at(connection: sqlite3.Connection, turn_key: int) -> TurnRow:
    return _to_turn(connection.execute(_SELECT_TURN + "WHERE turn_key = ?", (turn_key,)).fetchone())


def _values(turn: TurnRow) -> list[Any]:
    """Return the columns of a turn without its two ids, in the order of the struct."""
    return [getattr(turn, name) for name in _TURN_COLUMNS[2:]]


def _to_turn(values: tuple[Any, ...]) -> TurnRow:
    return TurnRow(**dict(zip(_TURN_COLUMNS, values, strict=True)))


def _to_item(values: tuple[Any, ...]) -> ItemRow:
    return ItemRow(**dict(zip(_ITEM_COLUMNS, values, strict=True)))
