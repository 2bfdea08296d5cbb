"""What was spent outlives sessions, daemons and the rows themselves."""

import pytest
from dragomand.store.rows import SessionRow, SpendRow, TurnRow
from dragomand.store.store import Store

DAY = 86_400.0


def spend(spend_id: str | None, **given: object) -> SpendRow:
    facts = {"client": "nvim", "upstream": "claude_code", "started_at": 100.0, "charged": 50_000} | given
    return SpendRow(spend_id=spend_id, **facts)  # type: ignore[arg-type]  # a test's shorthand


def ended(row: SpendRow, cost: int | None, status: str = "completed") -> SpendRow:
    row.status = status  # type: ignore[assignment]  # as above
    row.cost = cost
    row.cost_unknown = int(cost is None)
    row.charged = row.charged if cost is None else cost
    return row


async def opened(tmp_path, now: float = 1000.0) -> Store:  # type: ignore[no-untyped-def]
    return await Store.open(str(tmp_path / "db"), clock=lambda: now)


async def turn(store: Store, session_id: str, row: SpendRow, *, new: bool = True) -> TurnRow:
    opened = TurnRow(
        turn_id=row.spend_id or "", session_id=session_id, status="running", started_at=row.started_at
    )
    session = SessionRow(session_id=session_id, created_at=1.0, updated_at=1.0, epoch="e")
    await store.open_turn(opened, [], session if new else None, row)
    return opened


async def test_a_turn_counts_with_its_estimate_and_then_with_its_cost(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = await opened(tmp_path)
    row = spend("t1", session_id="s1", project="/p", model="opus")
    opened_turn = await turn(store, "s1", row)
    running = await store.spent()
    assert (running.turns, running.completed, running.charged, running.cost) == (1, 0, 50_000, 0)

    opened_turn.status = "completed"
    row.input_tokens, row.duration_ms = 7, 30
    await store.close_turn(opened_turn, [], ended(row, 1_234))
    over = await store.spent()
    assert (over.completed, over.charged, over.cost, over.cost_unknown) == (1, 1_234, 1_234, 0)
    assert (over.input_tokens, over.duration_ms) == (7, 30)
    await store.close()


async def test_what_a_killed_daemon_left_counts_with_its_estimate(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = await opened(tmp_path)
    await turn(store, "s1", spend("t1", session_id="s1"))
    await store.open_spend(spend("call1"))
    await store.close()

    again = await opened(tmp_path)
    sums = await again.spent()
    assert (sums.stopped, sums.charged, sums.cost, sums.cost_unknown) == (2, 100_000, 0, 2)
    await again.close_spend(ended(spend("call1"), 1))  # its end comes too late: nothing runs any more
    assert (await again.spent()).charged == 100_000
    await again.close()


async def test_deleting_a_session_gives_nothing_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = await opened(tmp_path)
    await turn(store, "s1", spend("t1", session_id="s1"))
    assert await store.spent_by("session_id") != []
    assert await store.delete_session("s1")
    assert (await store.spent()).charged == 50_000
    assert await store.spent_by("session_id") == []
    await store.close()


@pytest.mark.parametrize("group", ["client", "model", "project", "tree_id"])
async def test_sums_by_what_cost_most(tmp_path, group: str) -> None:  # type: ignore[no-untyped-def]
    store = await opened(tmp_path)
    for spend_id, name, charged in (("1", "a", 5), ("2", "b", 70), ("3", "a", 20), ("4", "c", 1)):
        fields: dict[str, object] = {"client": "x", group: name, "charged": charged}
        await store.open_spend(spend(spend_id, **fields))
    found = await store.spent_by(group, limit=2)  # type: ignore[arg-type]  # one of the four
    assert [(name, sums.turns, sums.charged) for name, sums in found] == [("b", 1, 70), ("a", 2, 25)]
    await store.close()


async def test_since(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = await opened(tmp_path)
    for at in (10.0, 20.0, 30.0):
        await store.open_spend(spend(str(at), started_at=at))
    await store.open_spend(spend(None, started_at=25.0, upstream="gateway", status="completed"))
    assert (await store.spent(20.0)).turns == 3
    assert await store.turns_started(20.0) == [20.0, 30.0], "a program's call is no turn"
    assert await store.turns_started(0.0, limit=1) == [30.0]
    assert [sums.turns for _, sums in await store.spent_by("client", since=30.0)] == [1]
    await store.close()


async def test_old_rows_are_joined_and_nothing_is_lost(tmp_path) -> None:  # type: ignore[no-untyped-def]
    store = await opened(tmp_path)
    for number in range(6):
        at = DAY * (number % 2) + number
        row = spend(str(number), started_at=at, session_id="s", model="opus", client="ab"[number % 2])
        await store.open_spend(row)
        await store.close_spend(ended(row, None if number == 4 else number))
    await store.open_spend(spend("runs"))
    before = await store.spent(), await store.spent_by("client"), await store.spent_by("session_id")
    assert await store.condense_spending(2 * DAY) == 4
    assert (await store.spent(), await store.spent_by("client"), await store.spent_by("session_id")) == before
    assert await store.condense_spending(2 * DAY) == 0
    assert len(await store.turns_started(0.0)) == 3
    await store.close()
