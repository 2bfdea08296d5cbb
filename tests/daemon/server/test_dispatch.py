"""One request, one response: whatever handlers do, however they are cancelled, whatever lane they are in."""

import asyncio
import json
from typing import Any

import pytest


def kind(message: Any) -> Any:
    return message["error"]["data"]["kind"]


# -- parameters, scopes, unknown methods


@pytest.mark.parametrize("method", ["do/now", "do/later", "do/turn"])
@pytest.mark.parametrize("params", [None, {}, "null"])
async def test_parameters_may_be_absent_or_null(world: Any, method: str, params: Any) -> None:
    client = await world.open()
    if params == "null":
        client.send(b'{"jsonrpc":"2.0","id":5,"method":"%b","params": null}' % method.encode())
        assert (await client.answer(5))["result"] == {"tag": ""}
    else:
        assert await client.call(method, params) == {"tag": ""}


@pytest.mark.parametrize("method", ["do/now", "do/later", "do/turn"])
async def test_wrong_parameters_name_the_field(world: Any, method: str) -> None:
    client = await world.open()
    error = await client.fails(method, {"tag": 5})
    assert error["code"] == -32602
    assert error["data"]["kind"] == "invalid_params"
    assert error["data"]["path"] == "$.tag"
    assert (await client.fails(method, {"tagg": "x"}))["data"]["kind"] == "invalid_params"
    assert (await client.fails(method, ["x"]))["data"]["kind"] == "invalid_params"
    assert world.work.begun == []


async def test_a_scope_that_was_not_granted_is_named(world: Any) -> None:
    world.granted = ["tools", "query"]
    client = await world.open()
    error = await client.fails("do/secret")
    assert error["data"] == {
        "kind": "scope_required", "retryable": False, "needed": "admin", "granted": ["query", "tools"],
    }  # fmt: skip
    world.granted = ["admin"]
    client = await world.open()
    assert await client.call("do/secret", {"tag": "a"}) == {"tag": "a"}


async def test_an_unknown_method_is_told_with_the_nearest(world: Any) -> None:
    client = await world.open()
    error = await client.fails("do/latr")
    assert error["code"] == -32601
    assert error["data"]["nearest"] == "do/later"
    assert (await client.fails("DoLater"))["data"]["nearest"] == "do/later"
    long = await client.fails("x" * 1_000_000)
    assert len(json.dumps(long)) < 1000
    assert "nearest" not in long["data"]


async def test_mistyped_methods_without_end_are_looked_at_less_closely(world: Any) -> None:
    client = await world.open()
    nearest = [(await client.fails("do/latr"))["data"].get("nearest") for _ in range(40)]
    assert nearest == ["do/later"] * 16 + [None] * 24
    assert (await client.fails("do.later"))["data"]["nearest"] == "do/later"


# -- what handlers do


@pytest.mark.parametrize("method", ["do/now", "do/later", "do/turn"])
async def test_an_error_of_the_handler_travels(world: Any, method: str) -> None:
    client = await world.open()
    error = await client.fails(method, {"tag": "s1", "then": "fail"})
    assert error["code"] == 1300
    assert error["data"] == {"kind": "session_not_found", "retryable": False, "sessionId": "s1"}


@pytest.mark.parametrize("method", ["do/now", "do/later", "do/turn"])
@pytest.mark.parametrize("then", ["crash", "unencodable"])
async def test_the_unexpected_goes_to_the_log_and_not_on_the_wire(world: Any, method: str, then: str) -> None:
    client = await world.open()
    id = client.ask(method, {"tag": "a", "then": then})
    answer = await client.answer(id)
    assert answer["error"]["code"] == -32603
    assert answer["error"]["data"] == {
        "kind": "internal_error", "retryable": False, "requestId": f"c1/{id}",
    }  # fmt: skip
    text = json.dumps(answer)
    assert "Traceback" not in text
    assert "secret" not in text
    assert "conftest" not in text
    (record,) = [r for r in world.log.records if r.exc_info]
    assert record.request == f"c1/{id}"
    assert record.method == method
    assert "Traceback" in world.log.text
    assert await client.call("do/now", {"tag": "b"}) == {"tag": "b"}


