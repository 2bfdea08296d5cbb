"""Stored bodies. They are golden: renaming a field of the wire must not change what is in a database."""

from typing import Any, get_args

import msgspec
import pytest
from dragoman_protocol.content import DocumentBlock, ImageBlock, TextBlock
from dragoman_protocol.query import OutputAttempt
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import (
    EPHEMERAL,
    AssistantText,
    Event,
    PermissionAsked,
    PermissionResolved,
    ProcessStarted,
    RateLimit,
    Raw,
    Retrying,
    StructuredOutput,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolResult,
    ToolUse,
    TurnCompleted,
    TurnStarted,
    UsageReported,
    UserMessage,
    Waiting,
)
from dragomand.engine.records import is_durable, to_event, to_row
from dragomand.store.rows import ItemRow

GOLDEN: list[tuple[Any, str, str, str]] = [
    (
        ProcessStarted(reason="died", start="cold", claude_session_id="c"),
        "process_started",
        "t:9",
        '{"reason":"died","start":"cold","claude_session_id":"c"}',
    ),
    (
        TurnStarted(turn_id="t", message_id="m", queued_ms=7),
        "turn_started",
        "t:9",
        '{"turn_id":"t","message_id":"m","queued_ms":7,"upstream":"claudeCode","upstream_reason":null}',
    ),
    (
        TurnStarted(turn_id="t", upstream="messagesApi", upstream_reason="asked for"),
        "turn_started",
        "t:9",
        (
            '{"turn_id":"t","message_id":null,"queued_ms":0,"upstream":"messagesApi",'
            '"upstream_reason":"asked for"}'
        ),
    ),
    (
        StructuredOutput(
            value={"isGood": [1]},
            attempts=[OutputAttempt(error="no", path="$"), OutputAttempt(cost_usd=0.5)],
        ),
        "structured_output",
        "t:9",
        (
            '{"value":{"isGood":[1]},"attempts":['
            '{"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_creation_tokens":0},'
            '"cost_usd":null,"error":"no","path":"$"},'
            '{"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_creation_tokens":0},'
            '"cost_usd":0.5,"error":null,"path":null}]}'
        ),
    ),
    (UserMessage(item_id="i", content="hi"), "user_message", "i", '{"item_id":"i","content":"hi"}'),
    (
        UserMessage(
            item_id="i",
            content=[
                TextBlock(text="a"),
                ImageBlock(source={"type": "url", "url": "u"}),
                DocumentBlock(source={"type": "text"}, title="T"),
            ],
        ),
        "user_message",
        "i",
        (
            '{"item_id":"i","content":[{"type":"text","text":"a"},'
            '{"type":"image","source":{"type":"url","url":"u"}},'
            '{"type":"document","source":{"type":"text"},"title":"T"}]}'
        ),
    ),
    (AssistantText(item_id="i", text="ö😀"), "assistant_text", "i", '{"item_id":"i","text":"ö😀"}'),
    (Thinking(item_id="i", text="hm"), "thinking", "i", '{"item_id":"i","text":"hm"}'),
    (
        ToolUse(item_id="i", name="Bash", input={"command": "ls", "isGood": [1, None]}),
        "tool_use",
        "i",
        '{"item_id":"i","name":"Bash","input":{"command":"ls","isGood":[1,null]}}',
    ),
    (
        ToolResult(item_id="i", tool_use_id="u", content=[{"type": "text"}], is_error=True),
        "tool_result",
        "i",
        '{"item_id":"i","tool_use_id":"u","content":[{"type":"text"}],"is_error":true}',
    ),
    (
        PermissionAsked(permission_id="p", tool_name="Write", input={"path": "x"}),
        "permission_asked",
        "p",
        '{"permission_id":"p","tool_name":"Write","input":{"path":"x"}}',
    ),
    (
        PermissionResolved(permission_id="p", decision="deny", by="noClient"),
        "permission_resolved",
        "p",
        '{"permission_id":"p","decision":"deny","by":"noClient"}',
    ),
    (
        UsageReported(
            usage=Usage(input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_creation_tokens=4),
            cost_usd=0.5,
        ),
        "usage",
        "t:9",
        (
            '{"usage":{"input_tokens":1,"output_tokens":2,"cache_read_tokens":3,"cache_creation_tokens":4},'
            '"cost_usd":0.5}'
        ),
    ),
    (
        TurnCompleted(turn_id="t", status="completed", stop_reason="end_turn"),
        "turn_completed",
        "t:9",
        '{"turn_id":"t","status":"completed","stop_reason":"end_turn","error":null}',
    ),
    (
        TurnCompleted(
            turn_id="t", status="failed", error={"kind": "throttled", "message": "m", "retryAfterMs": 5}
        ),
        "turn_completed",
        "t:9",
        (
            '{"turn_id":"t","status":"failed","stop_reason":null,'
            '"error":{"kind":"throttled","message":"m","retry_after_ms":5}}'
        ),
    ),
]


def row_of(event: Event) -> ItemRow:
    return to_row(event, session_id="s", turn_id="t", seq=9, created_at=1.5)


@pytest.mark.parametrize(("event", "kind", "item_id", "body"), GOLDEN)
def test_a_stored_row_and_back(event: Event, kind: str, item_id: str, body: str) -> None:
    row = row_of(event)
    assert (row.kind, row.item_id, row.body.decode()) == (kind, item_id, body)
    assert (row.session_id, row.turn_id, row.seq, row.created_at) == ("s", "t", 9, 1.5)
    assert to_event(row) == event


def test_every_durable_event_is_among_the_golden_ones() -> None:
    durable = {kind for kind in get_args(Event) if kind not in EPHEMERAL}
    assert {type(event) for event, *_ in GOLDEN} == durable


PASSING: tuple[Event, ...] = (
    TextDelta(item_id="i", offset=0, text=""),
    ThinkingDelta(item_id="i", offset=0, text=""),
    Waiting(reason="r", position=0),
    Retrying(attempt=1, category="overload"),
    RateLimit(window=None, status="allowed"),
    Raw(frame=msgspec.Raw(b"{}")),
)


def test_durable_or_ephemeral() -> None:
    assert {type(event) for event in PASSING} == set(EPHEMERAL)
    assert not any(map(is_durable, PASSING))
    assert all(is_durable(event) for event, *_ in GOLDEN)


def test_an_ephemeral_event_has_no_row() -> None:
    with pytest.raises(KeyError):
        row_of(TextDelta(item_id="i", offset=0, text=""))


def stored(kind: str, body: bytes) -> ItemRow:
    return ItemRow(session_id="s", turn_id="t", seq=1, item_id="i", kind=kind, created_at=0, body=body)


def test_what_an_older_version_did_not_store_has_its_default() -> None:
    assert to_event(stored("turn_started", b'{"turn_id":"t"}')) == TurnStarted(turn_id="t")


def test_what_a_newer_version_stored_beside_is_ignored() -> None:
    assert to_event(stored("thinking", b'{"item_id":"i","text":"x","mood":1}')) == Thinking(
        item_id="i", text="x"
    )


def test_a_kind_of_a_newer_version_keeps_its_session_readable() -> None:
    event = to_event(stored("hologram", b'{"depth":3}'))
    assert isinstance(event, Raw)
    assert bytes(event.frame) == b'{"depth":3}'
    assert b'"frame":{"depth":3}' in msgspec.json.encode(event)
