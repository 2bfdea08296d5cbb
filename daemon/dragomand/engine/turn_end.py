"""Why a turn ended as it did: what whoever asked is told, and what is stored."""

from typing import TYPE_CHECKING

from dragoman_protocol.session import TurnStatus

from dragomand.store.errors import StorageError
from dragomand.upstream.interface import TurnOutcome

from .errors import EngineError, from_failure, from_storage

if TYPE_CHECKING:
    from .turn import Turn


def why_it_ended(turn: "Turn", outcome: TurnOutcome | EngineError) -> EngineError | None:
    """Return what is told of *turn*, of which its upstream says *outcome*; None: it is completed."""
    about = _about(turn)
    said = _said(turn, outcome)
    if turn.channel.failure is not None:
        return stored_no_more(turn, turn.channel.failure)
    if isinstance(outcome, TurnOutcome) and outcome.status == "completed":
        return _unfit(turn)
    if turn.stopped == "shutdown":
        text = "The daemon stopped before the turn ended; continue the session with a new turn."
        return EngineError("turn_interrupted", text, message_id=turn.given_message_id, **about)
    if turn.stopped == "client":
        return EngineError("request_cancelled", text=said, **about)
    if turn.deadline.expired:
        return EngineError("deadline_exceeded", text=said, **about)
    if isinstance(outcome, EngineError):
        return EngineError(outcome.kind, outcome.message, **{**about, **outcome.data})
    if outcome.failure is None:
        return EngineError("request_cancelled", text=said, **about)
    spent = None if turn.spend is None else turn.spend.exhausted
    if spent is not None:  # so the gateway let no further call pass
        return spent
    return from_failure(outcome.failure, text=said, **about)


def stored_no_more(turn: "Turn", error: Exception) -> EngineError:
    """Return what is told of a turn whose events, or whose end, could not be stored."""
    if isinstance(error, StorageError):
        return from_storage(error, **_about(turn))
    return EngineError("internal_error", detail=type(error).__name__, **_about(turn))


def status_of(error: EngineError | None) -> TurnStatus:
    """Return how a turn that ended with *error* is stored."""
    if error is None:
        return "completed"
    if error.kind == "request_cancelled":
        return "cancelled"
    return "interrupted" if error.kind == "turn_interrupted" else "failed"


def _about(turn: "Turn") -> dict[str, str]:
    return {"session_id": turn.session.session_id, "turn_id": turn.turn_id}


def _said(turn: "Turn", outcome: TurnOutcome | EngineError) -> str | None:
    """Return what had come of the answer: what was told, or more where nobody listened to all of it."""
    known = outcome.text if isinstance(outcome, TurnOutcome) else ""
    return (known if known.startswith(turn.text) else turn.text) or None


def _unfit(turn: "Turn") -> EngineError | None:
    """Return why a whole answer is none: it does not fit what was asked for."""
    attempts = turn.attempts
    if attempts is None or attempts.answer is not None:
        return None
    if attempts.error is not None:
        return EngineError(
            attempts.error.kind, attempts.error.message, **attempts.error.data, **_about(turn)
        )
    return EngineError("request_cancelled", text=turn.text or None, **_about(turn))
