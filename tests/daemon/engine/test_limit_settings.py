"""Limits that are changed at run time."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from dragoman_protocol.limits import ClientShare
from dragomand.engine.errors import EngineError
from dragomand.engine.limit_settings import MOST_CLIENTS, Known, LimitSettings
from dragomand.store.store import Store
from msgspec import Meta

KNOWN = [
    Known("limits.rate", Annotated[int, Meta(ge=0, le=100)], 60, "a whole number from 0 to 100"),
    Known("budget.hour", Annotated[float, Meta(ge=0)], 10.0, "an amount"),
    Known("limits.place", bool, True, "true or false"),
]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(str(tmp_path / "db"), clock=lambda: 1.0)
    yield store
    await store.close()


async def loaded(store: Store, known: list[Known] = KNOWN) -> tuple[LimitSettings, list[Any]]:
    heard: list[Any] = []
    settings = LimitSettings(store, known, heard.append)
    await settings.load()
    return settings, heard


async def test_the_file_holds_until_something_is_set(store: Store) -> None:
    settings, heard = await loaded(store)
    assert heard == [{"limits.rate": 60, "budget.hour": 10.0, "limits.place": True}]
    told = await settings.set({"limits.rate": 30, "budget.hour": 2}, {"nvim": ClientShare(weight=2)})
    assert (told.settings["limits.rate"], told.changed) == (30, ["budget.hour", "limits.rate"])
    assert heard[-1] == {"limits.rate": 30, "budget.hour": 2, "limits.place": True}
    assert settings.clients["nvim"].weight == 2


async def test_a_change_survives_the_daemon_and_can_be_taken_back(store: Store) -> None:
    settings, _ = await loaded(store)
    await settings.set({"limits.rate": 30, "limits.place": False}, {"a": ClientShare(priority="batch")})
    again, heard = await loaded(store)
    assert heard[0]["limits.rate"] == 30
    assert again.clients["a"].priority == "batch"
    back = await again.set({"limits.rate": None}, {"a": None})
    assert (back.settings["limits.rate"], back.changed, back.clients) == (60, ["limits.place"], {})


async def test_what_a_newer_version_left_is_left_alone(store: Store) -> None:
    settings, _ = await loaded(store)
    await settings.set({"limits.rate": 90, "budget.hour": 1}, {})
    narrower = [Known("limits.rate", Annotated[int, Meta(ge=0, le=50)], 60, "at most 50")]
    _, heard = await loaded(store, narrower)
    assert heard == [{"limits.rate": 60}]


@pytest.mark.parametrize(
    ("settings", "clients", "path", "said"),
    [
        ({"limits.rates": 1}, {}, "$.settings['limits.rates']", "not a limit that can be set"),
        ({"limits.rate": 101}, {}, "$.settings['limits.rate']", "expected a whole number from 0 to 100"),
        ({"limits.rate": "7"}, {}, "$.settings['limits.rate']", "got '7'"),
        ({"limits.rate": True}, {}, "$.settings['limits.rate']", "got True"),
        ({"limits.place": 1}, {}, "$.settings['limits.place']", "got 1"),
        ({}, {"a": ClientShare(weight=0)}, "$.clients['a'].weight", "from 0.01 to 100, got 0"),
        ({}, {"a": ClientShare(weight=float("nan"))}, "$.clients['a'].weight", "got nan"),
    ],
)
async def test_what_is_wrong_changes_nothing(
    store: Store, settings: Any, clients: Any, path: str, said: str
) -> None:
    owner, heard = await loaded(store)
    with pytest.raises(EngineError) as refused:
        await owner.set({"budget.hour": 5.0} | settings, clients)
    assert refused.value.kind == "invalid_params"
    assert refused.value.data["path"] == path
    assert said in str(refused.value)
    assert owner.get().changed == []
    assert len(heard) == 1


async def test_shares_have_a_bound(store: Store) -> None:
    owner, _ = await loaded(store)
    many = {str(number): ClientShare(weight=1) for number in range(MOST_CLIENTS)}
    await owner.set({}, many)
    with pytest.raises(EngineError, match="as many as may"):
        await owner.set({}, {"one more": ClientShare(weight=1)})
    await owner.set({}, {"0": None, "one more": ClientShare(weight=1)})
