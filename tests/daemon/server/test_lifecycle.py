"""`initialize` first and once, after `shutdown` only `exit`; both framings; what a client may pipeline."""

import json
from typing import Any

import pytest


@pytest.mark.parametrize("framing", ["lines", "headers"])
async def test_initialize_tells_who_answers_and_what_is_allowed(world: Any, framing: str) -> None:
    world.granted = ["tools", "query"]
    client = world.connect(framing)
    params = {
        "clientInfo": {"name": "an editor"},
        "scopes": ["query", "admin"],
        "capabilities": {"permissions": True},
    }
    result = await client.call("initialize", params)
    assert result == {
        "serverInfo": {"name": "test", "version": "7"},
        "protocolVersion": 1,
        "capabilities": {
            "methods": [
                "do/always", "do/later", "do/now", "do/plain", "do/secret", "do/turn", "do/vanish",
            ],
            "features": ["x"],
        },
        "scopes": ["query", "tools"],
        "connectionId": "c1",
        "limits": {"maxMessageBytes": 16777216, "maxRunningRequests": 64, "maxWaitingBytes": 33554432},
    }  # fmt: skip
    assert world.asked_for == [(["query", "admin"], 4321)]
    await client.call("do/now")
    (seen,) = world.work.clients
    assert (seen.id, seen.name, seen.scopes) == ("c1", "an editor", {"query", "tools"})
    assert seen.capabilities == {"permissions": True}
    assert not seen.closed


async def test_initialize_needs_nothing(world: Any) -> None:
    client = world.connect()
    await client.call("initialize")
    assert world.asked_for == [(None, 4321)]
    await client.call("do/now")
    assert world.work.clients[0].name == ""


async def test_fields_of_lsp_are_ignored(world: Any) -> None:
    client = await world.open(
        processId=1, rootUri=None, workspaceFolders=[], capabilities={"textDocument": {}}
    )
    client.tell("initialized", {})
    assert await client.call("do/now", {"tag": "a"}) == {"tag": "a"}


async def test_connections_have_ids_of_their_own(world: Any) -> None:
    first = await world.connect().call("initialize")
    second = await world.connect().call("initialize")
    assert first["connectionId"] != second["connectionId"]


async def test_initialize_is_refused_twice_and_changes_nothing(world: Any) -> None:
    world.granted = ["query"]
    client = await world.open(clientInfo={"name": "one"})
    world.granted = ["admin"]
    error = await client.fails("initialize", {"clientInfo": {"name": "two"}})
    assert error["data"]["kind"] == "already_initialized"
    await client.call("do/now")
    assert (world.work.clients[0].name, world.work.clients[0].scopes) == ("one", {"query"})


async def test_initialize_with_wrong_parameters_can_be_repeated(world: Any) -> None:
    client = world.connect()
    error = await client.fails("initialize", {"scopes": ["query", "everything"]})
    assert error["data"]["kind"] == "invalid_params"
    assert error["data"]["path"] == "$.scopes[1]"
    error = await client.fails("initialize", [])
    assert error["data"]["kind"] == "invalid_params"
    await client.call("initialize")
    await client.call("do/now")


@pytest.mark.parametrize("method", ["do/now", "do/later", "shutdown", "no/such"])
async def test_everything_else_is_refused_before(world: Any, method: str) -> None:
    client = world.connect()
    assert (await client.fails(method))["data"]["kind"] == "not_initialized"
    assert world.work.begun == []
    await client.call("initialize")
    assert await client.call("do/now", {"tag": "after"}) == {"tag": "after"}


async def test_notifications_before_are_ignored(world: Any) -> None:
    client = world.connect()
    client.tell("initialized")
    client.tell("$/setTrace", {"value": "messages"})
    client.tell("$/cancelRequest", {"id": 1})
    await client.call("initialize")
    await client.call("do/now")
    assert await client.call("do/now", {"tag": "untraced"}) == {"tag": "untraced"}


async def test_calls_may_follow_initialize_at_once(world: Any) -> None:
    client = world.connect()
    first = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    second = {"jsonrpc": "2.0", "id": 2, "method": "do/now", "params": {"tag": "a"}}
    third = {"jsonrpc": "2.0", "id": 3, "method": "do/later", "params": {"tag": "b"}}
    client.send(first, second, third)
    assert (await client.answer(1))["result"]["connectionId"] == "c1"
    assert (await client.answer(2))["result"] == {"tag": "a"}
    assert (await client.answer(3))["result"] == {"tag": "b"}


async def test_messages_are_short_until_initialize(world: Any) -> None:
    client = world.connect()
    client.send(b'{"jsonrpc":"2.0","id":1,"method":"do/now","params":{"tag":"' + b"x" * 1_048_576 + b'"}}')
    message = await client.answer(None)
    assert message["error"]["data"]["kind"] == "message_too_large"
    assert message["error"]["data"]["limit"] == 1_048_576
    await client.call("initialize")
    tag = "x" * 2_000_000
    assert await client.call("do/now", {"tag": tag}) == {"tag": tag}


@pytest.mark.parametrize("framing", ["lines", "headers"])
async def test_an_over_long_message_does_not_end_the_connection(world: Any, framing: str) -> None:
    client = await world.open(framing)
    client.send(b'"' + b"x" * (16 * 1024 * 1024) + b'"')
    assert (await client.answer(None))["error"]["data"]["kind"] == "message_too_large"
    assert await client.call("do/now", {"tag": "a"}) == {"tag": "a"}


