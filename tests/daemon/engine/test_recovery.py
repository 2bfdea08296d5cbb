"""A daemon is killed in the middle of turns; what the next one makes of it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from dragomand.engine.recovery import complete_interrupted
from dragomand.store.errors import StorageFullError
from dragomand.store.rows import SessionRow, TurnRow
from dragomand.store.store import Store

DAEMON = """
import asyncio, os, signal, sys
from dragoman_protocol.stream import AssistantText, TurnStarted, UserMessage
from dragomand.engine.records import to_row
from dragomand.store.rows import SessionRow, TurnRow
from dragomand.store.store import Store

async def main():
    store = await Store.open(sys.argv[1], clock=lambda: 5.0)
    for name in sys.argv[2:]:
        session = SessionRow(session_id=name, created_at=1, updated_at=1, cwd="/", epoch="first")
        turn = TurnRow(turn_id=f"{name}-1", session_id=name, status="running", started_at=1)
        events = [TurnStarted(turn_id=turn.turn_id), UserMessage(item_id="u", content="hi")]
        rows = [to_row(event, session_id=name, turn_id=turn.turn_id, seq=seq, created_at=1)
                for seq, event in enumerate(events, 1)]
        await store.open_turn(turn, rows, session)
        event = AssistantText(item_id="a", text="half")
        await store.append_items([to_row(event, session_id=name, turn_id=turn.turn_id, seq=3, created_at=1)])
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def killed(path: Path, *sessions: str) -> None:
    """A process that has opened a turn in each of *sessions* is killed."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", DAEMON, str(path), *sessions)
    assert await asyncio.wait_for(process.wait(), 30) == -9


async def test_a_turn_that_was_running_gets_its_terminal_event(tmp_path: Path) -> None:
    await killed(tmp_path / "db", "s", "other")
    store = await Store.open(str(tmp_path / "db"), clock=lambda: 50.0)
    assert sorted(store.recovered) == ["other", "s"]
    assert await complete_interrupted(store, lambda: 50.0) == 2
    for name in ("s", "other"):
        rows = await store.items(name)
        assert [(row.seq, row.kind) for row in rows] == [
            (1, "turn_started"),
            (2, "user_message"),
            (3, "assistant_text"),
            (4, "turn_completed"),
        ]
        assert (
            rows[-1].body
            == b'{"turn_id":"%s-1","status":"interrupted","stop_reason":null,"error":null}' % name.encode()
        )
        session = await store.session(name)
        assert session is not None
        assert (session.last_turn_status, session.last_seq) == ("interrupted", 4)
        assert session.epoch != "first"
    await store.close()
    again = await Store.open(str(tmp_path / "db"), clock=lambda: 60.0)
    assert await complete_interrupted(again, lambda: 60.0) == 0
    assert len(await again.items("s")) == 4
    await again.close()


async def test_its_session_is_attached_to_anew_and_continued(kit: Any) -> None:
    await killed(kit.folder / "store.db", "s")
    async with kit.engine() as engine:
        await complete_interrupted(engine.store, lambda: 9.0)
        seen: list[int] = []
        attached = await engine.attachments.attach(
            "s", "first:3", "c", lambda event: seen.append(event.params.seq) or True, lambda _cursor: None
        )
        assert (attached.status, attached.reason, attached.turn_id) == ("resync", "epoch_reset", None)
        assert seen == [1, 2, 3, 4]
        assert (await engine.sessions.get("s")).session.state == "interrupted"
        (session,) = (await engine.store.sessions(limit=1, cursor=None))[0]
        assert session.session_id == "s"


@pytest.mark.parametrize("gone", ["session", "turns"])
async def test_what_has_vanished_is_passed_over(tmp_path: Path, gone: str) -> None:
    await killed(tmp_path / "db", "s", "other")
    store = await Store.open(str(tmp_path / "db"), clock=lambda: 50.0)
    if gone == "session":
        await store.delete_session("s")
    else:
        await store.delete_session("s")
        row = SessionRow(session_id="s", created_at=1, updated_at=1, epoch="e")
        turn = TurnRow(turn_id="x", session_id="s", status="completed", started_at=1)
        await store.open_turn(turn, [], row)
        whole = store.turns

        async def none(session_id: str, *, limit: int = 200) -> Any:
            return [] if session_id == "s" else await whole(session_id, limit=limit)

        store.turns = none  # type: ignore[method-assign]
    await complete_interrupted(store, lambda: 50.0)
    assert len(await store.items("other")) == 4
    assert len(await store.items("s")) == 0
    await store.close()


async def test_a_full_disk_does_not_keep_the_daemon_from_starting(tmp_path: Path) -> None:
    await killed(tmp_path / "db", "s")
    store = await Store.open(str(tmp_path / "db"), clock=lambda: 50.0)

    async def full(_rows: Any) -> None:
        raise StorageFullError("/db", "no space")

    store.append_items = full  # type: ignore[method-assign]
    assert await complete_interrupted(store, lambda: 50.0) == 1
    session = await store.session("s")
    assert session is not None
    assert session.last_turn_status == "interrupted"
    await store.close()
