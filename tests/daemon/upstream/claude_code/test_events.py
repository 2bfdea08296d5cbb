"""Frames become events."""

import json
from typing import Any

import pytest
from dragoman_protocol.stream import (
    AssistantText,
    Event,
    RateLimit,
    Raw,
    Retrying,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolResult,
    ToolUse,
)
from dragomand.upstream.claude_code.events import Translator
from dragomand.upstream.claude_code.limits import heard
from dragomand.upstream.claude_code.wire import RateLimitEvent, System, decode


class Told:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.translator = Translator(self.events.append)

    def frame(self, **frame: Any) -> bytes:
        line = json.dumps(frame).encode()
        decoded = decode(line)
        found = None
        if isinstance(decoded, RateLimitEvent | System):
            found = heard(decoded, sent_order=0, now=1_800_000_000.0, model=None)
        self.translator.translate(decoded, line, found)
        return line

    def api(self, **event: Any) -> bytes:
        return self.frame(type="stream_event", event=event)

    def message(self, message_id: str, model: str = "m-1") -> None:
        self.api(type="message_start", message={"id": message_id, "model": model, "content": []})

    def open(self, index: int, type_: str, **more: Any) -> None:
        self.api(type="content_block_start", index=index, content_block={"type": type_, **more})

    def text(self, index: int, text: str) -> None:
        self.api(type="content_block_delta", index=index, delta={"type": "text_delta", "text": text})

    def whole(self, message_id: str, *blocks: dict[str, Any], **more: Any) -> bytes:
        return self.frame(type="assistant", message={"id": message_id, "content": list(blocks)}, **more)

    def raws(self) -> list[bytes]:
        return [bytes(event.frame) for event in self.events if isinstance(event, Raw)]


@pytest.fixture
def told() -> Told:
    return Told()


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def test_offsets_count_code_points(told: Told) -> None:
    told.message("m")
    told.open(0, "text", text="é")
    told.text(0, "😀👩‍🚀")
    told.text(0, "!")
    assert told.events == [
        TextDelta(item_id="m.0", offset=0, text="é"),
        TextDelta(item_id="m.0", offset=1, text="😀👩‍🚀"),
        TextDelta(item_id="m.0", offset=5, text="!"),
    ]


