import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from dragomand.store import transcripts
from dragomand.store.errors import DuplicateMessageError, StorageError, UnknownRowError
from dragomand.store.store import Store


async def test_a_turn_from_its_opening_to_its_end(store: Store, rows: SimpleNamespace) -> None:
    session = rows.session(
        "s", cwd="/w", title="Hello", model="opus", owner="vim", claude_session_id="c", tags=("b", "a", "b")
    )
    turn = rows.turn("t", "s", message_id="m", request_digest="d", queued_ms=7, upstream="claude_code")
    await store.open_turn(turn, [rows.item("t", "s", 1, kind="userMessage")], session)
    running = await store.session("s")
    assert running is not None
    assert (running.last_turn_status, running.turn_count, running.item_count, running.last_seq) == (
        "running",
        1,
        1,
        1,
    )
    assert await store.turns("s") == [turn]

    await store.append_items([rows.item("t", "s", 2, created_at=3.0), rows.item("t", "s", 3, created_at=4.0)])
    turn.status = "completed"
    turn.completed_at, turn.duration_ms, turn.stop_reason, turn.model = 9.0, 7000, "end_turn", "opus"
    turn.input_tokens, turn.output_tokens, turn.cache_read_tokens, turn.cache_creation_tokens = 1, 2, 3, 4
    turn.cost_usd, turn.error = 0.25, b'{"kind":"x"}'
    await store.close_turn(turn, [rows.item("t", "s", 4)])

    session.updated_at, session.last_turn_status, session.cost_usd = 9.0, "completed", 0.25
    session.last_seq = session.item_count = 4
    session.turn_count = 1
    session.input_tokens, session.output_tokens = 1, 2
    session.cache_read_tokens, session.cache_creation_tokens = 3, 4
    assert await store.session("s") == session
    assert await store.turns("s") == [turn]
    assert await store.turn_by_message("m") == turn
    items = await store.items("s")
    assert [item.seq for item in items] == [1, 2, 3, 4]
    assert items[2] == rows.item("t", "s", 3, created_at=4.0)
    assert await store.turn_items("t") == items


async def test_what_does_not_exist(store: Store) -> None:
    assert await store.session("s") is None
    assert await store.turns("s") == []
    assert await store.items("s") == []
    assert await store.turn_items("t") == []
    assert await store.turn_by_message("m") is None
    assert await store.runs("s") == []
    assert await store.get_state("k") is None
    assert await store.delete_session("s") is False


async def test_rows_are_copied_at_the_call(store: Store, rows: SimpleNamespace) -> None:
    turn, item, session = rows.turn("t", "s"), rows.item("t", "s", 1), rows.session("s")

    def change() -> None:
        turn.model, item.body, session.title = "changed", b"changed", "changed"

    writing = asyncio.create_task(store.open_turn(turn, [item], session))
    asyncio.get_running_loop().call_soon(change)  # after the call, before the store's task sees it
    await writing
    assert turn.model == "changed"
    assert (await store.turns("s"))[0].model is None
    assert (await store.items("s"))[0].body == b'{"text":"1"}'
    found = await store.session("s")
    assert found is not None
    assert found.title is None


