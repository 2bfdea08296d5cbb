"""Every error of the engine travels: its kind is in the registry, and its facts have a place in the data."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import dragomand.engine
import pytest
from dragoman_protocol.errors import BY_KIND, RpcError
from dragomand.engine.errors import EngineError, from_failure, from_storage
from dragomand.handlers.errors import to_rpc, translated
from dragomand.server.route import Call
from dragomand.store.errors import StorageError, StorageFullError
from dragomand.upstream.interface import Failure, FailureCategory

KEPT_OUT = {
    "internal_error": {"detail", "session_id", "turn_id"},
    "storage_failed": {"session_id", "turn_id"},
    "storage_full": {"session_id", "turn_id"},
}
"""Facts that stay in the log and in the stored turn."""


def raised() -> Iterator[tuple[str, str, set[str]]]:
    """Each `EngineError("kind", …, fact=…)` in the engine's source: where, its kind, its facts."""
    for path in sorted(Path(dragomand.engine.__path__[0]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                not isinstance(node, ast.Call)
                or getattr(node.func, "id", "") != "EngineError"
                or not node.args
            ):
                continue
            facts = {keyword.arg for keyword in node.keywords if keyword.arg}
            first = node.args[0]
            names = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
            for name in names:
                if isinstance(name, ast.Constant):
                    yield f"{path.name}:{node.lineno}", name.value, facts


CALLS = list(raised())


def test_the_source_was_found() -> None:
    assert len(CALLS) > 30
    assert {"queue_full", "session_busy", "invalid_cwd", "turn_interrupted"} <= {kind for _, kind, _ in CALLS}


@pytest.mark.parametrize(
    ("kind", "facts"), [pytest.param(*call[1:], id="-".join(call[:2])) for call in CALLS]
)
def test_every_kind_is_known_and_its_facts_fit(kind: str, facts: set[str]) -> None:
    assert kind in BY_KIND
    fields = set(BY_KIND[kind].data.__struct_fields__)
    assert facts - KEPT_OUT.get(kind, set()) <= fields


@pytest.mark.parametrize("category", get_args(FailureCategory))
def test_what_the_upstream_says_of_a_failure_arrives(category: FailureCategory) -> None:
    failure = Failure(category, "why", status=429, retry_after_ms=5, resets_at=9.5, detail="tail")
    error = to_rpc(from_failure(failure, session_id="s", turn_id="t", text="so far"))
    data = error.data
    facts = {name: getattr(data, name, None) for name in ("status", "retry_after_ms", "resets_at", "detail")}
    assert facts == {"status": 429, "retry_after_ms": 5, "resets_at": 9.5, "detail": "tail"}
    assert (data.session_id, data.turn_id, data.text) == ("s", "t", "so far")  # type: ignore[attr-defined]
    assert (error.message, error.retryable) == ("why", BY_KIND[error.kind].retryable)


def test_the_store() -> None:
    full = to_rpc(from_storage(StorageFullError("/db", "no space"), session_id="s"))
    assert (full.kind, full.retryable, full.message) == (
        "storage_full",
        True,
        BY_KIND["storage_full"].meaning,
    )
    broken = to_rpc(from_storage(StorageError("/db", "broken"), session_id="s"))
    assert (broken.data.path, broken.data.reason) == ("/db", "broken")  # type: ignore[attr-defined]


def test_a_fact_without_a_place_stays_at_home() -> None:
    error = to_rpc(EngineError("internal_error", "oops", detail="KeyError", session_id="s"))
    assert b"KeyError" not in bytes(error.body().data)
    assert error.message == "oops"


def test_without_a_message_the_registry_speaks() -> None:
    assert to_rpc(EngineError("permission_not_found", permission_id="p")).message == (
        BY_KIND["permission_not_found"].meaning
    )


CALL = Call(None, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [LookupError("bug"), RpcError("overloaded")])
async def test_other_errors_pass(error: Exception) -> None:
    def plain(_call: Any, _params: Any) -> None:
        raise error

    async def coroutine(_call: Any, _params: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        translated(plain)(CALL, None)
    with pytest.raises(type(error)):
        await translated(coroutine)(CALL, None)


async def test_the_engines_errors_are_translated_and_answers_pass() -> None:
    def plain(_call: Any, params: Any) -> Any:
        if params is None:
            raise EngineError("session_busy", session_id="s")
        return params

    async def coroutine(_call: Any, params: Any) -> Any:
        return plain(_call, params)

    assert translated(plain)(CALL, 5) == 5
    assert await translated(coroutine)(CALL, 6) == 6
    with pytest.raises(RpcError) as caught:
        translated(plain)(CALL, None)
    assert (caught.value.kind, caught.value.data.session_id) == ("session_busy", "s")  # type: ignore[attr-defined]
    assert isinstance(caught.value.__cause__, EngineError)
    with pytest.raises(RpcError):
        await translated(coroutine)(CALL, None)
    assert translated(coroutine).__name__ == "coroutine"
