"""Events to stored items and back. The one place that knows both shapes, so that either can change alone.

The names on the right are what the database holds: renaming a field of an event never changes a stored row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from dragoman_protocol import stream
from dragoman_protocol.content import Prompt
from dragoman_protocol.query import OutputAttempt
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import Event

from dragomand.store.rows import ItemRow

from .errors import to_camel, to_snake


def _same(value: Any) -> Any:
    return value


def _prompt(value: Any) -> Any:
    return msgspec.convert(value, Prompt)


def _usage_out(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_creation_tokens": usage.cache_creation_tokens,
    }


def _usage_in(value: dict[str, int]) -> Usage:
    return Usage(**value)


def _attempts_out(attempts: list[OutputAttempt]) -> list[dict[str, Any]]:
    return [
        {"usage": _usage_out(each.usage), "cost_usd": each.cost_usd, "error": each.error, "path": each.path}
        for each in attempts
    ]


def _attempts_in(stored: list[dict[str, Any]]) -> list[OutputAttempt]:
    return [
        OutputAttempt(
            usage=_usage_in(each["usage"]), cost_usd=each["cost_usd"], error=each["error"], path=each["path"]
        )
        for each in stored
    ]


class _Field(NamedTuple):
    attribute: str
    stored: str
    out: Callable[[Any], Any] = _same
    back: Callable[[Any], Any] = _same


class _Shape(NamedTuple):
    type: type[Any]
    kind: str
    fields: tuple[_Field, ...]


def _error_out(told: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if told is None else {to_snake(name): value for name, value in told.items()}


def _error_in(facts: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if facts is None else {to_camel(name): value for name, value in facts.items()}


_TURN_ID = _Field("turn_id", "turn_id")
_ITEM_ID = _Field("item_id", "item_id")
_TEXT = _Field("text", "text")
_PERMISSION_ID = _Field("permission_id", "permission_id")

_SHAPES = (
    _Shape(stream.TurnStarted, "turn_started",
           (_TURN_ID, _Field("message_id", "message_id"), _Field("queued_ms", "queued_ms"),
            _Field("upstream", "upstream"), _Field("upstream_reason", "upstream_reason"))),
    _Shape(stream.ProcessStarted, "process_started",
           (_Field("reason", "reason"), _Field("start", "start"),
            _Field("claude_session_id", "claude_session_id"))),
    _Shape(stream.UserMessage, "user_message", (_ITEM_ID, _Field("content", "content", _same, _prompt))),
    _Shape(stream.AssistantText, "assistant_text", (_ITEM_ID, _TEXT)),
    _Shape(stream.Thinking, "thinking", (_ITEM_ID, _TEXT)),
    _Shape(stream.ToolUse, "tool_use", (_ITEM_ID, _Field("name", "name"), _Field("input", "input"))),
    _Shape(stream.ToolResult, "tool_result",
           (_ITEM_ID, _Field("tool_use_id", "tool_use_id"), _Field("content", "content"),
            _Field("is_error", "is_error"))),
    _Shape(stream.PermissionAsked, "permission_asked",
           (_PERMISSION_ID, _Field("tool_name", "tool_name"), _Field("input", "input"))),
    _Shape(stream.PermissionResolved, "permission_resolved",
           (_PERMISSION_ID, _Field("decision", "decision"), _Field("by", "by"))),
    _Shape(stream.StructuredOutput, "structured_output",
           (_Field("value", "value"), _Field("attempts", "attempts", _attempts_out, _attempts_in))),
    _Shape(stream.UsageReported, "usage",
           (_Field("usage", "usage", _usage_out, _usage_in), _Field("cost_usd", "cost_usd"))),
    _Shape(stream.TurnCompleted, "turn_completed",
           (_TURN_ID, _Field("status", "status"), _Field("stop_reason", "stop_reason"),
            _Field("error", "error", _error_out, _error_in))),
)  # fmt: skip

_BY_TYPE = {shape.type: shape for shape in _SHAPES}
_BY_KIND = {shape.kind: shape for shape in _SHAPES}
_encode = msgspec.json.Encoder().encode


def is_durable(event: Event) -> bool:
    """Tell whether *event* is stored and numbered."""
    return type(event) in _BY_TYPE


def to_row(event: Event, *, session_id: str, turn_id: str, seq: int, created_at: float) -> ItemRow:
    """Make the row of a durable event; `KeyError` for an ephemeral one."""
    shape = _BY_TYPE[type(event)]
    body = {field.stored: field.out(getattr(event, field.attribute)) for field in shape.fields}
    return ItemRow(
        session_id=session_id,
        turn_id=turn_id,
        seq=seq,
        item_id=_item_id(event, turn_id, seq),
        kind=shape.kind,
        created_at=created_at,
        body=_encode(body),
    )


def to_event(row: ItemRow) -> Event:
    """Make the event of a row again; what an older version had not stored takes its default.

    A kind that only a newer version knows comes back as `Raw`, so that its session stays readable. The turn
    is the row's: a fork has copies of another session's items, whose bodies name the turns there.
    """
    shape = _BY_KIND.get(row.kind)
    if shape is None:
        return stream.Raw(frame=msgspec.Raw(row.body))
    body = msgspec.json.decode(row.body)
    known = {
        field.attribute: field.back(body[field.stored]) for field in shape.fields if field.stored in body
    }
    if _TURN_ID in shape.fields:
        known["turn_id"] = row.turn_id
    event: Event = shape.type(**known)
    return event


def _item_id(event: Event, turn_id: str, seq: int) -> str:
    own = getattr(event, "item_id", None) or getattr(event, "permission_id", None)
    return own or f"{turn_id}:{seq}"
