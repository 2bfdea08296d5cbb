"""The engine's errors: what is stored, what travels, and where they come from."""

from typing import get_args

import pytest
from dragomand.engine.errors import EngineError, from_failure, from_storage, to_camel, to_snake
from dragomand.store.errors import StorageError, StorageFullError
from dragomand.upstream.interface import Failure, FailureCategory

KINDS = {
    "throttle": "throttled",
    "quota": "quota_exhausted",
    "overload": "upstream_overloaded",
    "auth": "auth_failed",
    "caller": "upstream_rejected",
    "crash": "claude_crashed",
    "protocol": "claude_protocol",
    "mismatch": "resume_mismatch",
    "missing": "claude_not_found",
}


@pytest.mark.parametrize("category", get_args(FailureCategory))
def test_every_class_of_failure_has_its_kind(category: FailureCategory) -> None:
    error = from_failure(Failure(category, "why", 429, 1500, 99.5, "tail"), session_id="s", text=None)
    assert error.kind == KINDS[category]
    assert error.facts() == {
        "kind": error.kind,
        "message": "why",
        "status": 429,
        "retry_after_ms": 1500,
        "resets_at": 99.5,
        "detail": "tail",
        "session_id": "s",
    }
    assert error.told()["retryAfterMs"] == 1500
    assert set(error.told()) == {
        "kind",
        "message",
        "status",
        "retryAfterMs",
        "resetsAt",
        "detail",
        "sessionId",
    }


def test_without_a_message_the_kind_speaks() -> None:
    assert str(EngineError("session_busy")) == "session_busy"
    assert EngineError("session_busy").message is None
    assert EngineError("session_busy").facts()["message"] == "session_busy"


def test_the_store() -> None:
    full = from_storage(StorageFullError("/db", "no space"), session_id="s")
    assert (full.kind, full.message, full.data) == ("storage_full", None, {"session_id": "s"})
    broken = from_storage(StorageError("/db", "disk I/O error"))
    assert (broken.kind, broken.data) == ("storage_failed", {"path": "/db", "reason": "disk I/O error"})
    assert str(broken) == "/db: disk I/O error."


@pytest.mark.parametrize(
    ("stored", "travels"), [("kind", "kind"), ("retry_after_ms", "retryAfterMs"), ("session_id", "sessionId")]
)
def test_names(stored: str, travels: str) -> None:
    assert to_camel(stored) == travels
    assert to_snake(travels) == stored