async def test_a_result_too_long_for_the_wire_is_an_error(world: Any) -> None:
    client = await world.open()
    assert (await client.fails("do/now", {"then": "huge"}))["data"]["kind"] == "message_too_large"
    assert (await client.fails("do/later", {"then": "huge"}))["data"]["kind"] == "message_too_large"


@pytest.mark.parametrize("then", ["answer", "crash"])
async def test_a_handler_that_is_no_coroutine_function_is_answered(world: Any, then: str) -> None:
    client = await world.open()
    assert (await client.fails("do/plain", {"then": then}))["data"]["kind"] == "internal_error"
    assert world.server.running == 0
    assert await client.call("do/later", {"tag": "b"}) == {"tag": "b"}


async def test_a_handler_that_nobody_cancelled_but_itself_is_answered(world: Any) -> None:
    client = await world.open()
    assert (await client.fails("do/vanish"))["data"]["kind"] == "internal_error"
    assert "cancelled by nobody" in world.log.text


async def test_a_request_id_of_any_kind_and_length(world: Any) -> None:
    client = await world.open()
    for id in (0, -1, 2**53 - 1, "", "a", "x" * 10_000, "1"):
        client.ask("do/now", {"then": "crash"}, id=id)
        answer = await client.answer(id)
        assert answer["id"] == id
        assert len(answer["error"]["data"]["requestId"]) <= 67


# -- lanes


async def test_inline_requests_are_answered_in_order_though_others_run(world: Any) -> None:
    client = await world.open()
    running = client.ask("do/later", {"tag": "slow", "wait": True})
    ids = [client.ask("do/now", {"tag": str(n)}) for n in range(50)]
    assert [(await client.next())["id"] for _ in ids] == ids
    world.work.gate("slow").set()
    await client.answer(running)


async def test_free_requests_run_beside_each_other(world: Any) -> None:
    client = await world.open()
    first = client.ask("do/later", {"tag": "1", "wait": True, "sessionId": "s"})
    second = client.ask("do/later", {"tag": "2", "wait": True, "sessionId": "s"})
    await world.work.until(lambda: world.work.begun == ["1", "2"])
    assert (world.server.running, world.server.queued) == (2, 0)
    world.work.gate("2").set()
    await client.answer(second)
    world.work.gate("1").set()
    await client.answer(first)


async def test_requests_of_one_session_run_one_after_another(world: Any) -> None:
    client = await world.open()
    ids = [client.ask("do/turn", {"tag": str(n), "wait": True, "sessionId": "s"}) for n in range(3)]
    other = client.ask("do/turn", {"tag": "other", "wait": True, "sessionId": "t"})
    none = [client.ask("do/turn", {"tag": f"none {n}", "wait": True}) for n in range(2)]
    await world.work.until(lambda: len(world.work.begun) == 4)
    assert world.work.begun == ["0", "other", "none 0", "none 1"]
    assert world.server.queued == 2
    for n, id in enumerate(ids):
        assert world.work.begun.count(str(n)) == 1
        world.work.gate(str(n)).set()
        await client.answer(id)
    assert [tag for tag in world.work.begun if tag.isdigit()] == ["0", "1", "2"]
    for tag, id in (("other", other), ("none 0", none[0]), ("none 1", none[1])):
        world.work.gate(tag).set()
        await client.answer(id)


async def test_one_session_of_two_connections_is_not_ordered(world: Any) -> None:
    first, second = await world.open(), await world.open()
    one = first.ask("do/turn", {"tag": "1", "wait": True, "sessionId": "s"})
    two = second.ask("do/turn", {"tag": "2", "sessionId": "s"})
    await second.answer(two)
    world.work.gate("1").set()
    await first.answer(one)


async def test_a_turn_that_fails_lets_the_next_begin(world: Any) -> None:
    client = await world.open()
    outcomes = ("crash", "fail", "unencodable", "answer")
    ids = [client.ask("do/turn", {"tag": then, "then": then, "sessionId": "s"}) for then in outcomes]
    answers = [await client.next() for _ in range(4)]
    assert [m["id"] for m in answers] == ids
    assert answers[3]["result"] == {"tag": "answer"}
    assert world.server.queued == world.server.running == 0


# -- cancellation, in each state


