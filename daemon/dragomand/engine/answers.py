"""The answer of a turn: of one that has just ended, or of a message that was run before."""

from typing import Literal

import msgspec
from dragoman_protocol.query import QueryRunResult, StructuredAnswer
from dragoman_protocol.stream import AssistantText, StructuredOutput, TurnStarted

from dragomand.store.rows import TurnRow
from dragomand.store.store import Store
from dragomand.upstream.interface import TurnOutcome

from .errors import EngineError
from .records import to_event
from .sessions import storage_errors, usage_of
from .upstream_choice import WIRE


def result_of(
    row: TurnRow,
    text: str,
    claude_session_id: str | None,
    *,
    reason: str | None = None,
    structured: StructuredAnswer | None = None,
    start: Literal["warm", "cold"] | None = None,
) -> QueryRunResult:
    """Return what a completed turn is answered with; *reason* says why its upstream answered."""
    return QueryRunResult(
        session_id=row.session_id,
        turn_id=row.turn_id,
        text=text,
        upstream=WIRE.get(row.upstream, "claudeCode"),
        model=row.model,
        stop_reason=row.stop_reason,
        usage=usage_of(row),
        cost_usd=row.cost_usd,
        duration_ms=row.duration_ms or 0,
        queued_ms=row.queued_ms,
        claude_session_id=claude_session_id,
        upstream_reason=reason,
        structured=structured,
        start=start,
    )


def note_usage(row: TurnRow, outcome: TurnOutcome) -> None:
    """Put what a turn took into its row."""
    usage = outcome.usage
    row.input_tokens = usage.input_tokens
    row.output_tokens = usage.output_tokens
    row.cache_read_tokens = usage.cache_read_tokens
    row.cache_creation_tokens = usage.cache_creation_tokens
    row.cost_usd = outcome.cost_usd
    row.model = outcome.model
    row.stop_reason = outcome.stop_reason
    row.claude_leaf_id = outcome.leaf_id
    row.claude_message_count = outcome.message_count


def check_same(message_id: str, first: str | None, second: str | None) -> None:
    """Raise `message_conflict` when the digests of two submissions with one message id differ."""
    if first != second:
        raise EngineError(
            "message_conflict",
            f"The messageId {message_id!r} was used for another request; make a new one for each prompt.",
            message_id=message_id,
        )


async def stored_turn(store: Store, message_id: str, digest: str) -> TurnRow | None:
    """Return the turn that ran this message; None if none did. Raises `message_conflict`."""
    with storage_errors():
        turn = await store.turn_by_message(message_id)
    if turn is not None:
        check_same(message_id, turn.request_digest, digest)
    return turn


async def replay(store: Store, turn: TurnRow) -> QueryRunResult:
    """Return the stored answer of an ended turn, or raise its stored error."""
    if turn.status != "completed":
        raise _stored_error(turn)
    with storage_errors():
        items = await store.turn_items(turn.turn_id)
        session = await store.session(turn.session_id)
    events = [to_event(item) for item in items]
    texts = [event.text for event in events if isinstance(event, AssistantText)]
    starts = [event.upstream_reason for event in events if isinstance(event, TurnStarted)]
    fits = [event for event in events if isinstance(event, StructuredOutput)]
    result = result_of(
        turn,
        texts[-1] if texts else "",
        session.claude_session_id if session else None,
        reason=starts[0] if starts else None,
        structured=StructuredAnswer(value=fits[-1].value, attempts=fits[-1].attempts) if fits else None,
    )
    return msgspec.structs.replace(result, replayed=True)


def _stored_error(turn: TurnRow) -> EngineError:
    about = {"session_id": turn.session_id, "turn_id": turn.turn_id}
    if turn.status == "failed" and turn.error:
        facts = msgspec.json.decode(turn.error)
        return EngineError(facts.pop("kind"), facts.pop("message", None), **{**facts, **about})
    if turn.status == "cancelled":
        return EngineError("request_cancelled", **about)
    return EngineError("turn_interrupted", message_id=turn.message_id, **about)
