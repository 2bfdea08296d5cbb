"""`budget/*`."""

from typing import Any

import pytest
from dragoman_protocol.errors import RpcError


async def test_caps(house: Any) -> None:
    async with house() as at:
        client = at.client("query", "admin")
        told = await at.call(client, "budget/set", scope="client", key="test", limitUsd=2.5)
        assert (told.scope, told.key, told.limit_usd, told.remaining_usd) == ("client", "test", 2.5, 2.5)
        listed = (await at.call(client, "budget/get")).budgets
        assert {each.scope for each in listed} == {"hour", "day", "client"}
        (one,) = (await at.call(client, "budget/get", scope="client", key="test")).budgets
        assert one.limit_usd == 2.5
        assert [each.scope for each in at.call(client, "limits/state").budget] == ["client"]


async def test_a_cap_without_a_key(house: Any) -> None:
    async with house() as at:
        with pytest.raises(RpcError) as refused:
            await at.call(at.client(), "budget/set", scope="client", limitUsd=1)
        assert (refused.value.kind, refused.value.data.path) == ("invalid_params", "$.key")


async def test_a_turn_that_a_cap_stops(house: Any) -> None:
    async with house() as at:
        client = at.client()
        await at.call(client, "budget/set", scope="hour", limitUsd=0)
        with pytest.raises(RpcError) as refused:
            await at.query(client)
        assert refused.value.kind == "budget_exhausted"
        assert refused.value.data.scope == "hour"
        assert refused.value.data.resets_at is not None
