"""The endpoints, and what a test in the same process sees of them."""

from __future__ import annotations

import asyncio

import pytest
from dragoman_sim import (
    Gate,
    Limits,
    Reply,
    Rule,
    Script,
    ScriptError,
    Simulator,
    Tokens,
    When,
)  # fmt: skip


async def test_without_a_script_the_prompt_is_echoed(http):
    async with Simulator() as sim:
        answer = await http.message(sim.url, "hello")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"].startswith("req_sim")
    assert answer.text() == "You said: hello"
    assert [name for name, _ in answer.events()] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert all(name == data["type"] for name, data in answer.events())


async def test_without_a_stream_the_message_comes_whole(http):
    async with Simulator([Rule(reply=Reply(["one ", "two"], stop_reason="max_tokens"))]) as sim:
        answer = await http.message(sim.url, "hello", stream=False)
    told = answer.json()
    assert told["content"] == [{"type": "text", "text": "one two"}]
    assert (told["type"], told["role"], told["model"]) == ("message", "assistant", "claude-opus-5-5")
    assert told["stop_reason"] == "max_tokens"
    assert told["usage"]["input_tokens"] > 0
    assert told["usage"]["output_tokens"] == 2


async def test_records_tell_who_asked_what_in_which_order_and_keep_no_key(http, key):
    async with Simulator() as sim:
        await http.ask(
            sim.url, "GET", "/v1/models", x_api_key=key, user_agent="claude-cli/2.0 (x)", x_app="cli"
        )
        await http.message(sim.url, "first")
        await http.ask(sim.url, "POST", "/nowhere", b"{}", authorization=f"Bearer {key}", cookie="secret")
        models, first, nowhere = sim.requests
        assert sim.messages == [first]
    assert [record.number for record in (models, first, nowhere)] == [1, 2, 3]
    assert (first.message_number, first.query, first.method) == (1, "beta=true", "POST")
    assert models.at <= first.at <= nowhere.at
    assert models.from_claude_code
    assert not first.from_claude_code
    assert (models.credential, nowhere.credential) == ("x-api-key", "authorization")
    assert first.used_key(key)
    assert nowhere.used_key(key)
    assert not first.used_key("sk-ant-api03-other")
    assert key not in repr(sim.requests)
    assert "secret" not in repr(nowhere)
    assert first.json()["messages"][0]["content"] == "first"
    assert (nowhere.status, nowhere.prompt, nowhere.claude_session_id) == (404, "", None)


async def test_waiting_in_vain_says_what_there_was(http):
    async with Simulator() as sim:
        await http.message(sim.url, "first")
        with pytest.raises(
            TimeoutError, match=r"2 requests to /v1/messages.*POST /v1/messages \(answered, 200\)"
        ):
            await sim.wait_for(2, deadline_s=0.01)


async def test_a_condition_that_fails_fails_its_waiter_alone(http):
    async with Simulator() as sim:
        waiting = asyncio.ensure_future(sim.wait_for(lambda record: record.nonsense))
        other = asyncio.ensure_future(sim.wait_for(1))
        assert (await http.message(sim.url, "hello")).status == 200
        assert (await other).prompt == "hello"
        with pytest.raises(AttributeError):
            await waiting


async def test_the_endpoints_without_a_model(http, key, message_body):
    async with Simulator(Script(models=["a-model", "b-model"])) as sim:
        listed = (await http.ask(sim.url, "GET", "/v1/models?limit=9", x_api_key=key)).json()
        one = await http.ask(sim.url, "GET", "/v1/models/b-model", x_api_key=key)
        none = await http.ask(sim.url, "GET", "/v1/models/c-model", x_api_key=key)
        body = message_body("count me " * 100, max_tokens=None)
        counted = await http.ask(sim.url, "POST", "/v1/messages/count_tokens", body, x_api_key=key)
        await sim.wait_for(lambda record: record.path.endswith("count_tokens"))
        sim.use(Script(models=[]))
        empty = (await http.ask(sim.url, "GET", "/v1/models", x_api_key=key)).json()
    assert [model["id"] for model in listed["data"]] == ["a-model", "b-model"]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("a-model", "b-model", False)
    assert one.json()["id"] == "b-model"
    assert none.status == 404
    assert counted.json() == {"input_tokens": len(body) // 4}
    assert empty == {"data": [], "has_more": False}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/v1/complete"),
        ("GET", "/v1/messages"),
        ("DELETE", "/v1/models"),
        ("HEAD", "/"),
    ],
)
async def test_anything_else_is_not_found_in_the_shape_of_the_api(http, key, method, path):
    async with Simulator() as sim:
        answer = await http.ask(sim.url, method, path, x_api_key=key)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    if method == "HEAD":
        assert answer.body == b""
    else:
        told = answer.json()
        assert (told["type"], told["error"]["type"]) == ("error", "not_found_error")
        assert told["request_id"] == answer.headers["request-id"]