async def test_a_message_is_taken_once_in_all_sessions(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t1", "s1", message_id="m"), [], rows.session("s1"))
    with pytest.raises(DuplicateMessageError) as again:
        await store.open_turn(rows.turn("t2", "s2", message_id="m"), [], rows.session("s2"))
    assert again.value.turn_id == "t1"
    assert await store.session("s2") is None
    assert await store.delete_session("s1") is True
    await store.open_turn(rows.turn("t2", "s2", message_id="m"), [], rows.session("s2"))
    found = await store.turn_by_message("m")
    assert found is not None
    assert found.turn_id == "t2"


async def test_items_must_continue_the_sequence(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 1)], rows.session("s"))
    for wrong in (1, 3, 0):
        with pytest.raises(StorageError, match=f"session s expects item 2 next, not {wrong}"):
            await store.append_items([rows.item("t", "s", wrong)])
    with pytest.raises(StorageError, match="expects item 3 next, not 4"):
        await store.append_items([rows.item("t", "s", 2), rows.item("t", "s", 4)])
    with pytest.raises(StorageError, match="expects item 2 next, not 5"):
        await store.close_turn(rows.turn("t", "s", status="completed"), [rows.item("t", "s", 5)])
    assert len(await store.items("s")) == 1
    assert (await store.turns("s"))[0].status == "running"
    await store.append_items([rows.item("t", "s", 2)])
    await store.append_items([])
    found = await store.session("s")
    assert found is not None
    assert (found.last_seq, found.item_count) == (2, 2)


