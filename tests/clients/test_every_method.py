"""Every request of the table has a method in both clients, which asks for just that."""

import asyncio
import inspect
from typing import Any

import msgspec
import pytest
from dragoman.stubs import AsyncCalls, Calls
from dragoman_protocol.methods import METHODS, Method

REQUESTS = [
    row
    for row in METHODS.values()
    if row.sender == "client" and row.result is not None and row.name not in ("initialize", "shutdown")
]


class Recorder(Calls):
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def _call(self, method: str, params: msgspec.Struct, result: Any, timeout_s: float | None) -> Any:
        self.asked.append((method, params, result, timeout_s))
        return "answer"


class AsyncRecorder(AsyncCalls):
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def _call(self, method: str, params: msgspec.Struct, result: Any, timeout_s: float | None) -> Any:
        self.asked.append((method, params, result, timeout_s))
        return "answer"


def required(row: Method) -> dict[str, Any]:
    """Return a value for every field that has no default."""
    return {
        field.name: "allow" if field.name == "decision" else [] if field.name == "items" else "x"
        for field in msgspec.structs.fields(row.params)
        if field.required
    }


@pytest.mark.parametrize("row", REQUESTS, ids=lambda row: row.name)
def test_a_request(row: Method) -> None:
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in row.name.replace("/", "_"))
    given = required(row)
    expected = (row.name, row.params(**given), row.result, 3.0)
    blocking, awaiting = Recorder(), AsyncRecorder()
    assert getattr(blocking, name)(**given, timeout_s=3.0) == "answer"
    assert asyncio.run(getattr(awaiting, name)(**given, timeout_s=3.0)) == "answer"
    assert blocking.asked == awaiting.asked == [expected]
    fields = set(row.params.__struct_fields__)
    for method in (getattr(Calls, name), getattr(AsyncCalls, name)):
        assert set(inspect.signature(method).parameters) - {"self", "timeout_s"} == fields