def test_blocks_keep_their_ids_whatever_is_between(told: Told) -> None:
    told.message("m")
    told.open(0, "thinking", thinking="")
    told.api(type="content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"})
    told.api(type="content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"})
    told.whole("m", {"type": "thinking", "thinking": "hm", "signature": "s"})
    told.open(1, "text", text="")
    told.text(1, "a")
    told.whole("m", text("a"))
    told.open(2, "tool_use", id="t1", name="Bash")
    told.api(type="content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": "{"})
    told.whole("m", {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls"}})
    told.open(3, "text", text="")
    told.text(3, "b")
    told.whole("m", text("b"))
    told.api(type="content_block_stop", index=3)
    told.api(type="message_delta", delta={"stop_reason": "end_turn"})
    told.api(type="message_stop")
    assert told.events == [
        ThinkingDelta(item_id="m.0", offset=0, text="hm"),
        Thinking(item_id="m.0", text="hm"),
        TextDelta(item_id="m.1", offset=0, text="a"),
        AssistantText(item_id="m.1", text="a"),
        ToolUse(item_id="t1", name="Bash", input={"command": "ls"}),
        TextDelta(item_id="m.3", offset=0, text="b"),
        AssistantText(item_id="m.3", text="b"),
    ]
    assert (told.translator.text, told.translator.model) == ("b", "m-1")


def test_a_message_that_did_not_stream_has_ids_too(told: Told) -> None:
    told.whole("m", text("a"), {"type": "tool_use", "id": "t", "name": "N", "input": None}, text("b"))
    told.frame(type="assistant", uuid="u", message={"content": "plain"})
    assert told.events == [
        AssistantText(item_id="m.0", text="a"),
        ToolUse(item_id="t", name="N", input={}),
        AssistantText(item_id="m.2", text="b"),
        AssistantText(item_id="u.0", text="plain"),
    ]


def test_a_second_attempt_is_another_item(told: Told) -> None:
    told.message("one")
    told.open(0, "text", text="")
    told.text(0, "ha")
    told.message("two", model="m-2")
    told.open(0, "text", text="")
    told.text(0, "hal")
    told.whole("two", text("half"))
    assert [getattr(event, "item_id", None) for event in told.events] == ["one.0", "two.0", "two.0"]
    assert told.events[1].offset == 0  # type: ignore[union-attr]
    assert told.translator.model == "m-2"


def test_a_delta_without_a_start_is_an_item_nevertheless(told: Told) -> None:
    told.text(0, "a")
    told.api(type="content_block_delta", index=1, delta={"type": "thinking_delta", "thinking": "b"})
    assert told.events == [
        TextDelta(item_id=".0", offset=0, text="a"),
        ThinkingDelta(item_id=".1", offset=0, text="b"),
    ]


def test_results_of_tools(told: Told) -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [text("out")]}
    told.frame(type="user", message={"content": [result, {**result, "is_error": True, "content": "no"}]})
    told.whole("m", {"type": "web_search_tool_result", "tool_use_id": "w", "content": [1]})
    assert told.events == [
        ToolResult(item_id="t.result", tool_use_id="t", content=[text("out")]),
        ToolResult(item_id="t.result", tool_use_id="t", content="no", is_error=True),
        ToolResult(item_id="w.result", tool_use_id="w", content=[1]),
    ]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "user", "isReplay": True, "message": {"content": "what I said"}},
        {"type": "system", "subtype": "init", "model": "m"},
        {"type": "system", "subtype": "status", "status": "requesting"},
        {"type": "command_lifecycle", "command_uuid": "u", "state": "queued"},
        {"type": "keep_alive"},
        {"type": "assistant", "message": {"content": [text("API Error")]}, "is_api_error_message": True},
        {"type": "assistant", "message": {"content": [text("API Error")]}, "error": "overloaded"},
        {"type": "stream_event", "event": {"type": "ping"}},
    ],
)
def test_what_is_known_and_tells_nothing_is_left_out(told: Told, frame: dict[str, Any]) -> None:
    told.frame(**frame)
    assert told.events == []


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "brand_new", "n": 1},
        {"type": "system", "subtype": "brand_new"},
        {"type": "system", "subtype": "compact_boundary"},
        {"type": "user", "message": {"content": "[Request interrupted by user]"}},
        {"type": "user", "message": {"content": [text("a note")]}},
        {"type": "user", "message": {"content": [text("SUB")]}, "parent_tool_use_id": "t"},
        {"type": "assistant", "message": {"id": "s", "content": [text("SUB")]}, "parent_tool_use_id": "t"},
        {"type": "stream_event", "event": {"type": "message_start"}, "parent_tool_use_id": "t"},
        {"type": "stream_event", "event": {"type": "brand_new"}},
        {"type": "stream_event", "event": {"type": "message_start"}},
        {"type": "stream_event", "event": {"type": "content_block_start"}},
        {"type": "stream_event", "event": {"type": "content_block_delta"}},
        {"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "new_delta"}}},
    ],
)  # fmt: skip
def test_what_is_not_known_goes_through_as_it_is(told: Told, frame: dict[str, Any]) -> None:
    line = told.frame(**frame)
    assert told.raws() == [line]
    assert len(told.events) == 1


def test_a_block_that_is_not_known_does_not_hide_the_others(told: Told) -> None:
    line = told.whole("m", {"type": "redacted_thinking", "data": "x"}, text("a"))
    assert told.events[0] == AssistantText(item_id="m.1", text="a")
    assert told.raws() == [line]


def test_a_sub_agent_does_not_move_the_main_text(told: Told) -> None:
    told.message("m")
    told.open(0, "text", text="")
    told.text(0, "main")
    start = {"type": "message_start", "message": {"id": "s"}}
    told.frame(type="stream_event", event=start, parent_tool_use_id="t")
    told.text(0, " text")
    told.whole("m", text("main text"))
    kept = [event for event in told.events if not isinstance(event, Raw)]
    assert kept == [
        TextDelta(item_id="m.0", offset=0, text="main"),
        TextDelta(item_id="m.0", offset=4, text=" text"),
        AssistantText(item_id="m.0", text="main text"),
    ]


def test_retries_and_limits(told: Told) -> None:
    told.frame(type="system", subtype="api_retry", attempt=2, retry_delay_ms=533.6, error="overloaded")
    told.frame(type="system", subtype="api_retry", attempt=3)
    info = {"status": "rejected", "resetsAt": 1800000000, "rateLimitType": "five_hour", "utilization": 1.0}
    week = {"utilization": 0.3, "resetsAt": 1800000007, "status": "brand new"}
    windows = {"seven_day": week, "five_hour": {"utilization": 0.9, "resetsAt": 1}}
    told.frame(type="rate_limit_event", rate_limit_info={**info, "unifiedWindows": windows})
    assert told.events == [
        Retrying(attempt=2, category="overloaded", retry_after_ms=534),
        Retrying(attempt=3, category="unknown"),
        RateLimit(window="five_hour", status="rejected", resets_at=1800000000, utilization=1.0),
        RateLimit(window="seven_day", status="unknown", resets_at=1800000007, utilization=0.3),
    ]
