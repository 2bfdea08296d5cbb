"""Why the engine could not do what was asked: a kind and its facts, no numbers."""

from typing import Any

from dragomand.store.errors import StorageError, StorageFullError
from dragomand.upstream.interface import Failure


class EngineError(Exception):
    """Something could not be done. `kind` is stable and snake_case; `data` are the facts that go with it.

    Which number a kind has on a wire is the wire's own business.
    """

    def __init__(self, kind: str, message: str | None = None, **data: Any) -> None:
        """Fail with *kind*; *message* None lets the wire use its default text for the kind."""
        super().__init__(message or kind)
        self.kind = kind
        self.message = message
        self.data = data

    def facts(self) -> dict[str, Any]:
        """Return what is stored of this error: kind, message and the facts that are known."""
        known = {name: value for name, value in self.data.items() if value is not None}
        return {"kind": self.kind, "message": self.message or self.kind, **known}

    def told(self) -> dict[str, Any]:
        """Return the facts as a value that travels names them: in camelCase."""
        return {to_camel(name): value for name, value in self.facts().items()}


def to_camel(name: str) -> str:
    """Return a stored fact's name as it travels: `retry_after_ms` → `retryAfterMs`."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def to_snake(name: str) -> str:
    """Undo `to_camel`."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


_KINDS = {
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


def from_failure(failure: Failure, **data: Any) -> EngineError:
    """Turn what upstream says of a failure into the engine's error; *data* adds session, turn and text."""
    return EngineError(
        _KINDS[failure.category],
        failure.message,
        status=failure.status,
        retry_after_ms=failure.retry_after_ms,
        resets_at=failure.resets_at,
        window=failure.window,
        detail=failure.detail,
        **data,
    )


def from_storage(error: StorageError, **data: Any) -> EngineError:
    """Turn the store's error into the engine's."""
    if isinstance(error, StorageFullError):
        return EngineError("storage_full", **data)
    return EngineError("storage_failed", str(error), path=error.path, reason=error.reason, **data)
