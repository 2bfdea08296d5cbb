"""What was done and what it took, from the rows of spending (03.17, 03.18)."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dragomand.engine.caller import Caller
from dragomand.engine.statistics import Statistics
from dragomand.store.rows import SpendRow
from dragomand.store.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(str(tmp_path / "db"), clock=lambda: 1.0)
    for number, status, cost in ((1, "completed", 300_000), (2, "failed", None), (3, "cancelled", 100_000)):
        row = SpendRow(
            spend_id=str(number), client="nvim" if number < 3 else "job", project="/p", model="opus",
            upstream="claude_code", started_at=float(number * 100), charged=0,
        )  # fmt: skip
        await store.open_spend(row)
        row.status, row.cost, row.cost_unknown = status, cost, int(cost is None)  # type: ignore[assignment]
        row.duration_ms, row.queued_ms, row.input_tokens = 1_000 * number, 10, 7
        await store.close_spend(row)
    running = SpendRow(spend_id="4", client="nvim", upstream="messages_api", started_at=400.0, charged=9)
    await store.open_spend(running)
    yield store
    await store.close()


def caller(*scopes: str) -> Caller:
    return Caller(id="c", name="nvim", scopes=frozenset(("query", *scopes)))


async def test_sums_and_means(store: Store) -> None:
    found = await Statistics(store, lambda: 500.0).get(caller("admin"), None)
    total = found.total
    assert (total.turns, total.succeeded, total.failed, total.cancelled) == (4, 1, 1, 1)
    assert (total.cost_usd, total.cost_unknown, total.usage.input_tokens) == (0.4, 1, 21)
    assert (total.duration_ms, total.average_duration_ms, total.queued_ms) == (6_000, 2_000, 30)
    assert total.average_cost_usd == pytest.approx(0.4 / 3)
    assert [(each.name, each.turns) for each in found.clients] == [("nvim", 3), ("job", 1)]
    assert [(each.name, each.turns) for each in found.models] == [("opus", 3)]
    assert [(each.name, each.turns) for each in found.projects] == [("/p", 3)]
    assert found.since is None


async def test_of_others_only_with_a_scope(store: Store) -> None:
    found = await Statistics(store, lambda: 500.0).get(caller(), None)
    assert found.total.turns == 4
    assert [each.name for each in found.clients] == ["nvim"]
    assert found.projects == []
    assert (await Statistics(store, lambda: 1.0).get(caller("read-all-sessions"), None)).projects != []


async def test_since(store: Store) -> None:
    statistics = Statistics(store, lambda: 250.0)
    assert (await statistics.get(caller(), 200.0)).total.turns == 3
    assert await statistics.reset() == 250.0
    found = await Statistics(store, lambda: 900.0).get(caller(), None)
    assert (found.since, found.total.turns) == (250.0, 2)
    assert (await statistics.get(caller(), 0.0)).total.turns == 4


async def test_nothing_was_done(tmp_path: Path) -> None:
    store = await Store.open(str(tmp_path / "empty"), clock=lambda: 1.0)
    total = (await Statistics(store, lambda: 1.0).get(caller(), None)).total
    assert (total.turns, total.average_cost_usd, total.average_duration_ms) == (0, None, None)
    await store.close()
