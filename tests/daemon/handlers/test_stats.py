"""`stats/*`."""

from typing import Any


async def test_a_turn_is_counted_until_the_reset(house: Any) -> None:
    async with house() as at:
        client = at.client("query", "admin")
        await at.query(client)
        found = await at.call(client, "stats/get")
        assert (found.total.turns, found.total.succeeded) == (1, 1)
        assert [each.turns for each in found.clients] == [1]
        since = (await at.call(client, "stats/reset")).since
        found = await at.call(client, "stats/get")
        assert (found.since, found.total.turns) == (since, 0)
        assert (await at.call(client, "stats/get", since=0.0)).total.turns == 1