async def test_a_credential_is_needed_and_may_be_checked(http, key, message_body):
    body = message_body("hello")
    async with Simulator(Script(keys=["sk-ant-right"])) as sim:
        none = await http.ask(sim.url, "POST", "/v1/messages", body)
        basic = await http.ask(sim.url, "POST", "/v1/messages", body, authorization="Basic abc")
        wrong = await http.ask(sim.url, "POST", "/v1/messages", body, x_api_key=key)
        right = await http.ask(sim.url, "POST", "/v1/messages", body, authorization="Bearer sk-ant-right")
    assert [answer.status for answer in (none, basic, wrong, right)] == [401, 401, 401, 200]
    assert "required" in none.json()["error"]["message"]
    assert wrong.json()["error"]["message"] == "invalid x-api-key"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        (b'{"model": "m", "max_tokens": 1}', "messages"),
        (b'{"model": "m", "max_tokens": 1, "messages": []}', "at least one"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}', "max_tokens"),
    ],
)
async def test_a_wrong_request_is_refused_and_the_connection_goes_on(http, key, body, text):
    async with Simulator() as sim:
        exchange = await http.send(sim.url, "POST", "/v1/messages", body, x_api_key=key)
        answer = await exchange.response()
        assert answer.status == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert text in answer.json()["error"]["message"]
        await http.send(sim.url, "GET", "/v1/models", on=exchange, x_api_key=key)
        assert (await exchange.response()).status == 200


async def test_a_request_that_is_too_long_is_refused(http, key):
    async with Simulator(Script(max_request_bytes=1000)) as sim:
        exchange = await http.send(sim.url, "POST", "/v1/messages", b"x" * 1001, x_api_key=key)
        answer = await exchange.response()
        assert (answer.status, answer.json()["error"]["type"]) == (413, "request_too_large")
        await http.send(sim.url, "POST", "/v1/messages", b"x" * 1000, on=exchange, x_api_key=key)
        assert (await exchange.response()).status == 400


async def test_the_rate_limit_is_real_and_its_headers_tell_it(http):
    now = [100.0]
    limits = Limits(requests_per_minute=2, input_tokens_per_minute=10_000, output_tokens_per_minute=60)
    script = Script(
        limits=limits, rules=[Rule(When(text="long"), Reply(["x"], usage=Tokens(output_tokens=90)))]
    )
    async with Simulator(script, clock=lambda: now[0]) as sim:
        first = await http.message(sim.url, "hello")
        second = await http.message(sim.url, "long")
        third = await http.message(sim.url, "hello")
        now[0] += 30
        in_debt = await http.message(sim.url, "hello")
        now[0] += 6
        after = await http.message(sim.url, "hello")
        sim.use(Script(limits=Limits(requests_per_minute=1, enforce=False)))
        free = [await http.message(sim.url, "hello") for _ in range(3)]
    assert [answer.status for answer in (first, second, third)] == [200, 200, 429]
    assert first.headers["anthropic-ratelimit-requests-limit"] == "2"
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "1"
    assert first.headers["anthropic-ratelimit-output-tokens-remaining"] == str(60 - 4)
    assert first.headers["anthropic-ratelimit-input-tokens-reset"].endswith("Z")
    assert second.headers["anthropic-ratelimit-output-tokens-remaining"] == "0"
    assert third.json()["error"]["type"] == "rate_limit_error"
    assert third.headers["retry-after"] == "35"  # 34 tokens of debt and one to go on with, one a second
    assert in_debt.status == 429
    assert in_debt.headers["retry-after"] == "5"
    assert after.status == 200
    assert [answer.status for answer in free] == [200, 200, 200]
    assert free[2].headers["anthropic-ratelimit-requests-remaining"] == "0"


async def test_reset_is_as_new(http):
    async with Simulator(
        [Rule(When(text="once"), "scripted", times=1), Rule(When(text="hold"), Reply([Gate("g")]))]
    ) as sim:
        held = await http.start(sim.url, "hold")
        await sim.gate("g").wait_arrived()
        assert (await http.message(sim.url, "once")).text() == "scripted"
        assert (await http.message(sim.url, "once")).text() == "You said: once"
        sim.reset()
        assert (await held.response()).ended in ("cut", "reset")
        assert sim.requests == []
        assert sim.gate("g").arrived == 0
        assert (await http.message(sim.url, "once")).text() == "scripted"
        assert (await sim.wait_for(1)).rule == 0


def test_a_script_that_cannot_work_is_refused_at_once():
    with pytest.raises(ScriptError, match="no fault 'unheard_of'"):
        Simulator([Rule(fault="unheard_of")])


async def test_it_listens_on_loopback_only():
    async with Simulator() as sim:
        assert sim.url.startswith("http://127.0.0.1:")
        assert [sock.getsockname()[0] for sock in sim._server.sockets] == ["127.0.0.1"]
