"""What handlers can do with their client: ask it, tell it things, hear of its end; and slow readers."""

import asyncio
import json
from typing import Any

import pytest
from dragoman_protocol.codec import MAX_MESSAGE
from dragoman_protocol.errors import RpcError
from dragoman_protocol.values import Value


class Answer(Value):
    word: str


async def connected(world: Any) -> tuple[Any, Any]:
    """A conversation, and its connection as handlers see it."""
    conversation = await world.open()
    await conversation.call("do/now")
    return conversation, world.work.clients[-1]


def asking(client: Any, word: str = "x") -> "asyncio.Task[Answer]":
    return asyncio.ensure_future(client.request("permission/request", {"word": word}, Answer))


async def the_error(task: "asyncio.Task[Any]") -> RpcError:
    async with asyncio.timeout(20):
        with pytest.raises(RpcError) as caught:
            await task
    return caught.value


# -- asking the client


async def test_a_request_to_the_client_gets_its_answer(world: Any) -> None:
    conversation, client = await connected(world)
    first, second = asking(client, "1"), asking(client, "2")
    one, two = await conversation.next(), await conversation.next()
    assert (one["method"], one["params"]) == ("permission/request", {"word": "1"})
    conversation.send({"jsonrpc": "2.0", "id": two["id"], "result": {"word": "b"}})
    conversation.send({"jsonrpc": "2.0", "id": one["id"], "result": {"word": "a"}})
    assert await first == Answer(word="a")
    assert await second == Answer(word="b")


async def test_answers_pass_though_64_requests_run(world: Any) -> None:
    conversation, client = await connected(world)
    for n in range(70):
        conversation.ask("do/later", {"tag": f"r{n}", "wait": True})
    await world.work.until(lambda: "r63" in world.work.begun)
    task = asking(client)
    asked = await conversation.next()
    conversation.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"word": "a"}})
    assert await task == Answer(word="a")


async def test_the_clients_error_is_raised(world: Any) -> None:
    conversation, client = await connected(world)
    task = asking(client)
    asked = await conversation.next()
    error = {"code": -32601, "message": "never heard of it"}
    conversation.send({"jsonrpc": "2.0", "id": asked["id"], "error": error})
    raised = await the_error(task)
    assert (raised.kind, raised.message) == ("method_not_found", "never heard of it")


async def test_an_answer_that_does_not_fit_is_an_error(world: Any) -> None:
    conversation, client = await connected(world)
    task = asking(client)
    asked = await conversation.next()
    conversation.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"word": 5}})
    raised = await the_error(task)
    assert raised.kind == "invalid_params"
    assert raised.data.path == "$.word"  # type: ignore[attr-defined]


async def test_a_cancelled_request_tells_the_client_and_ignores_its_answer(world: Any) -> None:
    conversation, client = await connected(world)
    task = asking(client)
    asked = await conversation.next()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await conversation.next() == {
        "jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": asked["id"]},
    }  # fmt: skip
    conversation.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"word": "late"}})
    assert await conversation.call("do/now", {"tag": "a"}) == {"tag": "a"}


async def test_an_answer_and_a_cancellation_in_one_moment(world: Any) -> None:
    conversation, client = await connected(world)
    task = asking(client)
    asked = await conversation.next()
    conversation.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"word": "a"}})
    conversation.ask("do/now")
    await conversation.next()  # the answer has been taken, the task has not run
    task.cancel()
    await asyncio.wait([task], timeout=20)
    assert task.done()
    assert await conversation.call("do/now", {"tag": "b"}) == {"tag": "b"}


async def test_a_request_fails_when_the_connection_closes(world: Any) -> None:
    conversation, client = await connected(world)
    task = asking(client)
    await conversation.next()
    conversation.end.close()
    assert (await the_error(task)).kind == "connection_closed"
    assert client.closed
    assert (await the_error(asking(client))).kind == "connection_closed"


