"""What a reply and a fault make of a stream, and of a message without one."""

from __future__ import annotations

import json

import pytest
from dragoman_sim import (
    Cut,
    Malformed,
    Ping,
    Reply,
    Rule,
    Simulator,
    StreamError,
    Thinking,
    Tokens,
    ToolUse,
    When,
)
from dragoman_sim.plan import LONG_LINE_CHARS

TEXT = "Some words that are long enough for several pieces."
REPLY = Reply([Thinking("a first block"), TEXT])


async def ask(http, fault, *, stream=True):
    async with Simulator([Rule(reply=REPLY, fault=fault)]) as sim:
        answer = await http.message(sim.url, "x", stream=stream)
        outcome = await sim.wait_ended(sim.messages[0])
    return answer, outcome


async def test_blocks_of_every_kind_in_their_order(http):
    reply = Reply(
        [
            Thinking("let me see {model}"), "I ", Ping(), "write.",
            ToolUse("Write", {"path": "{prompt}", "n": [1, "{2}"]}),
        ],
        usage=Tokens(input_tokens=7, output_tokens=9, cache_read_input_tokens=3),
    )  # fmt: skip
    async with Simulator([Rule(reply=reply)]) as sim:
        streamed = await http.message(sim.url, "a.txt")
        whole = (await http.message(sim.url, "a.txt", stream=False)).json()
    thinking, text, tool = whole["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "let me see claude-opus-5-5")
    assert thinking["signature"]
    assert text == {"type": "text", "text": "I write."}
    assert (tool["name"], tool["input"]) == ("Write", {"path": "a.txt", "n": [1, "{2}"]})
    assert whole["stop_reason"] == "tool_use"
    assert whole["usage"] == {
        "input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 9,
    }  # fmt: skip

    events = streamed.events()
    starts = [data["content_block"]["type"] for name, data in events if name == "content_block_start"]
    assert starts == ["thinking", "text", "tool_use"]
    assert [data["index"] for name, data in events if name == "content_block_stop"] == [0, 1, 2]
    deltas = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == tool["input"]
    assert "".join(delta.get("thinking", "") for delta in deltas) == thinking["thinking"]
    assert deltas[[delta["type"] for delta in deltas].index("text_delta") - 1]["type"] == "signature_delta"
    assert ("ping", {"type": "ping"}) in events
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"
    assert events[-2][1]["usage"]["output_tokens"] == 9
    assert events[0][1]["message"]["usage"]["cache_read_input_tokens"] == 3


async def test_ids_are_never_given_twice(http):
    rules = [Rule(reply=Reply([ToolUse("A"), ToolUse("B"), ToolUse("C", id="toolu_mine")]))]
    async with Simulator(rules) as one, Simulator(rules) as two:
        told = [(await http.message(sim.url, "x", stream=False)).json() for sim in (one, one, two)]
    ids = [message["id"] for message in told] + [b["id"] for message in told for b in message["content"][:2]]
    assert len(set(ids)) == len(ids) == 9
    assert told[0]["content"][2]["id"] == "toolu_mine"


async def test_pieces_are_as_long_as_the_script_says(http):
    rules = [
        Rule(When(text="small"), Reply(["0123456789"], piece_chars=4)),
        Rule(When(text="given"), Reply(["01234", "56789"], piece_chars=0)),
    ]
    async with Simulator(rules) as sim:
        small, given = [await http.message(sim.url, prompt) for prompt in ("small", "given")]

    def pieces(answer):
        return [data["delta"]["text"] for name, data in answer.events() if name == "content_block_delta"]

    assert pieces(small) == ["0123", "4567", "89"]
    assert pieces(given) == ["01234", "56789"]


async def test_an_error_event_ends_the_stream(http):
    answer, outcome = await ask(http, StreamError())
    assert (answer.ended, outcome) == ("whole", "answered")
    assert answer.events()[-1] == (
        "error",
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
    )
    assert "content_block_stop" not in [name for name, _ in answer.events()]


async def test_malformed_streams(http):
    got = {
        what: (await ask(http, Malformed(what)))[0]
        for what in ("json", "sse", "utf8", "surrogate", "long_line")
    }
    assert all(
        answer.ended == "whole" and answer.body.endswith(b'"message_stop"}\n\n') for answer in got.values()
    )
    with pytest.raises(json.JSONDecodeError):
        got["json"].events()
    assert b"this is no event\n" in got["sse"].body
    with pytest.raises(UnicodeDecodeError):
        got["utf8"].events()
    assert "\ud83d" in got["surrogate"].text()
    assert max(map(len, got["long_line"].body.split(b"\n"))) > LONG_LINE_CHARS
    assert "x" * LONG_LINE_CHARS in got["long_line"].text()


async def test_malformed_messages(http):
    got = {
        what: (await ask(http, Malformed(what), stream=False))[0]
        for what in ("json", "sse", "utf8", "surrogate", "long_line")
    }
    for what in ("json", "sse"):
        with pytest.raises(json.JSONDecodeError):
            got[what].json()
    with pytest.raises(UnicodeDecodeError):
        got["utf8"].json()
    assert got["surrogate"].json()["odd"] == "lone \ud83d surrogate"
    assert len(got["long_line"].json()["odd"]) == LONG_LINE_CHARS


@pytest.mark.parametrize("fault", [Cut("inside_block"), StreamError(at="after_block"), Cut("after_block")])
async def test_a_fault_strikes_a_reply_that_has_nothing_in_it(http, fault):
    async with Simulator([Rule(reply=Reply([]), fault=fault)]) as sim:
        answer = await http.message(sim.url, "x")
        assert await sim.wait_ended(sim.messages[0]) in ("cut", "answered")
    assert b"message_stop" not in answer.body
