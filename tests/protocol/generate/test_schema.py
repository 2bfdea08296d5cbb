"""The bundle holds every type that travels, with the docs of its fields."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from dragoman_protocol.errors import BY_KIND
from dragoman_protocol.methods import METHODS, Method
from dragoman_protocol.stream import Event
from generate import schema  # type: ignore[import-not-found,unused-ignore]


def test_every_type_of_the_tables_is_in_the_bundle() -> None:
    names = set(schema.components("#/$defs/{name}"))
    for row in METHODS.values():
        assert row.params.__name__ in names
        assert row.result is None or row.result.__name__ in names
    assert {row.data.__name__ for row in BY_KIND.values()} <= names
    assert {kind.__name__ for kind in Event.__args__} <= names
    assert {"Usage", "TextBlock", "ErrorBody"} <= names


def test_wire_names_docs_and_references() -> None:
    found = schema.components("#/there/{name}")["SessionInfo"]
    assert found["properties"]["createdAt"] == {"type": "number", "description": "Unix seconds."}
    assert found["properties"]["usage"]["$ref"] == "#/there/Usage"
    assert "costUsd" in found["properties"]
    assert schema.components("x/{name}")["QueryRunParams"]["additionalProperties"] is False
    assert "additionalProperties" not in found


def test_two_types_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> type[msgspec.Struct]:
        return msgspec.defstruct("SameParams", [("a", int)])

    rows: dict[str, Any] = {name: Method(name, "S.", make()) for name in ("a/b", "c/d")}
    monkeypatch.setattr(schema, "METHODS", rows)
    render: Callable[[], Any] = schema.structs
    with pytest.raises(ValueError, match="two types are called SameParams"):
        render()
