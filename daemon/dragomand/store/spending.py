"""Rows of what was spent: opened with an estimate, closed with the cost, summed for budgets and statistics.

Functions that run in the connection's thread. Those that write run inside a transaction of the caller's.
"""

import sqlite3
from typing import Literal

from dragomand.store.rows import SpendRow, SpendSums

Grouping = Literal["client", "model", "project", "session_id", "tree_id"]
"""What sums may be told apart by."""

KEPT_S = 32 * 86_400.0
"""So old, in seconds, a row is before it is joined with those of its day, client, project, model, session."""

_COLUMNS = SpendRow.__struct_fields__
_SUMS = """
    coalesce(sum(turns), 0),
    coalesce(sum(CASE WHEN status = 'completed' THEN turns END), 0),
    coalesce(sum(CASE WHEN status = 'failed' THEN turns END), 0),
    coalesce(sum(CASE WHEN status IN ('cancelled', 'interrupted') THEN turns END), 0),
    coalesce(sum(charged), 0), coalesce(sum(cost), 0), coalesce(sum(cost_unknown), 0),
    coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cache_read_tokens), 0),
    coalesce(sum(cache_creation_tokens), 0), coalesce(sum(queued_ms), 0), coalesce(sum(duration_ms), 0)
"""
_CHARGED: dict[Grouping, str] = {
    name: f"SELECT coalesce(sum(charged), 0) FROM spend WHERE {name} = ? AND started_at >= ?"  # noqa: S608 - ours
    for name in ("client", "model", "project", "session_id", "tree_id")
}
_BY: dict[Grouping, str] = {
    name: f"SELECT {name}, {_SUMS} FROM spend WHERE started_at >= ? AND {name} IS NOT NULL "  # noqa: S608 - ours
    f"GROUP BY {name} ORDER BY sum(charged) DESC, sum(turns) DESC LIMIT ?"
    for name in ("client", "model", "project", "session_id", "tree_id")
}


def open_spend(connection: sqlite3.Connection, row: SpendRow) -> None:
    """Write what a turn, or a call of another program, may take."""
    connection.execute(
        """
        INSERT INTO spend (spend_id, session_id, tree_id, client, project, model, upstream, status,
          started_at, turns, charged, cost, cost_unknown, input_tokens, output_tokens, cache_read_tokens,
          cache_creation_tokens, queued_ms, duration_ms)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (spend_id) DO NOTHING
        """,
        [getattr(row, name) for name in _COLUMNS],
    )


def close_spend(connection: sqlite3.Connection, row: SpendRow) -> None:
    """Write what it took in place of what it might have; nothing happens if it was never opened."""
    connection.execute(
        """
        UPDATE spend SET model = coalesce(?, model), status = ?, charged = ?, cost = ?, cost_unknown = ?,
          input_tokens = ?, output_tokens = ?, cache_read_tokens = ?, cache_creation_tokens = ?,
          queued_ms = ?, duration_ms = ?
        WHERE spend_id = ? AND status = 'running'
        """,
        (row.model, row.status, row.charged, row.cost, row.cost_unknown, row.input_tokens, row.output_tokens,
         row.cache_read_tokens, row.cache_creation_tokens, row.queued_ms, row.duration_ms, row.spend_id),
    )  # fmt: skip


def interrupt_spends(connection: sqlite3.Connection) -> None:
    """What a dead daemon left running took as much as was estimated, as far as anybody knows."""
    sql = "UPDATE spend SET status = 'interrupted', cost_unknown = turns WHERE status = 'running'"
    connection.execute(sql)


def forget_session(connection: sqlite3.Connection, session_id: str) -> None:
    """The session was deleted: its rows stay, and say no longer whose they were."""
    connection.execute("UPDATE spend SET session_id = NULL WHERE session_id = ?", (session_id,))


def condense(connection: sqlite3.Connection, before: float) -> int:
    """Join the rows that began before *before* (Unix seconds); return how many there were more than now."""
    sql = "SELECT 1 FROM spend WHERE started_at < ? AND spend_id IS NOT NULL AND status <> 'running' LIMIT 1"
    if connection.execute(sql, (before,)).fetchone() is None:
        return 0  # they are joined already
    was = connection.execute("SELECT count(*) FROM spend WHERE started_at < ?", (before,)).fetchone()[0]
    connection.execute(
        """
        CREATE TEMP TABLE condensed AS
        SELECT session_id, tree_id, client, project, model, upstream, status,
          min(started_at) AS started_at, sum(turns) AS turns, sum(charged) AS charged, sum(cost) AS cost,
          sum(cost_unknown) AS cost_unknown, sum(input_tokens) AS input_tokens,
          sum(output_tokens) AS output_tokens, sum(cache_read_tokens) AS cache_read_tokens,
          sum(cache_creation_tokens) AS cache_creation_tokens, sum(queued_ms) AS queued_ms,
          sum(duration_ms) AS duration_ms
        FROM spend WHERE started_at < ? AND status <> 'running'
        GROUP BY cast(started_at / 86400 AS INTEGER), session_id, tree_id, client, project, model, upstream,
          status
        """,
        (before,),
    )
    connection.execute("DELETE FROM spend WHERE started_at < ? AND status <> 'running'", (before,))
    connection.execute(
        """
        INSERT INTO spend (session_id, tree_id, client, project, model, upstream, status, started_at, turns,
          charged, cost, cost_unknown, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
          queued_ms, duration_ms)
        SELECT * FROM condensed
        """
    )
    connection.execute("DROP TABLE condensed")
    now = connection.execute("SELECT count(*) FROM spend WHERE started_at < ?", (before,)).fetchone()[0]
    fewer: int = was - now
    return fewer


def total(connection: sqlite3.Connection, since: float) -> SpendSums:
    """Return the sums of everything that began at or after *since* (Unix seconds)."""
    found = connection.execute(f"SELECT {_SUMS} FROM spend WHERE started_at >= ?", (since,))  # noqa: S608 - ours
    return SpendSums(*found.fetchone())


def by(
    connection: sqlite3.Connection, group: Grouping, since: float, limit: int
) -> list[tuple[str, SpendSums]]:
    """Return the same told apart by *group*, what cost most first."""
    found = connection.execute(_BY[group], (since, limit))
    return [(values[0], SpendSums(*values[1:])) for values in found]


def charged(connection: sqlite3.Connection, group: Grouping | None, key: str, since: float) -> int:
    """Return what was charged since *since* to those whose *group* is *key*; to all with None."""
    if group is None:
        sql = "SELECT coalesce(sum(charged), 0) FROM spend WHERE started_at >= ?"
        found = connection.execute(sql, (since,))
    else:
        found = connection.execute(_CHARGED[group], (key, since))
    total: int = found.fetchone()[0]
    return total


def started_since(connection: sqlite3.Connection, since: float, limit: int) -> list[float]:
    """Return when the newest *limit* turns since *since* began, oldest first; rates are restored from it.

    A call of another program (`gateway`) is no turn.
    """
    sql = "SELECT started_at FROM spend WHERE started_at >= ? AND upstream <> 'gateway' "
    sql += "ORDER BY started_at DESC LIMIT ?"
    return [at for (at,) in connection.execute(sql, (since, limit))][::-1]