@pytest.mark.parametrize("method", ["do/later", "do/turn"])
async def test_cancel_while_it_runs(world: Any, method: str) -> None:
    client = await world.open()
    id = client.ask(method, {"tag": "a", "wait": True, "sessionId": "s"})
    await world.work.until(lambda: world.work.begun == ["a"])
    client.tell("$/cancelRequest", {"id": id})
    assert kind(await client.answer(id)) == "request_cancelled"
    assert world.work.cancelled == ["a"]
    assert await client.call(method, {"tag": "b", "sessionId": "s"}) == {"tag": "b"}


async def test_cancel_before_its_first_step(world: Any) -> None:
    client = await world.open()
    request = {"jsonrpc": "2.0", "id": 1, "method": "do/later", "params": {"tag": "a", "wait": True}}
    client.send(request, {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 1}})
    answer = await client.answer(1)
    assert answer["error"]["code"] == -32800
    assert kind(answer) == "request_cancelled"
    assert world.work.begun == []


async def test_cancel_while_it_waits_for_its_session(world: Any) -> None:
    client = await world.open()
    first = client.ask("do/turn", {"tag": "first", "wait": True, "sessionId": "s"})
    second = client.ask("do/turn", {"tag": "second", "sessionId": "s"})
    third = client.ask("do/turn", {"tag": "third", "sessionId": "s"})
    client.tell("$/cancelRequest", {"id": second})
    assert kind(await client.answer(second)) == "request_cancelled"
    world.work.gate("first").set()
    await client.answer(first)
    await client.answer(third)
    assert world.work.begun == ["first", "third"]


async def test_cancel_while_it_waits_for_room(world: Any) -> None:
    client = await world.open()
    running = [client.ask("do/later", {"tag": f"r{n}", "wait": True}) for n in range(64)]
    head = client.ask("do/turn", {"tag": "head", "sessionId": "s"})
    behind = client.ask("do/turn", {"tag": "behind", "sessionId": "s"})
    free = client.ask("do/later", {"tag": "free"})
    await world.work.until(lambda: len(world.work.begun) == 64)
    assert world.server.queued == 3
    for id in (head, free):
        client.tell("$/cancelRequest", {"id": id})
        assert kind(await client.answer(id)) == "request_cancelled"
    world.work.gate("r0").set()
    await client.answer(running[0])
    assert (await client.answer(behind))["result"] == {"tag": "behind"}
    assert not {"head", "free"} & set(world.work.begun)


async def test_cancel_of_what_is_answered_or_was_never_asked_is_ignored(world: Any) -> None:
    client = await world.open()
    id = client.ask("do/now", {"tag": "a"})
    await client.answer(id)
    for params in ({"id": id}, {"id": 999}, {"id": "x"}, {"id": None}, {"id": 1.5}, {}, None, [1]):
        client.tell("$/cancelRequest", params)
    assert await client.call("do/now", {"tag": "b"}) == {"tag": "b"}


async def test_ids_are_told_apart_by_type(world: Any) -> None:
    client = await world.open()
    client.ask("do/later", {"tag": "number", "wait": True}, id=7)
    client.ask("do/later", {"tag": "string", "wait": True}, id="7")
    await world.work.until(lambda: len(world.work.begun) == 2)
    client.tell("$/cancelRequest", {"id": "7"})
    assert kind(await client.answer("7")) == "request_cancelled"
    assert world.work.cancelled == ["string"]
    world.work.gate("number").set()
    await client.answer(7)


async def test_a_handler_may_say_what_its_cancellation_means(world: Any) -> None:
    client = await world.open()
    id = client.ask("do/later", {"tag": "a", "wait": True, "onCancel": "convert"})
    await world.work.until(lambda: world.work.begun == ["a"])
    client.tell("$/cancelRequest", {"id": id})
    answer = await client.answer(id)
    assert answer["error"]["message"] == "as asked"
    assert answer["error"]["data"]["text"] == "so far"


async def test_a_handler_that_had_finished_is_answered_with_its_result(world: Any) -> None:
    client = await world.open()
    id = client.ask("do/later", {"tag": "a", "wait": True, "onCancel": "swallow"})
    await world.work.until(lambda: world.work.begun == ["a"])
    client.tell("$/cancelRequest", {"id": id})
    assert (await client.answer(id))["result"] == {"tag": "a"}


