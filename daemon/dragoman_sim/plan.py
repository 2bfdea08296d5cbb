"""From a reply and a fault to the steps of an answer: bytes of the event stream, and waits between them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from dragoman_sim.conversation import Conversation, tokens_of
from dragoman_sim.event_stream import DAMAGED
from dragoman_sim.script import (
    Cut,
    Fault,
    Gate,
    Malformed,
    Pause,
    Ping,
    Pings,
    Reply,
    Stall,
    Status,
    StreamError,
    Thinking,
    Tokens,
    ToolUse,
)  # fmt: skip
from dragoman_sim.template import fill, is_template

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
LONG_LINE_CHARS = 3 * 1024 * 1024
_SIGNATURE = "c2ltdWxhdGVkLXNpZ25hdHVyZQ=="

Wait = Gate | Pause | Stall | Pings | Cut | StreamError
Step = bytes | Wait
"""Bytes to send, or: wait at a gate, a time, for ever; send pings; break off; end with an error event."""

Fill = Callable[[Any], Any]


@dataclass(slots=True)
class Plan:
    """One answer of the model, as a stream's steps and as a message's content."""

    steps: list[Step] = field(default_factory=list)
    """From after `message_start` to before `message_delta`."""
    content: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str = "end_turn"
    output_tokens: int = 0
    malformed: Malformed | None = None

    @property
    def flows(self) -> bool:
        """Whether the stream is bytes from end to end."""
        return all(isinstance(step, bytes) for step in self.steps)


def make_plan(
    reply: Reply,
    fault: Fault | None,
    conversation: Conversation,
    match: re.Match[str] | None,
    new_tool_id: Callable[[], str],
) -> Plan:
    """Return the plan of *reply*, with *fault* where it strikes inside the body."""
    writer = _Writer(reply, fault, lambda value: fill(value, conversation, match), new_tool_id)
    return writer.write()


def is_constant(reply: Reply) -> bool:
    """Return whether *reply* is the same for every request, so that its plan may be kept."""
    return not any(isinstance(part, ToolUse) or is_template(_words(part)) for part in reply.content)


def message_start(message_id: str, model: str, usage: Tokens, conversation: Conversation) -> bytes:
    """Return the stream's first event."""
    counts = usage_of(usage, conversation, 1)
    message = _message(message_id, model, [], None, counts)
    return _event("message_start", {"type": "message_start", "message": message})


def message_end(plan: Plan, usage: Tokens, conversation: Conversation) -> bytes:
    """Return the stream's last events."""
    counts = usage_of(usage, conversation, plan.output_tokens)
    delta = {"stop_reason": plan.stop_reason, "stop_sequence": None}
    ended = _event("message_delta", {"type": "message_delta", "delta": delta, "usage": counts})
    return ended + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def whole_message(
    plan: Plan, message_id: str, model: str, usage: Tokens, conversation: Conversation
) -> bytes:
    """Return the body of an answer without a stream."""
    counts = usage_of(usage, conversation, plan.output_tokens)
    body = msgspec.json.encode(_message(message_id, model, plan.content, plan.stop_reason, counts))
    return body if plan.malformed is None else _spoil(body, plan.malformed)


def error_event(fault: StreamError) -> bytes:
    """Return the `error` event."""
    return _event("error", {"type": "error", "error": {"type": fault.error_type, "message": fault.message}})


def usage_of(usage: Tokens, conversation: Conversation, output_tokens: int) -> dict[str, int]:
    """Return the counts to report: the script's, else the estimates."""
    given_in, given_out = usage.input_tokens, usage.output_tokens
    return {
        "input_tokens": conversation.input_tokens if given_in is None else given_in,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "output_tokens": output_tokens if given_out is None else given_out,
    }


