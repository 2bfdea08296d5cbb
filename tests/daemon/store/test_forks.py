"""Copies of sessions: what is in them, what is not, and that neither session knows of the other's life."""

import sqlite3
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from dragomand.store.errors import StorageError, UnknownRowError
from dragomand.store.migrate import migrate, read_migrations
from dragomand.store.store import Store


async def two_turns(store: Store, rows: SimpleNamespace) -> None:
    """A session of two ended turns, of two items each; the second cost something."""
    await store.open_turn(rows.turn("t1", "s", message_id="m1"), [rows.item("t1", "s", 1)], rows.session("s"))
    ended = {"status": "completed", "completed_at": 3.0, "cost_usd": 0.5, "input_tokens": 7}
    first = rows.turn("t1", "s", message_id="m1", claude_leaf_id="l1", claude_message_count=2, **ended)
    await store.close_turn(first, [rows.item("t1", "s", 2)])
    await store.open_turn(rows.turn("t2", "s", upstream="u"), [rows.item("t2", "s", 3)])
    second = rows.turn("t2", "s", upstream="u", **{**ended, "status": "failed"})
    await store.close_turn(second, [rows.item("t2", "s", 4)])


def fork(rows: SimpleNamespace, at: str, items: int, turns: int = 1, fork_id: str = "f") -> Any:
    return rows.session(
        fork_id,
        forked_from="s",
        forked_at_turn=at,
        forked_seq=items,
        last_seq=items,
        item_count=items,
        turn_count=turns,
        kept=b"{}",
    )


async def test_the_ends_of_turns(store: Store, rows: SimpleNamespace) -> None:
    await two_turns(store, rows)
    await store.open_turn(rows.turn("t3", "s"), [rows.item("t3", "s", 5)])
    last = await store.fork_point("s")
    assert last is not None
    assert (last.turn_id, last.last_seq, last.turn_count, last.is_end) == ("t2", 4, 2, True)
    assert (last.upstream, last.status) == ("u", "failed")
    assert (last.claude_leaf_id, last.claude_message_count) == ("l1", 2), (
        "of the last one of which it is known"
    )
    first = await store.fork_point("s", "t1")
    assert first is not None
    assert (first.turn_id, first.last_seq, first.turn_count, first.is_end) == ("t1", 2, 1, False)
    assert await store.fork_point("s", "t3") is None, "it runs"
    assert await store.fork_point("s", "other") is None
    assert await store.fork_point("other") is None


async def test_a_fork_reads_whole(store: Store, rows: SimpleNamespace) -> None:
    await two_turns(store, rows)
    forked = await store.fork_session(fork(rows, "t2", 4, 2))
    assert msgspec.structs.replace(forked, kept=None) == await store.session("f")
    items = await store.items("f")
    assert [(item.seq, item.item_id, item.body) for item in items] == [
        (item.seq, item.item_id, item.body) for item in await store.items("s")
    ]
    turns = await store.turns("f")
    assert [turn.origin_turn_id for turn in turns] == ["t1", "t2"]
    assert {turn.turn_id for turn in turns}.isdisjoint({"t1", "t2"})
    assert [item.turn_id for item in items] == [turn.turn_id for turn in turns for _ in range(2)]
    assert [(turn.status, turn.cost_usd, turn.claude_leaf_id) for turn in turns] == [
        ("completed", 0.5, "l1"),
        ("failed", 0.5, None),
    ]
    # A message is answered where it was sent, and what it cost is counted there.
    assert [turn.message_id for turn in turns] == [None, None]
    found = await store.turn_by_message("m1")
    assert found is not None
    assert found.session_id == "s"
    assert (forked.cost_usd, forked.input_tokens) == (None, 0)
    assert await store.kept("f") == b"{}"


async def test_both_go_on_by_themselves(store: Store, rows: SimpleNamespace) -> None:
    await two_turns(store, rows)
    await store.fork_session(fork(rows, "t1", 2))
    await store.open_turn(rows.turn("t3", "f"), [rows.item("t3", "f", 3)])
    await store.open_turn(rows.turn("t4", "s"), [rows.item("t4", "s", 5)])
    assert [item.turn_id for item in await store.items("f")][2:] == ["t3"]
    assert [item.seq for item in await store.items("s")] == [1, 2, 3, 4, 5]
    assert await store.delete_session("s")
    assert len(await store.items("f")) == 3
    assert len(await store.turns("f")) == 2


async def test_a_fork_can_be_forked(store: Store, rows: SimpleNamespace) -> None:
    await two_turns(store, rows)
    await store.fork_session(fork(rows, "t2", 4, 2))
    (first, _) = await store.turns("f")
    again = fork(rows, first.turn_id, 2, fork_id="g")
    again.forked_from = "f"
    await store.fork_session(again)
    assert [turn.origin_turn_id for turn in await store.turns("g")] == [first.turn_id]
    point = await store.fork_point("g")
    assert point is not None
    assert point.claude_leaf_id == "l1"


async def test_what_cannot_be_forked_leaves_nothing(store: Store, rows: SimpleNamespace) -> None:
    await two_turns(store, rows)
    await store.open_turn(rows.turn("t3", "s"), [rows.item("t3", "s", 5)])
    for turn in ("t3", "other"):
        with pytest.raises(UnknownRowError, match=f"has no ended turn {turn}"):
            await store.fork_session(fork(rows, turn, 5))
    with pytest.raises(UnknownRowError):
        await store.fork_session(rows.session("f", forked_from="other", forked_at_turn="t1"))
    with pytest.raises(StorageError, match="has 2 items, where 9 were expected"):
        await store.fork_session(fork(rows, "t1", 9))
    with pytest.raises(StorageError, match="exists already"):
        await store.fork_session(fork(rows, "t1", 2, fork_id="s"))
    assert await store.session("f") is None
    assert await store.counts() | {"bytes": 0} == {"sessions": 1, "turns": 3, "items": 5, "bytes": 0}


async def test_an_older_database_is_brought_along(open_store: Any, path: str, rows: SimpleNamespace) -> None:
    """Its sessions have no agent and are no forks; where their turns ended in Claude Code is not known."""
    older = sqlite3.connect(path, isolation_level=None)
    migrate(older, path, read_migrations()[:1], 1.0)
    older.execute(
        "INSERT INTO session VALUES (1, 's', 1, 1, NULL, NULL, NULL, NULL, 'c', 2, 'e', 1, 1, 1, NULL,"
        " 0, 0, 0, 0, 'completed')"
    )
    older.execute(
        "INSERT INTO turn VALUES (1, 't', 1, 'completed', 1, 2, NULL, NULL, NULL, 0, 0, 0, 0, NULL, NULL,"
        " NULL, 0, 'claude_code', 5)"
    )
    older.execute("INSERT INTO item VALUES (1, 1, 1, 1, 'i', 'k', 1, x'7b7d')")
    older.close()
    store = await open_store()
    session = await store.session("s")
    assert session == rows.session(
        "s",
        claude_session_id="c",
        claude_message_count=2,
        epoch="e",
        last_seq=1,
        turn_count=1,
        item_count=1,
        last_turn_status="completed",
    )
    assert (session.agent, session.forked_from, await store.kept("s")) == (None, None, None)
    (turn,) = await store.turns("s")
    assert (turn.claude_leaf_id, turn.claude_message_count, turn.origin_turn_id) == (None, None, None)
    point = await store.fork_point("s")
    assert point is not None
    assert (point.turn_id, point.claude_leaf_id, point.is_end) == ("t", None, True)
    await store.fork_session(fork(rows, "t", 1))
    assert [item.body for item in await store.items("f")] == [b"{}"]