async def test_a_handler_is_cancelled_once_so_that_it_can_clean_up(world: Any) -> None:
    client = await world.open()
    id = client.ask("do/later", {"tag": "a", "wait": True, "onCancel": "ignore"})
    await world.work.until(lambda: world.work.begun == ["a"])
    for _ in range(3):
        client.tell("$/cancelRequest", {"id": id})
        await client.barrier()
    world.server.cancel_running()
    await client.barrier()
    assert world.work.cancelled == ["a"]
    world.work.gate("a").set()
    assert (await client.answer(id))["result"] == {"tag": "a"}


async def test_an_id_in_use_is_refused_and_the_first_goes_on(world: Any) -> None:
    client = await world.open()
    client.ask("do/later", {"tag": "a", "wait": True}, id=5)
    client.ask("do/later", {"tag": "b"}, id=5)
    assert kind(await client.answer(5)) == "invalid_request"
    world.work.gate("a").set()
    assert (await client.answer(5))["result"] == {"tag": "a"}
    assert world.work.begun == ["a"]


# -- batches


async def test_a_batch_is_answered_as_one(world: Any) -> None:
    client = await world.open()
    client.send(
        [
            {"jsonrpc": "2.0", "id": "slow", "method": "do/later", "params": {"tag": "a", "wait": True}},
            {"jsonrpc": "2.0", "id": "now", "method": "do/now"},
            {"jsonrpc": "2.0", "method": "$/unknown"},
            {"jsonrpc": "2.0", "id": "none", "method": "no/such"},
            {"foo": "bar"},
            {"jsonrpc": "2.0", "id": "stop", "method": "do/later", "params": {"tag": "b", "wait": True}},
        ]
    )
    client.tell("$/cancelRequest", {"id": "stop"})
    await world.work.until(lambda: "a" in world.work.begun)
    world.work.gate("a").set()
    batch = await client.next()
    by_id = {message["id"]: message for message in batch}
    assert set(by_id) == {"slow", "now", "none", None, "stop"}
    assert len(batch) == 5
    assert by_id["slow"]["result"] == {"tag": "a"}
    assert kind(by_id["stop"]) == "request_cancelled"
    assert by_id["none"]["error"]["code"] == -32601


async def test_a_batch_of_notifications_is_not_answered(world: Any) -> None:
    client = await world.open()
    client.send([{"jsonrpc": "2.0", "method": "$/a"}, {"jsonrpc": "2.0", "method": "initialized"}])
    assert await client.call("do/now", {"tag": "next"}) == {"tag": "next"}


async def test_initialize_may_be_in_a_batch(world: Any) -> None:
    client = world.connect()
    client.send(
        [{"jsonrpc": "2.0", "id": 1, "method": "initialize"}, {"jsonrpc": "2.0", "id": 2, "method": "do/now"}]
    )
    batch = await client.next()
    assert [m["id"] for m in batch] == [1, 2]
    assert "result" in batch[1]


# -- bounds


async def test_at_most_64_run_and_the_others_follow_in_order(world: Any) -> None:
    client = await world.open()
    ids = [client.ask("do/later", {"tag": str(n), "wait": True}) for n in range(70)]
    await world.work.until(lambda: len(world.work.begun) == 64)
    await client.barrier()
    assert world.work.begun.count("barrier") == 1
    assert (world.server.running, world.server.queued) == (64, 6)
    other = await world.open()
    assert await other.call("do/later", {"tag": "other client"}) == {"tag": "other client"}
    for n in range(70):
        world.work.gate(str(n)).set()
    assert sorted([(await client.next())["id"] for _ in ids]) == ids
    assert [t for t in world.work.begun if t.isdigit()] == [str(n) for n in range(70)]


async def test_more_than_32_mib_waiting_is_overloaded_at_once(world: Any) -> None:
    client = await world.open()
    running = [client.ask("do/later", {"tag": f"r{n}", "wait": True}) for n in range(64)]
    await world.work.until(lambda: len(world.work.begun) == 64)
    size = 1024 * 1024
    ids = [client.ask("do/later", {"tag": "x" * size}) for _ in range(40)]
    refused = []
    while len(refused) < 9:
        message = await client.next()
        assert kind(message) == "overloaded"
        assert message["error"]["data"]["retryable"]
        assert message["error"]["data"]["limit"] == 32 * 1024 * 1024
        refused.append(message["id"])
    assert refused == ids[31:]
    assert await client.call("do/now", {"tag": "inline passes"}) == {"tag": "inline passes"}
    for n in range(64):
        world.work.gate(f"r{n}").set()
    answered = [(await client.next()) for _ in range(64 + 31)]
    assert {m["id"] for m in answered} == {*running, *ids[:31]}
    assert all("result" in m for m in answered)
    again = client.ask("do/later", {"tag": "room again"})
    await client.answer(again)