async def test_a_write_for_something_unknown_is_refused(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    await store.open_turn(rows.turn("t2", "s2"), [], rows.session("s2"))
    unknown: list[tuple[Any, str]] = [
        (lambda: store.open_turn(rows.turn("u", "none"), []), "no session none"),
        (lambda: store.append_items([rows.item("t", "none", 1)]), "no session none"),
        (lambda: store.append_items([rows.item("t2", "s", 1)]), "no turn t2"),
        (lambda: store.close_turn(rows.turn("t2", "s", status="failed"), []), "no running turn t2"),
        (lambda: store.close_turn(rows.turn("t2", "none", status="failed"), []), "no session none"),
        (lambda: store.update_session("none", title="x"), "no session none"),
        (lambda: store.record_run(rows.run("r", "none")), "no session none"),
    ]
    for call, text in unknown:
        with pytest.raises(UnknownRowError, match=text):
            await call()
    assert (await store.counts())["turns"] == 2


async def test_ids_are_unique(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    with pytest.raises(StorageError, match="session s exists already"):
        await store.open_turn(rows.turn("u", "s"), [], rows.session("s"))
    with pytest.raises(StorageError, match=r"turn\.turn_id"):
        await store.open_turn(rows.turn("t", "s"), [])
    assert [turn.turn_id for turn in await store.turns("s")] == ["t"]


async def test_a_turn_is_closed_once(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    done = rows.turn("t", "s", status="completed", input_tokens=5, cost_usd=1.0)
    await store.close_turn(done, [])
    with pytest.raises(UnknownRowError, match="no running turn t"):
        await store.close_turn(done, [])
    found = await store.session("s")
    assert found is not None
    assert (found.input_tokens, found.cost_usd) == (5, 1.0)


async def test_items_of_two_sessions_are_two_writes(store: Store, rows: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="one session"):
        await store.append_items([rows.item("t", "a", 1), rows.item("t", "b", 1)])


async def test_update_changes_what_is_given_and_nothing_else(store: Store, rows: SimpleNamespace) -> None:
    session = rows.session("s", title="old", model="m", tags=("x",), claude_session_id="c")
    await store.open_turn(rows.turn("t", "s"), [], session)
    before = await store.session("s")
    assert before is not None
    await store.update_session("s")
    assert await store.session("s") == before
    await store.update_session("s", title=None, tags=["y", "z"])
    before.title, before.tags = None, ("y", "z")
    assert await store.session("s") == before
    await store.update_session("s", model="n", claude_session_id="d", title="new", tags=(), updated_at=77.0)
    before.model, before.claude_session_id, before.title, before.tags = "n", "d", "new", ()
    await store.update_session("s", claude_message_count=12)
    before.claude_message_count = 12
    before.updated_at = 77.0
    assert await store.session("s") == before


async def test_runs_are_inserted_and_replaced(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    first = rows.run("r1", "s", claude_session_id="c", claude_version="2.1")
    await store.record_run(first)
    await store.record_run(rows.run("r2", "s", started_at=6.0))
    first.ended_at, first.cost_total_usd = 8.0, 0.5
    await store.record_run(first)
    assert await store.runs("s") == [first, rows.run("r2", "s", started_at=6.0)]
    assert await store.runs("s", limit=1) == [rows.run("r2", "s", started_at=6.0)]


async def test_state_is_kept_by_key(store: Store) -> None:
    await store.set_state("a", b"1")
    await store.set_state("b", b"\x00\xff")
    await store.set_state("a", b"")
    assert await store.get_state("a") == b""
    assert await store.get_state("b") == b"\x00\xff"


async def test_counts(store: Store, rows: SimpleNamespace, path: str) -> None:
    assert {**await store.counts(), "bytes": 0} == {"sessions": 0, "turns": 0, "items": 0, "bytes": 0}
    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 1)], rows.session("s"))
    await store.open_turn(rows.turn("u", "s"), [rows.item("u", "s", 2)])
    await store.open_turn(rows.turn("v", "r"), [], rows.session("r"))
    counts = await store.counts()
    assert counts == {
        "sessions": 2,
        "turns": 3,
        "items": 2,
        "bytes": os.stat(path).st_size + os.stat(path + "-wal").st_size,
    }
    await store.delete_session("s")
    assert {**await store.counts(), "bytes": 0} == {"sessions": 1, "turns": 1, "items": 0, "bytes": 0}


@pytest.mark.parametrize("bad", [0, -1])
async def test_a_limit_below_one_is_refused(store: Store, bad: int) -> None:
    for call in (store.turns, store.items, store.runs):
        with pytest.raises(ValueError, match="limit is"):
            await call("s", limit=bad)
    with pytest.raises(ValueError, match="limit is"):
        await store.sessions(limit=bad, cursor=None)


async def test_pages_of_items_and_turns(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(
        rows.turn("t1", "s"), [rows.item("t1", "s", seq) for seq in range(1, 6)], rows.session("s")
    )
    for number in range(2, 5):
        await store.open_turn(rows.turn(f"t{number}", "s"), [])
    assert [item.seq for item in await store.items("s", limit=2)] == [1, 2]
    assert [item.seq for item in await store.items("s", after_seq=2, limit=2)] == [3, 4]
    assert [item.seq for item in await store.items("s", after_seq=4, limit=2)] == [5]
    assert await store.items("s", after_seq=5) == []
    assert [turn.turn_id for turn in await store.turns("s", limit=2)] == ["t3", "t4"]


async def test_no_read_is_longer_than_a_page(
    store: Store, rows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragomand.store.sessions.MAX_PAGE", 3)
    await store.open_turn(
        rows.turn("t", "s"), [rows.item("t", "s", seq) for seq in range(1, 9)], rows.session("s")
    )
    assert len(await store.items("s", limit=200)) == 3


async def test_everything_is_there_after_reopening(open_store: Any, rows: SimpleNamespace) -> None:
    store = await open_store()
    await store.open_turn(
        rows.turn("t", "s", message_id="m"), [rows.item("t", "s", 1)], rows.session("s", tags=("a",))
    )
    await store.close_turn(rows.turn("t", "s", status="completed", message_id="m", cost_usd=0.1), [])
    await store.record_run(rows.run("r", "s"))
    await store.set_state("k", b"v")

    async def everything(store: Store) -> list[Any]:
        return [
            await store.session("s"),
            await store.turns("s"),
            await store.items("s"),
            await store.runs("s"),
            await store.get_state("k"),
        ]

    before = await everything(store)
    store = await open_store()
    assert await everything(store) == before
    assert store.recovered == []
    assert store.moved_aside is None


async def test_turns_left_running_are_interrupted_at_open(open_store: Any, rows: SimpleNamespace) -> None:
    store = await open_store()
    await store.open_turn(rows.turn("t1", "s"), [], rows.session("s"))
    await store.close_turn(rows.turn("t1", "s", status="completed", cost_usd=1.0), [])
    left = rows.turn("t2", "s", message_id="m", output_tokens=3, cost_usd=0.5)
    await store.open_turn(left, [rows.item("t2", "s", 1)])
    await store.open_turn(rows.turn("t3", "s"), [])
    await store.open_turn(rows.turn("u", "r"), [], rows.session("r"))
    await store.close_turn(rows.turn("u", "r", status="failed"), [])

    store = await open_store()
    assert store.recovered == ["s"]
    found = await store.session("s")
    assert found is not None
    assert (found.last_turn_status, found.last_seq, found.cost_usd, found.output_tokens) == (
        "interrupted",
        1,
        1.5,
        3,
    )
    assert found.epoch not in ("", "e1")
    left.status = "interrupted"
    assert (await store.turns("s"))[1] == left
    assert [turn.status for turn in await store.turns("s")] == ["completed", "interrupted", "interrupted"]
    untouched = await store.session("r")
    assert untouched is not None
    assert (untouched.epoch, untouched.last_turn_status) == ("e1", "failed")
    await store.append_items([rows.item("t2", "s", 2)])

    store = await open_store()
    assert store.recovered == []
    again = await store.session("s")
    assert again is not None
    assert again.epoch == found.epoch


async def test_a_closed_store_refuses(store: Store, rows: SimpleNamespace) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StorageError, match="closed"):
        await store.session("s")
    with pytest.raises(StorageError, match="closed"):
        await store.set_state("k", b"v")


def test_the_store_is_light_to_import() -> None:
    code = "import sys, json, dragomand.store.store; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    loaded = set(json.loads(done.stdout))
    assert "aiosqlite" in loaded
    assert not loaded & {
        "anyio",
        "aiohttp",
        "pydantic",
        "dragoman_protocol",
        "dragomand.engine",
        "importlib.resources",
    }


FULL_AT_START = """
import asyncio, os, signal, sys
from dragomand.store.errors import StorageFullError
from dragomand.store.rows import ItemRow, SessionRow, TurnRow
from dragomand.store.store import Store

path = os.path.join(sys.argv[1], "dragoman.db")
ballast = os.path.join(sys.argv[1], "ballast")

def turn(turn_id):
    return TurnRow(turn_id=turn_id, session_id="s", status="running", started_at=1.0)

async def begin():
    store = await Store.open(path, clock=lambda: 1.0)
    session = SessionRow(session_id="s", created_at=1.0, updated_at=1.0, epoch="e")
    await store.open_turn(turn("cut off"), [], session)
    os.kill(os.getpid(), signal.SIGKILL)

async def go_on():
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)): pass
        except OSError: pass
    store = await Store.open(path, clock=lambda: 1.0)
    assert (store.recovered, store.recovery_due) == ([], True)
    assert [each.status for each in await store.turns("s")] == ["running"]
    try:
        await store.open_turn(turn("later"), [])
    except StorageFullError: pass
    else: raise AssertionError("there was room")
    os.unlink(ballast)
    await asyncio.gather(*(store.open_turn(turn(name), []) for name in ("a", "b", "c")))
    assert not store.recovery_due
    statuses = [(each.turn_id, each.status) for each in await store.turns("s")]
    assert statuses == [("cut off", "interrupted"), ("a", "running"), ("b", "running"), ("c", "running")]
    await store.close()
    print("marked")

if not os.path.exists(path):
    if not os.fork():
        asyncio.run(begin())
    assert os.wait()[1] == signal.SIGKILL
asyncio.run(go_on())
"""


def test_a_disk_that_is_full_at_the_start_can_be_read(on_a_small_disk: Any) -> None:
    done = on_a_small_disk(FULL_AT_START)
    assert (done.stdout.strip(), done.stderr) == ("marked", "")


async def test_what_else_fails_at_the_start_is_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("broken")

    monkeypatch.setattr(transcripts, "interrupt_running", fail)
    with pytest.raises(StorageError, match="broken"):
        await Store.open(path, clock=lambda: 1.0)