async def test_shutdown_cancels_what_runs_and_answers_last(world: Any) -> None:
    client = await world.open()
    running = client.ask("do/later", {"tag": "running", "wait": True})
    turn = client.ask("do/turn", {"tag": "turn", "wait": True, "sessionId": "s"})
    behind = client.ask("do/turn", {"tag": "behind", "sessionId": "s"})
    last = client.ask("shutdown")
    answers = [await client.next() for _ in range(4)]
    assert {a["id"] for a in answers[:3]} == {running, turn, behind}
    assert all(a["error"]["data"]["kind"] == "request_cancelled" for a in answers[:3])
    assert answers[3] == {"jsonrpc": "2.0", "id": last, "result": {}}
    assert "behind" not in world.work.begun


async def test_after_shutdown_only_exit_is_taken(world: Any) -> None:
    client = await world.open()
    await client.call("shutdown")
    for method in ("do/now", "do/later", "shutdown"):
        error = await client.fails(method)
        assert error["code"] == -32600
        assert "shutdown" in error["message"]
    assert (await client.fails("initialize"))["data"]["kind"] == "already_initialized"
    client.tell("exit")
    assert await client.next() is None
    await world.until(lambda: world.server.connections == 0)


async def test_exit_closes_at_any_time(world: Any) -> None:
    client = world.connect()
    client.tell("exit")
    assert await client.next() is None
    client = await world.open()
    client.tell("exit")
    assert await client.next() is None


async def test_exit_answers_what_still_runs(world: Any) -> None:
    client = await world.open()
    running = client.ask("do/later", {"tag": "running", "wait": True})
    await world.work.until(lambda: "running" in world.work.begun)
    client.tell("exit")
    assert (await client.answer(running))["error"]["data"]["kind"] == "request_cancelled"
    assert await client.next() is None
    await world.work.until(lambda: "running" in world.work.ended)
    assert world.work.cancelled == ["running"]


async def test_what_follows_exit_is_answered_or_never_read(world: Any) -> None:
    client = await world.open()
    exit_ = {"jsonrpc": "2.0", "method": "exit"}
    client.send(exit_, {"jsonrpc": "2.0", "id": 9, "method": "do/now", "params": {"tag": "late"}})
    rest = await client.rest()
    assert [m["error"]["data"]["kind"] for m in rest] == ["request_cancelled"]
    assert world.work.begun == []


async def test_trace_tells_method_and_duration_while_it_is_on(world: Any) -> None:
    client = await world.open(trace="messages")
    id = client.ask("do/now", {"tag": "a"})
    await client.answer(id)
    line = await client.next()
    assert line["method"] == "$/logTrace"
    assert line["params"] == {"message": f"do/now ({id}) answered in 0.000 ms"}
    world.work.gate("b").set()
    id = client.ask("do/later", {"tag": "b", "wait": True})
    await client.answer(id)
    assert (await client.next())["params"]["message"].startswith(f"do/later ({id}) answered in ")
    client.tell("$/setTrace", {"value": "off"})
    await client.call("do/now")
    await client.call("do/now")
    client.tell("$/setTrace", {"value": "nonsense"})
    client.tell("$/setTrace")
    await client.call("do/now")
    client.tell("$/setTrace", {"value": "verbose"})
    await client.call("do/now")
    assert (await client.next())["method"] == "$/logTrace"


async def test_a_request_that_came_before_the_trace_has_no_duration(world: Any) -> None:
    client = await world.open()
    id = client.ask("do/later", {"tag": "a", "wait": True})
    await world.work.until(lambda: world.work.begun == ["a"])
    client.tell("$/setTrace", {"value": "messages"})
    await client.barrier()
    world.work.gate("a").set()
    seen = [await client.next() for _ in range(3)]
    assert {"message": f"do/later ({id}) answered"} in [m.get("params") for m in seen]


async def test_unknown_notifications_are_ignored(world: Any) -> None:
    client = await world.open()
    client.tell("$/unknown", {"x": 1})
    client.tell("no/such")
    client.tell("do/now", {"tag": "as a notification"})
    await client.call("do/now", {"tag": "as a request"})
    assert world.work.begun == ["as a request"]


async def test_bytes_that_cannot_be_framed_are_answered_and_end_the_connection(world: Any) -> None:
    client = await world.open("headers")
    id = client.ask("do/later", {"tag": "a", "wait": True})
    await world.work.until(lambda: world.work.begun == ["a"])
    client.end.write(b"GET / HTTP/1.1\r\n\r\n")
    rest = await client.rest()
    assert [m["id"] for m in rest] == [None, id]
    assert rest[0]["error"]["data"]["kind"] == "bad_framing"
    assert rest[1]["error"]["data"]["kind"] == "request_cancelled"


async def test_text_that_is_no_json_is_answered_and_the_connection_goes_on(world: Any) -> None:
    client = await world.open()
    client.end.write(
        b"{nonsense}\n" + json.dumps({"jsonrpc": "2.0", "id": 1, "method": "do/now"}).encode() + b"\n"
    )
    assert (await client.answer(None))["error"]["code"] == -32700
    assert (await client.answer(1))["result"] == {"tag": ""}