class _Writer:
    """Writes one plan."""

    def __init__(self, reply: Reply, fault: Fault | None, fill: Fill, new_tool_id: Callable[[], str]) -> None:
        self._reply = reply
        self._fault = fault
        self._fill = fill
        self._new_tool_id = new_tool_id
        self._plan = Plan()
        self._text: list[str] | None = None  # the strings of the text block that is open
        self._index = 0
        self._first = True  # no delta was sent yet

    def write(self) -> Plan:
        plan = self._plan
        self._strike("before_block")
        for part in self._reply.content:
            self._part(part)
        self._end_text()
        self._strike("inside_block")
        self._strike("after_block")
        tools = bool(plan.content) and plan.content[-1]["type"] == "tool_use"
        plan.stop_reason = self._reply.stop_reason or ("tool_use" if tools else "end_turn")
        plan.steps = joined(plan.steps)
        return plan

    def _part(self, part: Any) -> None:
        if isinstance(part, str):
            self._write_text(self._fill(part))
        elif isinstance(part, Gate | Pause):
            self._plan.steps.append(part)
        elif isinstance(part, Ping):
            self._plan.steps.append(PING)
        else:
            self._end_text()
            if isinstance(part, Thinking):
                self._write_thinking(self._fill(part.thinking))
            else:
                self._write_tool(part)

    def _write_text(self, text: str) -> None:
        if self._text is None:
            self._text = []
            self._start({"type": "text", "text": ""})
        self._text.append(text)
        self._deltas("text_delta", "text", text)

    def _end_text(self) -> None:
        if self._text is not None:
            text, self._text = "".join(self._text), None
            self._stop({"type": "text", "text": text}, text)

    def _write_thinking(self, thinking: str) -> None:
        self._start({"type": "thinking", "thinking": "", "signature": ""})
        self._deltas("thinking_delta", "thinking", thinking)
        self._delta("signature_delta", "signature", _SIGNATURE)
        self._stop({"type": "thinking", "thinking": thinking, "signature": _SIGNATURE}, thinking)

    def _write_tool(self, part: ToolUse) -> None:
        block = {"type": "tool_use", "id": part.id or self._new_tool_id(), "name": part.name}
        given = self._fill(part.input)
        text = msgspec.json.encode(given).decode()
        self._start({**block, "input": {}})
        self._delta("input_json_delta", "partial_json", "")
        self._deltas("input_json_delta", "partial_json", text)
        self._stop({**block, "input": given}, text)

    def _start(self, block: dict[str, Any]) -> None:
        data = {"type": "content_block_start", "index": self._index, "content_block": block}
        self._plan.steps.append(_event("content_block_start", data))

    def _deltas(self, kind: str, name: str, text: str) -> None:
        size = self._reply.piece_chars if self._reply.piece_chars > 0 else max(1, len(text))
        for start in range(0, len(text), size):
            self._delta(kind, name, text[start : start + size])
            if self._reply.delay_ms > 0:
                self._plan.steps.append(Pause(self._reply.delay_ms))

    def _delta(self, kind: str, name: str, text: str) -> None:
        self._plan.steps.append(
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"%b","%b":%b}}\n\n'
            % (self._index, kind.encode(), name.encode(), msgspec.json.encode(text))
        )
        if self._first:
            self._first = False
            self._strike("inside_block")

    def _stop(self, block: dict[str, Any], text: str) -> None:
        data = {"type": "content_block_stop", "index": self._index}
        self._plan.steps.append(_event("content_block_stop", data))
        self._plan.content.append(block)
        self._plan.output_tokens += max(1, tokens_of(text))
        if self._index == 0:
            self._strike("inside_block")  # an empty block had no delta to strike after
            self._strike("after_block")
        self._index += 1

    def _strike(self, at: str) -> None:
        fault = self._fault
        if fault is None or isinstance(fault, Status) or fault.at != at:
            return
        self._fault = None
        if isinstance(fault, Malformed):
            self._plan.malformed = fault
            self._plan.steps.append(_malformed(fault, self._index))
        else:
            if isinstance(fault, Cut) and fault.delay_ms > 0:
                self._plan.steps.append(Pause(fault.delay_ms))
            self._plan.steps.append(fault)


def _words(part: Any) -> str:
    return part.thinking if isinstance(part, Thinking) else part if isinstance(part, str) else ""


def joined(steps: list[Step]) -> list[Step]:
    """Return *steps* with bytes that follow each other in one piece."""
    joined: list[Step] = []
    run: list[bytes] = []
    for step in steps:
        if isinstance(step, bytes):
            run.append(step)
            continue
        if run:
            joined.append(b"".join(run))
            run = []
        joined.append(step)
    if run:
        joined.append(b"".join(run))
    return joined


def _message(
    message_id: str, model: str, content: list[dict[str, Any]], stop_reason: str | None, usage: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": message_id, "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": stop_reason, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def _malformed(fault: Malformed, index: int) -> bytes:
    start = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % index
    if fault.what == "json":
        return start + b'{"type":"text_delta","text":"bro\n\n'
    if fault.what == "checksum":
        return DAMAGED
    if fault.what == "sse":
        return b"this is no event\ndata\n:\nevent content_block_delta\n\n"
    return start + b'{"type":"text_delta","text":"%b"}}\n\n' % _odd_text(fault)


def _odd_text(fault: Malformed) -> bytes:
    if fault.what == "utf8":
        return b"bad \xff\xfe\xc3 bytes"
    if fault.what == "surrogate":
        return rb"lone \ud83d surrogate"
    return b"x" * LONG_LINE_CHARS


def _spoil(body: bytes, fault: Malformed) -> bytes:
    """Return *body* spoilt in the way of the fault, for an answer without a stream."""
    if fault.what == "json":
        return body[: len(body) // 2]
    if fault.what == "sse":
        return b"this is no message\n\n"
    if fault.what == "checksum":
        return body  # it has none
    return b'{"odd":"%b",%b' % (_odd_text(fault), body[1:])
