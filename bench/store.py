"""What a stored row costs: the store's group commit, against aiosqlite row by row and bare sqlite3.

All write the same items (600 bytes each) to the same kind of file: write-ahead log, `synchronous=FULL`, the
store's own schema. They take turns, so that whatever else the machine does strikes all alike. Compare the
ratios; absolute figures are the machine's and its disk's.

    store           one item a call, 256 callers at the same time: what the daemon does
    store, lists    32 items a call, 256 callers
    aiosqlite       one INSERT and one commit after the other, as aiosqlite is commonly used
    sqlite3         the same rows in batches of 256, one `executemany` and one commit each (the floor)

    python bench/store.py            a table
    python bench/store.py --json     one JSON object
"""

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable

import aiosqlite
from dragomand.store.rows import ItemRow, SessionRow, TurnRow
from dragomand.store.store import Store

CALLERS = 256
BATCH = 256
BODY = b'{"text":"' + b"x" * 590 + b'"}'
SETTINGS = ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")
INSERT = """
    INSERT INTO item (session_key, turn_key, seq, item_id, kind, created_at, body)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def item(session: str, seq: int) -> ItemRow:
    """Make one item of the only turn of `session`."""
    return ItemRow(
        session_id=session,
        turn_id=session,
        seq=seq,
        item_id=f"{session}-{seq}",
        kind="assistantText",
        created_at=1.0,
        body=BODY,
    )


async def filled(path: str) -> Store:
    """Open a store with a session and a running turn for each caller."""
    store = await Store.open(path, clock=time.time)
    for number in range(CALLERS):
        session = SessionRow(session_id=f"s{number}", created_at=1.0, updated_at=1.0, epoch="e")
        turn = TurnRow(turn_id=f"s{number}", session_id=f"s{number}", status="running", started_at=1.0)
        await store.open_turn(turn, [], session)
    return store


async def through_store(path: str, rows: int, at_once: int = 1) -> float:
    """Return the seconds that `rows` rows take, `at_once` a call."""
    store = await filled(path)

    async def call(session: str) -> None:
        for first in range(1, rows // CALLERS + 1, at_once):
            await store.append_items([item(session, seq) for seq in range(first, first + at_once)])

    begin = time.perf_counter()
    await asyncio.gather(*(call(f"s{number}") for number in range(CALLERS)))
    taken = time.perf_counter() - begin
    await store.close()
    return taken


async def in_lists(path: str, rows: int) -> float:
    """Return the seconds that `rows` rows take in calls of 32."""
    return await through_store(path, rows, at_once=32)


def values(number: int) -> tuple[object, ...]:
    """Return the columns of row `number`, spread over the sessions."""
    key = number % CALLERS + 1
    return (key, key, number // CALLERS + 1, f"s{key}-{number}", "assistantText", 1.0, BODY)


async def row_by_row(path: str, rows: int) -> float:
    """Return the seconds that `rows` rows take through aiosqlite, each with its commit."""
    await (await filled(path)).close()
    async with aiosqlite.connect(path) as db:
        for setting in SETTINGS:
            await (await db.execute(f"PRAGMA {setting}")).close()
        begin = time.perf_counter()
        for number in range(rows):
            await (await db.execute(INSERT, values(number))).close()
            await db.commit()
        return time.perf_counter() - begin


async def bare(path: str, rows: int) -> float:
    """Return the seconds that `rows` rows take with sqlite3 itself, in batches."""
    await (await filled(path)).close()
    db = sqlite3.connect(path, isolation_level=None)
    for setting in SETTINGS:
        db.execute(f"PRAGMA {setting}").close()
    begin = time.perf_counter()
    for first in range(0, rows, BATCH):
        db.execute("BEGIN")
        db.executemany(INSERT, [values(number) for number in range(first, min(first + BATCH, rows))])
        db.execute("COMMIT")
    taken = time.perf_counter() - begin
    db.close()
    return taken


WAYS: dict[str, tuple[Callable[[str, int], Awaitable[float]], float]] = {
    "store": (through_store, 1.0),
    "store, lists": (in_lists, 2.0),
    "aiosqlite": (row_by_row, 0.1),
    "sqlite3": (bare, 2.0),
}
"""Each way, and how many rows it gets: more for the faster, so that all are measured for a similar time."""


async def opening(folder: str) -> dict[str, float]:
    """Return how many milliseconds a fresh and an existing database take to open."""
    path = os.path.join(folder, "opened.db")
    found = {}
    for name in ("fresh", "existing"):
        begin = time.perf_counter()
        store = await Store.open(path, clock=time.time)
        found[name] = (time.perf_counter() - begin) * 1000
        await store.close()
    return found


def measure(rounds: int, rows: int) -> dict[str, dict[str, float]]:
    """Return rows per second (median over `rounds`) by way, and the times of opening."""
    per_second: dict[str, list[float]] = {name: [] for name in WAYS}
    opened: dict[str, list[float]] = {"fresh": [], "existing": []}
    for _ in range(rounds):
        for name, (way, share) in WAYS.items():
            with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder:
                step = CALLERS * 32
                count = max(step, int(rows * share) // step * step) if share >= 1 else int(rows * share)
                taken = asyncio.run(_run(way, os.path.join(folder, "bench.db"), count))
                per_second[name].append(count / taken)
        with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder:
            for name, milliseconds in asyncio.run(opening(folder)).items():
                opened[name].append(milliseconds)
    return {
        "rows_per_s": {name: round(statistics.median(found)) for name, found in per_second.items()},
        "open_ms": {name: round(statistics.median(found), 2) for name, found in opened.items()},
    }


async def _run(way: Callable[[str, int], Awaitable[float]], path: str, rows: int) -> float:
    return await way(path, rows)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16384, help="rows through the store in each round")
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.rows)
    speed = found["rows_per_s"]
    ratios = {name: round(speed["store"] / speed[name], 3) for name in ("aiosqlite", "sqlite3")}
    ratios["lists / sqlite3"] = round(speed["store, lists"] / speed["sqlite3"], 3)
    if arguments.json:
        print(json.dumps({**found, "ratios": ratios}))
        return 0
    for name, rows in speed.items():
        print(f"{name:14} {rows:10,.0f} rows/s")
    print(f"\nstore: {ratios['aiosqlite']} × aiosqlite row by row, {ratios['sqlite3']} × bare sqlite3")
    print(f"store, lists of 32: {ratios['lists / sqlite3']} × bare sqlite3 in batches")
    print(f"open: {found['open_ms']['fresh']} ms fresh, {found['open_ms']['existing']} ms existing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