async def test_a_request_fails_when_the_client_shuts_its_half(world: Any) -> None:
    conversation, client = await connected(world)
    conversation.ask("do/later", {"tag": "a", "wait": True})
    task = asking(client)
    await conversation.next()
    conversation.end.end()
    assert (await the_error(task)).kind == "connection_closed"
    assert (await the_error(asking(client))).kind == "connection_closed"
    assert not client.closed
    client.notify("note", {"still": "heard"})
    assert (await conversation.next())["params"] == {"still": "heard"}
    world.work.gate("a").set()
    await conversation.next()


async def test_answers_to_nothing_are_ignored(world: Any) -> None:
    conversation, _ = await connected(world)
    conversation.send({"jsonrpc": "2.0", "id": 99, "result": {}}, {"jsonrpc": "2.0", "id": None, "result": 1})
    assert await conversation.call("do/now", {"tag": "a"}) == {"tag": "a"}


# -- telling it things


async def test_notifications_and_events_arrive_in_order(world: Any) -> None:
    conversation, client = await connected(world)
    client.notify("a", {"n": 1})
    assert client.event("b", {"n": 2}, ephemeral=True)
    assert client.event("c", None, ephemeral=False)
    assert not client.event("d", {"text": "x" * MAX_MESSAGE}, ephemeral=False)  # nobody can take that
    seen = [await conversation.next() for _ in range(3)]
    assert [(m["method"], m["params"]) for m in seen] == [("a", {"n": 1}), ("b", {"n": 2}), ("c", {})]


async def test_what_is_longer_than_a_message_may_be_is_not_sent(world: Any) -> None:
    conversation, client = await connected(world)
    assert not client.event("e", {"text": "x" * 17_000_000}, ephemeral=False)
    client.notify("n", {"text": "x" * 17_000_000})
    assert world.log.text.count("a notification was not sent") == 2
    assert (await the_error(asking(client, "x" * 17_000_000))).kind == "message_too_large"
    assert await conversation.call("do/now", {"tag": "a"}) == {"tag": "a"}


async def test_nothing_is_said_after_the_end(world: Any) -> None:
    conversation, client = await connected(world)
    conversation.tell("exit")
    assert await conversation.next() is None
    client.notify("a", {})
    assert not client.event("b", {}, ephemeral=False)
    assert await conversation.next() is None


async def test_headers_are_answered_in_headers(world: Any) -> None:
    conversation = await world.open("headers")
    await conversation.call("do/now")
    world.work.clients[-1].notify("a", {})
    assert (await conversation.next())["method"] == "a"


# -- its end


async def test_callbacks_run_once_at_the_end(world: Any) -> None:
    conversation, client = await connected(world)
    heard: list[str] = []
    client.on_close(lambda: heard.append("first"))
    remove = client.on_close(lambda: heard.append("removed"))
    client.on_close(lambda: heard.append("second"))
    remove()
    remove()
    conversation.end.close()
    await world.until(lambda: world.server.connections == 0)
    assert heard == ["first", "second"]
    client.on_close(lambda: heard.append("at once"))()
    assert heard == ["first", "second", "at once"]


async def test_callbacks_run_at_exit_as_well(world: Any) -> None:
    conversation, client = await connected(world)
    heard: list[str] = []
    client.on_close(lambda: heard.append("closed"))
    conversation.tell("exit")
    assert await conversation.next() is None
    await world.until(lambda: world.server.connections == 0)
    assert heard == ["closed"]


async def test_a_failing_callback_is_logged_and_the_others_run(world: Any) -> None:
    conversation, client = await connected(world)
    heard: list[str] = []
    client.on_close(lambda: 1 / 0)
    client.on_close(lambda: heard.append("second"))
    conversation.end.close()
    await world.until(lambda: world.server.connections == 0)
    assert heard == ["second"]
    assert "ZeroDivisionError" in world.log.text


# -- a slow reader


async def test_a_slow_reader_loses_ephemeral_events_first_and_durable_ones_last(world: Any) -> None:
    conversation, client = await connected(world)
    piece = {"text": "x" * 1_000_000}
    taken = [client.event("e", piece, ephemeral=True) for _ in range(6)]
    assert taken == [True] * 5 + [False]
    taken = [client.event("d", piece, ephemeral=False) for _ in range(14)]
    assert taken == [True] * 12 + [False] * 2
    client.notify("kept", {})
    seen = [(await conversation.next())["method"] for _ in range(18)]
    assert seen == ["e"] * 5 + ["d"] * 12 + ["kept"]
    assert client.event("e", piece, ephemeral=True)