async def test_cancel_of_what_waits_makes_room(world: Any) -> None:
    client = await world.open()
    for n in range(64):
        client.ask("do/later", {"tag": f"r{n}", "wait": True})
    ids = [client.ask("do/later", {"tag": "x" * 1024 * 1024}) for _ in range(31)]
    assert kind(await client.answer(client.ask("do/later", {"tag": "x" * 1024 * 1024}))) == "overloaded"
    client.tell("$/cancelRequest", {"id": ids[0]})
    await client.answer(ids[0])
    client.ask("do/later", {"tag": "x" * 1024 * 1024})
    await client.barrier()
    assert world.server.queued == 31


# -- disconnect


async def test_a_client_that_leaves_cancels_what_it_asked_for(world: Any) -> None:
    client = await world.open()
    for n in range(64):
        client.ask("do/later", {"tag": f"r{n}", "wait": True})
    client.ask("do/turn", {"tag": "waits", "sessionId": "s"})
    await world.work.until(lambda: len(world.work.begun) == 64)
    client.end.close()
    assert await client.next() is None
    await world.until(lambda: world.server.running == 0)
    assert (world.server.queued, world.server.connections) == (0, 0)
    assert sorted(world.work.cancelled) == sorted(f"r{n}" for n in range(64))
    assert "waits" not in world.work.begun


async def test_what_handlers_do_after_their_client_left_harms_nobody(world: Any) -> None:
    client = await world.open()
    for n, then in enumerate(("answer", "fail", "crash", "unencodable")):
        client.ask("do/later", {"tag": str(n), "then": then, "wait": True, "onCancel": "ignore"})
    await world.work.until(lambda: len(world.work.begun) == 4)
    client.end.close()
    await world.until(lambda: world.server.connections == 0)
    assert world.server.running == 4
    for n in range(4):
        world.work.gate(str(n)).set()
    await world.until(lambda: world.server.running == 0)
    assert len([r for r in world.log.records if r.exc_info]) == 1
    other = await world.open()
    assert await other.call("do/now", {"tag": "a"}) == {"tag": "a"}


async def test_the_end_of_input_waits_for_the_answers(world: Any) -> None:
    client = await world.open()
    slow = client.ask("do/later", {"tag": "slow", "wait": True})
    turn = client.ask("do/turn", {"tag": "turn", "sessionId": "s"})
    client.end.write(b'{"jsonrpc":"2.0","id":"unended","method":"do/now"}')
    client.end.end()
    assert {(await client.next())["id"] for _ in range(2)} == {turn, "unended"}
    assert world.server.connections == 1
    world.work.gate("slow").set()
    assert (await client.answer(slow))["result"] == {"tag": "slow"}
    assert await client.next() is None
    await world.until(lambda: world.server.connections == 0)


@pytest.mark.parametrize("framing", ["lines", "headers"])
async def test_the_end_of_input_without_a_question_closes(world: Any, framing: str) -> None:
    client = await world.open(framing)
    client.end.end()
    assert await client.next() is None
    silent = world.connect()
    silent.end.end()
    assert await silent.next() is None


async def test_shutdown_is_answered_though_the_input_ended(world: Any) -> None:
    client = await world.open()
    client.ask("do/later", {"tag": "a", "wait": True})
    id = client.ask("shutdown")
    client.end.end()
    rest = await client.rest()
    assert rest[-1] == {"jsonrpc": "2.0", "id": id, "result": {}}
    assert len(rest) == 2


async def test_tasks_belong_to_the_connection_alone(world: Any) -> None:
    before = asyncio.all_tasks()
    client = await world.open()
    client.ask("do/later", {"tag": "a", "wait": True})
    await world.work.until(lambda: world.work.begun == ["a"])
    assert len(asyncio.all_tasks() - before) == 1
    client.end.close()
    await world.until(lambda: world.server.running == 0)
    assert asyncio.all_tasks() == before
