import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dragomand.store.rows import ItemRow, ProcessRunRow, SessionRow, TurnRow
from dragomand.store.store import Store

OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "dragoman.db")


@pytest.fixture
async def open_store(path: str) -> AsyncIterator[OpenStore]:
    """Open the test's database; every store that was opened is closed at the end."""
    opened: list[Store] = []

    async def open_one() -> Store:
        for before in opened:
            await before.close()
        opened.append(await Store.open(path, clock=lambda: 1000.0))
        return opened[-1]

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """SQLite's own view of the stores that are opened after this: `connections` and traced `statements`.

    The connections may be used from the test while the store is idle.
    """
    seen = SimpleNamespace(connections=[], statements=[])
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*args, **options, check_same_thread=False)
        connection.set_trace_callback(seen.statements.append)
        seen.connections.append(connection)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return seen


@pytest.fixture
def rows() -> SimpleNamespace:
    """Short ways to make rows: `session("s")`, `turn("t", "s")`, `item("t", "s", 1)`, `run("r", "s")`."""

    def session(session_id: str, **given: Any) -> SessionRow:
        values: dict[str, Any] = {"created_at": 1.0, "updated_at": 1.0, "epoch": "e1"}
        return SessionRow(session_id=session_id, **{**values, **given})

    def turn(turn_id: str, session_id: str, **given: Any) -> TurnRow:
        values: dict[str, Any] = {"status": "running", "started_at": 2.0}
        return TurnRow(turn_id=turn_id, session_id=session_id, **{**values, **given})

    def item(turn_id: str, session_id: str, seq: int, **given: Any) -> ItemRow:
        values: dict[str, Any] = {
            "item_id": f"{session_id}-{seq}",
            "kind": "assistantText",
            "created_at": 2.0,
            "body": b'{"text":"%d"}' % seq,
        }
        return ItemRow(turn_id=turn_id, session_id=session_id, seq=seq, **{**values, **given})

    def run(run_id: str, session_id: str, **given: Any) -> ProcessRunRow:
        return ProcessRunRow(run_id=run_id, session_id=session_id, **{"started_at": 5.0, **given})

    return SimpleNamespace(session=session, turn=turn, item=item, run=run)


SMALL_DISK = 'mount -t tmpfs -o size=8m none "$1" || exit 77; exec "$2" -c "$3" "$1"'


@pytest.fixture
def on_a_small_disk(tmp_path: Path) -> Callable[[str], "subprocess.CompletedProcess[str]"]:
    """Run a program with the path of a file system of 8 MiB, in a mount namespace of the test's own."""

    def run(program: str) -> "subprocess.CompletedProcess[str]":
        if shutil.which("unshare") is None:
            pytest.skip("there is no unshare here, so no small file system can be mounted")
        command = ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", str(tmp_path), sys.executable, program]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
        if done.returncode == 77 or done.stderr.startswith("unshare:"):
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return done

    return run
