"""All connections together: counting them, turning some away, draining, the end."""

import asyncio
from typing import Any

import pytest
from dragoman_protocol.lifecycle import ServerInfo
from dragomand.server.route import Route
from dragomand.server.server import Server
from dragomand.transport import memory


def kind(message: Any) -> Any:
    return message["error"]["data"]["kind"]


async def test_connections_and_requests_are_counted(world: Any) -> None:
    assert (world.server.connections, world.server.running, world.server.queued) == (0, 0, 0)
    client = await world.open()
    await world.open()
    assert world.server.connections == 2
    client.ask("do/turn", {"tag": "a", "wait": True, "sessionId": "s"})
    client.ask("do/turn", {"tag": "b", "sessionId": "s"})
    await client.barrier()
    assert (world.server.running, world.server.queued) == (1, 1)
    world.work.gate("a").set()
    await world.until(lambda: world.server.running == 0)
    assert world.server.queued == 0
    client.end.close()
    await world.until(lambda: world.server.connections == 1)


async def test_a_server_needs_no_listener_for_changes(world: Any) -> None:
    world.server.on_change = None
    client = await world.open()
    assert await client.call("do/later", {"tag": "a"}) == {"tag": "a"}


async def test_one_turned_away_is_told_why_and_closed(world: Any) -> None:
    class Above:
        accept = staticmethod(lambda transport: world.server.turn_away(transport, 3))

    for method in ("initialize", "do/now"):
        end = memory.connect(Above())  # type: ignore[arg-type]
        end.write(b'{"jsonrpc":"2.0","id":1,"method":"%b"}\n' % method.encode())
        client = type(world.connect())(end)
        answer = await client.answer(1)
        assert kind(answer) == "too_many_clients"
        assert answer["error"]["data"]["limit"] == 3
        assert answer["error"]["data"]["retryable"]
        assert await client.next() is None


# -- draining


async def test_draining_finishes_what_runs_and_refuses_what_comes(world: Any) -> None:
    client, other = await world.open(), await world.open()
    running = client.ask("do/turn", {"tag": "running", "wait": True, "sessionId": "s"})
    behind = client.ask("do/turn", {"tag": "behind", "sessionId": "s"})
    await world.work.until(lambda: world.work.begun == ["running"])
    assert not world.server.draining
    world.server.draining = True
    assert world.server.draining
    assert kind(await client.answer(behind)) == "draining"
    error = await other.fails("do/later", {"tag": "new"})
    assert error["data"] == {"kind": "draining", "retryable": True}
    assert (await other.fails("do/turn"))["data"]["kind"] == "draining"
    late = world.connect()
    assert (await late.fails("initialize"))["data"]["kind"] == "draining"
    assert not await world.server.finished(0)
    world.work.gate("running").set()
    assert (await client.answer(running))["result"] == {"tag": "running"}
    assert await world.server.finished(20)
    assert world.work.begun == ["running"]


async def test_while_draining_a_turn_can_still_be_helped_to_its_end(world: Any) -> None:
    client = await world.open()
    world.server.draining = True
    assert await client.call("do/now", {"tag": "inline"}) == {"tag": "inline"}
    assert await client.call("do/always", {"tag": "as its route says"}) == {"tag": "as its route says"}
    assert (await client.fails("initialize"))["data"]["kind"] == "already_initialized"
    world.server.draining = False
    assert await client.call("do/later", {"tag": "again"}) == {"tag": "again"}


async def test_what_waits_and_is_answered_while_draining_goes_on_waiting(world: Any) -> None:
    client = await world.open()
    running = [client.ask("do/later", {"tag": f"r{n}", "wait": True}) for n in range(64)]
    always = client.ask("do/always", {"tag": "always"})
    later = client.ask("do/later", {"tag": "later"})
    await client.barrier()
    world.server.draining = True
    assert kind(await client.answer(later)) == "draining"
    world.work.gate("r5").set()
    await client.answer(running[5])
    assert (await client.answer(always))["result"] == {"tag": "always"}


async def test_finished_has_a_deadline(world: Any) -> None:
    assert await world.server.finished(0)
    assert await world.server.finished(None)
    client = await world.open()
    client.ask("do/later", {"tag": "a", "wait": True})
    await client.barrier()
    assert not await world.server.finished(0.01)
    world.work.gate("a").set()
    assert await world.server.finished(None)


async def test_cancel_running_answers_each(world: Any) -> None:
    clients = [await world.open() for _ in range(3)]
    ids = [client.ask("do/later", {"tag": f"{n}", "wait": True}) for n, client in enumerate(clients)]
    await world.work.until(lambda: len(world.work.begun) == 3)
    world.server.cancel_running()
    for client, id in zip(clients, ids, strict=True):
        assert kind(await client.answer(id)) == "request_cancelled"
    assert await world.server.finished(20)
    assert sorted(world.work.cancelled) == ["0", "1", "2"]


# -- the end


async def test_everything_is_flushed_and_closed(world: Any) -> None:
    clients = [await world.open() for _ in range(3)]
    large = clients[0].ask("do/now", {"tag": "a", "size": 3_000_000})
    running = clients[1].ask("do/later", {"tag": "b", "wait": True})
    waiting = clients[1].ask("do/turn", {"tag": "c", "wait": True, "sessionId": "s"})
    behind = clients[1].ask("do/turn", {"tag": "d", "sessionId": "s"})
    for client in clients[:2]:
        await client.barrier()
    task = asyncio.ensure_future(world.server.flush_and_close(20))
    answers = [await clients[1].next() for _ in range(3)]
    assert {m["id"] for m in answers} == {running, waiting, behind}
    assert {kind(m) for m in answers} == {"draining"}
    assert len((await clients[0].answer(large))["result"]["filler"]) == 3_000_000
    for client in clients:
        assert await client.next() is None
    assert await task
    assert (world.server.connections, world.server.running) == (0, 0)


async def test_a_client_that_does_not_read_delays_the_end_only_until_the_deadline(world: Any) -> None:
    client = await world.open()
    await client.barrier()
    world.work.clients[-1].notify("unread", {})
    assert not await world.server.flush_and_close(0.01)
    assert world.server.connections == 0


async def test_a_handler_that_does_not_end_is_reported(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("dragomand.server.server.LAST_S", 0.01)
    client = await world.open()
    id = client.ask("do/later", {"tag": "stubborn", "wait": True, "onCancel": "ignore"})
    await world.work.until(lambda: world.work.begun == ["stubborn"])
    task = asyncio.ensure_future(world.server.flush_and_close(0.1))
    assert kind(await client.answer(id)) == "draining"
    assert await client.next() is None
    assert not await task
    assert "handlers do not end" in world.log.text
    assert world.server.running == 1
    world.work.gate("stubborn").set()
    assert await world.server.finished(20)


async def test_the_end_of_a_server_without_connections_is_immediate(world: Any) -> None:
    assert await world.server.flush_and_close(0)


def test_routes_that_cannot_be_are_refused(world: Any) -> None:
    info = ServerInfo(name="x", version="1")

    def server(*routes: Route) -> Server:
        return Server(routes, info=info, grant=lambda *_: [], logger=world.server._logger, clock=lambda: 0.0)

    route = world.work.routes()[0]
    with pytest.raises(ValueError, match="do/now"):
        server(route, route)
    with pytest.raises(ValueError, match="coroutine"):
        server(Route("x", route.params, world.work.later, "inline"))
