"""The rules of the table of methods, and of the types it names."""

import re
from typing import Any, get_args

import msgspec
import pytest
from dragoman_protocol.lifecycle import DEFAULT_SCOPES, Scope
from dragoman_protocol.methods import METHODS, Lane, Method
from dragoman_protocol.values import Empty, Params

ROWS = pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
LIFECYCLE = {"initialize", "initialized", "shutdown", "exit"}


def structs_of(row: Method) -> list[type[msgspec.Struct]]:
    return [row.params] if row.result is None else [row.params, row.result]


@ROWS
def test_name(row: Method) -> None:
    name = re.compile(r"[a-z]+/[a-z]+([A-Z][a-z]+)*|\$/[a-z]+([A-Z][a-z]+)*")
    assert row.name in LIFECYCLE or name.fullmatch(row.name)
    assert re.fullmatch(r"[A-Z].*[.?]", row.summary), "whole sentences"


@ROWS
def test_row_is_consistent(row: Method) -> None:
    assert row.lane in get_args(Lane)
    assert row.scope is None or row.scope in get_args(Scope)
    assert set(row.notifies) <= {other.name for other in METHODS.values() if other.sender == "daemon"}
    if row.result is None:
        assert row.errors == ()
        assert row.notifies == ()
        assert row.scope is None
    if row.lane == "session":
        assert "session_id" in row.params.__struct_fields__
    if "$/progress" in row.notifies:
        assert "partial_result_token" in row.params.__struct_fields__


@ROWS
def test_params_of_requests_are_strict(row: Method) -> None:
    # Not `initialize` and `$/…`: there, clients of the language server protocol send fields of their own.
    own = row.sender == "client" and row.name not in LIFECYCLE and not row.name.startswith("$/")
    assert issubclass(row.params, Params) == (own and row.params is not Empty)


@ROWS
def test_names_of_types_follow_the_words(row: Method) -> None:
    assert row.params is Empty or row.params.__name__.endswith("Params")
    if row.result is not None and row.result is not Empty:
        assert row.result.__name__.endswith(("Result", "Decision"))


@ROWS
def test_fields_are_camel_case_with_their_units(row: Method) -> None:
    for struct in structs_of(row):
        for field in msgspec.structs.fields(struct):
            assert re.fullmatch(r"[a-z]+([A-Z][a-z]*)*", field.encode_name), (struct, field.name)
            if field.name.endswith("_at"):
                assert float in _kinds(field.type), (struct, field.name)
            if field.name.endswith("_ms"):
                assert int in _kinds(field.type), (struct, field.name)


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or (annotation,)


def test_scopes_given_by_default_exist() -> None:
    assert set(DEFAULT_SCOPES) <= set(get_args(Scope))


def test_before_initialize_only_the_beginning_and_the_end() -> None:
    assert {row.name for row in METHODS.values() if row.before_initialize} == {"initialize", "exit"}
