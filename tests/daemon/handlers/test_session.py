"""`session/*`: which sessions a connection sees."""

import asyncio
from typing import Any


async def listed(at: Any, client: Any, **chosen: Any) -> list[str]:
    result = await at.call(client, "session/list", **chosen)
    return [info.session_id for info in result.data]


async def test_a_connection_lists_its_own_and_with_the_scope_everybodys(house: Any) -> None:
    async with house() as at:
        mine, other, all_seeing = at.client(), at.client(), at.client("query", "tools", "read-all-sessions")
        first = (await at.query(mine)).session_id
        second = (await at.query(other)).session_id
        assert await listed(at, mine) == [first]
        assert await listed(at, other) == [second]
        assert await listed(at, all_seeing) == [second, first]
        assert await listed(at, at.client()) == []


async def test_whoever_continues_a_session_lists_it_too(house: Any) -> None:
    async with house() as at:
        mine = at.client()
        session_id = (await at.query(mine)).session_id
        continuing, attaching, opening = at.client(), at.client(), at.client()
        await at.query(continuing, sessionId=session_id)
        await at.call(attaching, "stream/attach", sessionId=session_id)
        await at.call(opening, "stream/open", sessionId=session_id)
        for client in (continuing, attaching, opening):
            assert await listed(at, client) == [session_id]


async def test_who_knows_an_id_may_read_but_does_not_list(house: Any) -> None:
    async with house() as at:
        session_id = (await at.query(at.client())).session_id
        reader = at.client()
        got = await at.call(reader, "session/get", sessionId=session_id)
        assert got.session.session_id == session_id
        page = await at.call(reader, "session/messages", sessionId=session_id, limit=2)
        assert [item.seq for item in page.data] == [1, 2]
        assert page.next_cursor == "2"
        assert await listed(at, reader) == []


async def test_an_id_that_does_not_exist_is_not_remembered(house: Any) -> None:
    async with house() as at:
        client = at.client()
        await at.refused("session_not_found", at.call(client, "stream/attach", sessionId="guess"))
        await at.refused("session_not_found", at.query(client, sessionId="guess"))
        await at.refused("session_not_found", at.call(client, "stream/open", sessionId="guess"))
        assert list(at.engine.sessions.seen_by(client.id)) == []


async def test_what_a_plan_makes_is_the_clients(house: Any) -> None:
    async with house() as at:
        client = at.client()
        items = [{"prompt": "a"}, {"prompt": "b"}]
        result = await at.call(client, "orchestrate/parallel", items=items, cwd=str(at.engine.cwd))
        assert sorted(await listed(at, client)) == sorted(
            outcome.result.session_id for outcome in result.data
        )


async def test_a_connection_that_closed_is_forgotten(house: Any) -> None:
    async with house() as at:
        client = at.client()
        await at.query(client)
        await at.query(client)
        assert len(client._on_close) == 1, "one callback, however many sessions"
        client.close()
        assert list(at.engine.sessions.seen_by(client.id)) == []


async def test_a_connection_that_closed_while_its_query_ran(house: Any) -> None:
    async with house() as at:
        client, gate = at.client(), at.kit.Gated()
        at.engine.upstream.hold_open = asyncio.Event()
        client.close()
        query = at.start(client, "query/run", prompt="hi", cwd=str(at.engine.cwd))
        await at.kit.soon(at.engine.upstream.opening)
        assert list(at.engine.sessions.seen_by(client.id)) == []
        at.engine.upstream.scripts.append(gate)
        query.cancel()
        await asyncio.wait([query])
        at.engine.check_idle()


async def test_lists_are_filtered_and_paged(house: Any) -> None:
    async with house() as at:
        client = at.client()
        made = [(await at.query(client, tags=[f"t{number % 2}"])).session_id for number in range(3)]
        assert await listed(at, client, tag="t1") == [made[1]]
        assert await listed(at, client, cwd="/elsewhere") == []
        page = await at.call(client, "session/list", limit=2)
        assert [info.session_id for info in page.data] == [made[2], made[1]]
        assert await listed(at, client, limit=2, cursor=page.next_cursor) == [made[0]]
        error = await at.refused("invalid_params", at.call(client, "session/list", limit=0))
        assert error.data.path == "$.limit"


async def test_deleting(house: Any) -> None:
    async with house() as at:
        client = at.client()
        session_id = (await at.query(client)).session_id
        assert (await at.call(client, "session/delete", sessionId=session_id)).deleted
        await at.refused("session_not_found", at.call(client, "session/delete", sessionId=session_id))
        assert await listed(at, client) == []


async def test_whoever_makes_a_fork_lists_it(house: Any) -> None:
    async with house() as at:
        session_id = (await at.query(at.client())).session_id
        client = at.client()
        made = (await at.call(client, "session/fork", sessionId=session_id)).session
        assert made.forked_from.session_id == session_id
        assert await listed(at, client) == [made.session_id]
        await at.refused("session_not_found", at.call(client, "session/fork", sessionId="guess"))
        assert await listed(at, client) == [made.session_id]
