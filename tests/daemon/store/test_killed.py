"""Kill the writer with -9 at random instants: all that it acknowledged is there afterwards."""

import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dragomand.store.store import Store

WRITER = Path(__file__).with_name("killed_writer.py")
DEADLINE_S = 60


def write_and_kill(path: str, run: str, life_s: float, *options: str) -> list[list[str]]:
    """Start the writer, kill it `life_s` seconds after its first word, and return all it said."""
    command = [sys.executable, str(WRITER), path, run, *options]
    said = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        pipe, end = writer.stdout.fileno(), time.monotonic() + DEADLINE_S
        while (left := end - time.monotonic()) > 0:
            if not select.select([pipe], [], [], left)[0]:
                break
            data = os.read(pipe, 65536)
            assert data, f"the writer ended by itself: {said!r}"
            if not said:
                end = time.monotonic() + life_s
            said += data
        writer.kill()
        said += writer.stdout.read()
    assert writer.returncode == -signal.SIGKILL
    assert said, "the writer never began"
    # A line that was cut off is no acknowledgement.
    return [line.split() for line in said.decode().splitlines(keepends=True) if line.endswith("\n")]


async def check(path: str, said: list[list[str]]) -> None:
    """Open the database and find every acknowledged row in it, and nothing that does not fit."""
    store = await Store.open(path, clock=time.time)
    try:
        assert store.moved_aside is None
        last_seq: dict[str, int] = {}
        closed = {words[1] for words in said if words[0] == "close"}
        deleting = {words[1] for words in said if words[0] == "deleting"}
        deleted = {words[1] for words in said if words[0] == "delete"}
        for words in said:
            if words[0] in ("new", "item"):
                last_seq[words[1]] = int(words[2]) if words[0] == "item" else 1
        for session_id, seq in last_seq.items():
            row = await store.session(session_id)
            if session_id in deleted:
                assert row is None, f"{session_id} was deleted and is there again"
            if row is None:
                assert session_id in deleting, f"{session_id} is lost"
                continue
            items = await store.items(session_id, limit=1000)
            assert len(items) >= seq, (
                f"items after {len(items)} of {session_id} are lost; {seq} was acknowledged"
            )
            assert [item.seq for item in items] == list(range(1, row.last_seq + 1))
            assert row.item_count == len(items)
            for item in items:
                assert item.body == f"{session_id}:{item.seq}:".encode() + b"x" * (item.seq * 37 % 3000)
            (turn,) = await store.turns(session_id)
            assert turn.status in (("completed",) if session_id in closed else ("completed", "interrupted"))
            assert row.last_turn_status == turn.status
            assert row.output_tokens == turn.output_tokens
            assert (session_id in store.recovered) == (turn.status == "interrupted")
    finally:
        await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


async def cycles(path: str, count: int, seed: int, *options: str) -> int:
    """Kill and check `count` times on one database; return how many writes were acknowledged."""
    chance = random.Random(seed)
    acknowledged = 0
    for number in range(count):
        said = write_and_kill(path, f"r{number}", chance.uniform(0.0, 0.15), *options)
        await check(path, said)
        acknowledged += len(said)
    return acknowledged


async def test_nothing_acknowledged_is_lost(path: str) -> None:
    assert await cycles(path, 5, seed=1) > 5


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_nothing_acknowledged_is_lost_in_200_kills(path: str) -> None:
    assert await cycles(path, 200, seed=2) > 200


async def test_a_store_that_acknowledges_too_early_is_found_out(path: str) -> None:
    """The same check, with a bug put in: it must fail."""
    with pytest.raises(AssertionError, match=r"lost|is there again"):
        await cycles(path, 10, 3, "--early")
