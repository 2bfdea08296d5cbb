"""Write to a store from several tasks and acknowledge on stdout each write that returned. The test kills it.

    python killed_writer.py DATABASE RUN [--early]

A line for each: ``new S`` (session, its first turn and item 1), ``item S SEQ``, ``close S T``, ``delete S``.
With ``--early`` the store has a bug put in: writes are acknowledged before their commit. Nothing is deleted
then, because that would fail at once.
"""

import asyncio
import os
import random
import sys
import time

from dragomand.store import group_commit
from dragomand.store.rows import ItemRow, SessionRow, TurnRow
from dragomand.store.store import Store

WRITERS = 8


def acknowledge(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def item(session: str, turn: str, seq: int) -> ItemRow:
    body = f"{session}:{seq}:".encode() + b"x" * (seq * 37 % 3000)
    return ItemRow(
        session_id=session,
        turn_id=turn,
        seq=seq,
        item_id=str(seq),
        kind="k",
        created_at=time.time(),
        body=body,
    )


async def write(store: Store, name: str, chance: random.Random, deletes: bool) -> None:
    number = 0
    while True:
        number += 1
        session, turn = f"{name}-{number}", f"{name}-{number}-t1"
        row = TurnRow(turn_id=turn, session_id=session, status="running", started_at=time.time())
        new = SessionRow(session_id=session, created_at=1.0, updated_at=1.0, epoch="e")
        await store.open_turn(row, [item(session, turn, 1)], new)
        acknowledge("new", session)
        last = chance.randint(3, 30)
        for seq in range(2, last):
            await store.append_items([item(session, turn, seq)])
            acknowledge("item", session, seq)
        row.status, row.completed_at, row.output_tokens = "completed", time.time(), 1
        await store.close_turn(row, [item(session, turn, last)])
        acknowledge("item", session, last)
        acknowledge("close", session, turn)
        if deletes and chance.random() < 0.2:
            acknowledge("deleting", session)
            await store.delete_session(session)
            acknowledge("delete", session)


def commit_early(connection: object, jobs: object) -> object:
    """Do what `group_commit.commit` does, with the COMMIT put off to the next batch."""
    if connection.in_transaction:
        connection.execute("COMMIT")
    connection.execute("BEGIN IMMEDIATE")
    return [group_commit._guarded(connection, job) for job in jobs]


async def main(path: str, run: str, *options: str) -> None:
    early = options == ("--early",)
    if early:
        group_commit.commit = commit_early
    store = await Store.open(path, clock=time.time)
    chance = random.Random(run)
    await asyncio.gather(
        *(write(store, f"{run}-{number}", chance, deletes=not early) for number in range(WRITERS))
    )


asyncio.run(main(*sys.argv[1:]))