async def test_a_reader_that_is_stuck_for_30_s_is_told_no_more(world: Any) -> None:
    conversation, client = await connected(world)
    assert client.event("d", {"text": "x" * 1000}, ephemeral=False)
    await written(conversation)
    assert client.event("d", {}, ephemeral=False)
    world.now += 29.9
    assert client.event("d", {}, ephemeral=False)
    await conversation.end.read(10)  # progress
    world.now += 0.2
    assert client.event("d", {}, ephemeral=False)
    world.now += 29.9
    assert client.event("d", {}, ephemeral=False)
    world.now += 0.2
    assert not client.event("d", {}, ephemeral=False)
    await conversation.end.read()
    assert client.event("d", {}, ephemeral=False)


async def written(conversation: Any) -> None:
    """Wait until what was said has left the outbox."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_soon(lambda: asyncio.get_running_loop().call_soon(passed.set))
    await passed.wait()


async def test_a_client_that_asks_and_does_not_read_is_not_read_either(world: Any) -> None:
    conversation, _ = await connected(world)
    ids = [conversation.ask("do/now", {"tag": str(n), "size": 500_000}) for n in range(40)]
    later = [conversation.ask("do/later", {"tag": f"l{n}", "size": 500_000}) for n in range(40)]
    await written(conversation)
    assert 8 <= len(world.work.begun) < 14
    unsent = conversation.end.unread
    assert 4_000_000 < unsent < 6_000_000
    answers = [await conversation.next() for _ in range(80)]
    assert [m["id"] for m in answers if m["id"] in ids] == ids
    assert {m["id"] for m in answers} == {*ids, *later}


async def test_what_came_with_the_last_bytes_read_waits_too(world: Any) -> None:
    conversation, _ = await connected(world)
    many = [
        {
            "jsonrpc": "2.0",
            "id": f"m{n}",
            "method": ("do/now", "do/later", "do/turn")[n % 3],
            "params": {"tag": f"m{n}", "size": 500_000, "sessionId": "s"},
        }
        for n in range(20)
    ]
    conversation.send(*many)
    await written(conversation)
    assert world.server.queued > 0
    conversation.tell("$/cancelRequest", {"id": "m18"})  # not read: reading has stopped
    answers = [await conversation.next() for _ in many]
    assert {m["id"] for m in answers} == {f"m{n}" for n in range(20)}
    inline = [m["id"] for m in answers if int(m["id"][1:]) % 3 == 0]
    assert inline == [f"m{n}" for n in range(0, 20, 3)]
    assert world.server.queued == 0


async def test_a_held_inline_request_goes_with_its_client(world: Any) -> None:
    conversation, _ = await connected(world)
    ask = {"jsonrpc": "2.0", "method": "do/now", "params": {"size": 1_000_000}}
    conversation.send(*(ask | {"id": n} for n in range(20)))
    await written(conversation)
    assert world.server.queued > 0
    conversation.end.close()
    await world.until(lambda: world.server.connections == 0)
    assert world.server.queued == 0


async def test_a_client_that_never_reads_its_last_answers_is_given_up(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("dragomand.server.connection.CLOSE_S", 0.0)
    conversation, client = await connected(world)
    client.notify("a", {"text": "x" * 1000})
    conversation.tell("exit")
    await world.until(lambda: world.server.connections == 0)
    assert conversation.end.closed


async def test_replies_to_broken_messages_are_bounded_by_what_is_read(world: Any) -> None:
    conversation, _ = await connected(world)
    for _ in range(50):
        conversation.end.write(b"1\n" * 1000)
    await written(conversation)
    assert conversation.end.unread < 6_000_000
    conversation.ask("do/now", id="last")
    count = 0
    while (message := await conversation.next())["id"] != "last":
        count += 1
    assert count == 50_000
    assert json.dumps(message)
