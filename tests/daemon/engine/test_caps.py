"""Caps: settings, set, raised."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dragomand.engine import caps as caps_module
from dragomand.engine.caps import Caps, micro
from dragomand.engine.errors import EngineError
from dragomand.policy.budget_ledger import BudgetLedger, Scope
from dragomand.store.store import Store

SETTINGS = {"budget.hourUsd": 10.0, "budget.dayUsd": 0.0, "budget.clientUsd": 2.0, "budget.projectUsd": 0.0,
            "budget.sessionUsd": 0.0, "budget.treeUsd": 0.0}  # fmt: skip


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(str(tmp_path / "db"), clock=lambda: 1.0)
    yield store
    await store.close()


async def loaded(store: Store) -> tuple[Caps, BudgetLedger]:
    ledger = BudgetLedger()
    caps = Caps(ledger, store)
    caps.apply(SETTINGS)
    await caps.load()
    return caps, ledger


def cap(ledger: BudgetLedger, kind: Any, key: str = "") -> int | None:
    return ledger.look(Scope(kind, key), 0.0).cap


async def test_the_later_goes_before_the_earlier(store: Store) -> None:
    caps, ledger = await loaded(store)
    assert (cap(ledger, "hour"), cap(ledger, "day")) == (10_000_000, None)
    assert cap(ledger, "client", "x") == 2_000_000
    await caps.set("hour", None, 20)
    assert cap(ledger, "hour") == 20_000_000
    await caps.raise_(Scope("hour"), 30, until=100.0)
    assert cap(ledger, "hour") == 30_000_000
    caps.expire(99.0)
    assert cap(ledger, "hour") == 30_000_000
    caps.expire(100.0)
    assert cap(ledger, "hour") == 20_000_000


async def test_one_of_a_kind_may_have_none(store: Store) -> None:
    caps, ledger = await loaded(store)
    await caps.set("client", "free", None)
    assert cap(ledger, "client", "free") == caps_module.NO_CAP
    assert Scope("client", "free") not in caps.single
    await caps.set("client", "*", None)
    assert cap(ledger, "client", "x") is None
    await caps.set("hour", None, None)
    assert cap(ledger, "hour") == caps_module.NO_CAP


async def test_it_is_kept(store: Store) -> None:
    caps, _ = await loaded(store)
    await caps.set("project", "/p", 3)
    await caps.set("project", "/p", 4)
    await caps.raise_(Scope("hour"), 50, until=1e12)
    await caps.raise_(Scope("session", "s"), 6, until=None)
    _, ledger = await loaded(store)
    assert cap(ledger, "project", "/p") == 4_000_000
    assert cap(ledger, "hour") == 50_000_000
    assert cap(ledger, "session", "s") == 6_000_000


@pytest.mark.parametrize(
    ("scope", "key", "usd", "path"),
    [
        ("client", None, 1, "$.key"), ("client", "", 1, "$.key"), ("hour", "x", 1, "$.key"),
        ("hour", None, -1, "$.limitUsd"), ("hour", None, float("nan"), "$.limitUsd"),
        ("hour", None, 2e6, "$.limitUsd"),
    ],
)  # fmt: skip
async def test_what_is_wrong_changes_nothing(
    store: Store, scope: Any, key: Any, usd: float, path: str
) -> None:
    caps, ledger = await loaded(store)
    with pytest.raises(EngineError) as refused:
        await caps.set(scope, key, usd)
    assert (refused.value.kind, refused.value.data["path"]) == ("invalid_params", path)
    assert cap(ledger, "hour") == 10_000_000
    assert await store.get_state("budget/caps") is None


async def test_they_have_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps_module, "MOST_CAPS", 2)
    caps, _ = await loaded(store)
    await caps.set("client", "a", 1)
    await caps.set("client", "b", 1)
    await caps.set("client", "b", 2)
    with pytest.raises(EngineError, match="as many as may"):
        await caps.set("client", "c", 1)


def test_dollars() -> None:
    assert (micro(None), micro(0), micro(1.5)) == (None, 0, 1_500_000)
