"""The registry's rules, and errors on their way over the wire and back."""

import re
from typing import Any

import msgspec
import pytest
from dragoman_protocol import errors
from dragoman_protocol.errors import BY_CODE, BY_KIND, ErrorBody, RpcError, from_body, invalid_params
from dragoman_protocol.methods import COMMON_ERRORS, METHODS
from dragoman_protocol.query import QueryRunParams

RESERVED = {-32700, -32600, -32601, -32602, -32603, -32002, -32800}
"""JSON-RPC's and LSP's own codes that we use, with their meaning there."""

ROWS = pytest.mark.parametrize("row", BY_KIND.values(), ids=BY_KIND)


def test_codes_and_kinds_are_unique() -> None:
    assert len(BY_CODE) == len(BY_KIND) == len(errors._ROWS)


@ROWS
def test_row(row: errors.ErrorKind) -> None:
    assert row.code in RESERVED or row.code >= 1000
    assert re.fullmatch("[a-z]+(_[a-z]+)*", row.kind)
    assert re.fullmatch(r"[A-Z`].*\.", row.meaning, re.DOTALL), "a whole sentence for people"
    assert "\n" not in row.meaning
    data = row.data(kind=row.kind, retryable=row.retryable)
    assert msgspec.to_builtins(data) == {"kind": row.kind, "retryable": row.retryable}


VALUES: dict[Any, Any] = {str | None: "ü", int | None: 7, float | None: 1.5, list[str]: ["a"]}
"""Something for every type of field in error data."""


@ROWS
def test_error_comes_back_as_it_was_sent(row: errors.ErrorKind) -> None:
    fields = {field.name: VALUES[field.type] for field in msgspec.structs.fields(row.data)
              if field.name not in ("kind", "retryable")}  # fmt: skip
    sent = RpcError(row.kind, "What now.", **fields, retryable=not row.retryable)
    got = from_body(msgspec.json.decode(msgspec.json.encode(sent.body()), type=ErrorBody))
    assert (got.code, got.kind, got.message, got.data) == (sent.code, sent.kind, "What now.", sent.data)
    assert got.retryable is not row.retryable
    assert str(got) == "What now."


def test_default_message_and_retryable_are_the_rows() -> None:
    error = RpcError("queue_full", queued=5)
    assert str(error) == "Too many turns wait already."
    assert error.retryable
    assert not RpcError("draining", retryable=False).retryable
    assert error.data == errors.QueueData(kind="queue_full", retryable=True, queued=5)


def test_two_errors_share_nothing() -> None:
    first, second = RpcError("scope_required"), RpcError("scope_required")
    assert isinstance(first.data, errors.ScopeData)
    first.data.granted.append("query")
    assert second.data == errors.ScopeData(kind="scope_required", retryable=False)


def test_unknown_kind_or_field_is_found_where_it_is_made() -> None:
    with pytest.raises(KeyError):
        RpcError("no_such_kind")
    with pytest.raises(TypeError):
        RpcError("draining", path="/")


def test_every_error_of_the_methods_is_in_the_registry_and_named_once() -> None:
    for row in METHODS.values():
        assert set(row.errors) <= set(BY_KIND), row.name
        assert len(set(row.errors)) == len(row.errors), row.name
        assert not set(row.errors) & set(COMMON_ERRORS), row.name
    assert set(COMMON_ERRORS) <= set(BY_KIND)


@pytest.mark.parametrize(
    ("code", "data", "kind", "retryable"),
    [
        (1001, b"", "draining", True),
        (1001, b"null", "draining", True),
        (1001, b'{"kind":"draining","retryable":false}', "draining", False),
        (1001, b'{"retryable":false}', "draining", True),
        (1203, b'{"kind":"throttled","retryable":true,"status":"x"}', "throttled", True),
        (4711, b"", "internal_error", False),
        (4711, b'["what"]', "internal_error", False),
        (4711, b'{"kind":"of_the_future","retryable":true,"more":1}', "of_the_future", True),
        (-32001, b'"text"', "internal_error", False),
    ],
)
def test_error_of_another_version_or_server(code: int, data: bytes, kind: str, retryable: bool) -> None:
    error = from_body(ErrorBody(code=code, message="m", data=msgspec.Raw(data)))
    assert (error.code, error.message, error.kind, error.retryable) == (code, "m", kind, retryable)
    assert error.data.kind == kind
    assert error.body().code == code


@pytest.mark.parametrize(
    ("params", "path", "reason"),
    [
        (b'{"prompt":1}', "$.prompt", "Expected `str | array`, got `int`"),
        (b"{}", "$.prompt", "Object missing required field `prompt`"),
        (b'{"prompt":"x","sesionId":"y"}', "$.sesionId", "Object contains unknown field `sesionId`"),
        (b'{"prompt":[{"type":"text"}]}', "$.prompt[0].text", "Object missing required field `text`"),
        (b'{"prompt":"x","tags":["a",1]}', "$.tags[1]", "Expected `str`, got `int`"),
        (b'{"prompt":"x","priority":"now"}', "$.priority", "Invalid enum value 'now'"),
        (b'["x"]', "$", "Expected `object`, got `array`"),
    ],
)
def test_wrong_params_name_the_field(params: bytes, path: str, reason: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(params, type=QueryRunParams)
    error = invalid_params(caught.value)
    assert error.code == -32602
    assert error.data == errors.FieldData(kind="invalid_params", retryable=False, path=path, reason=reason)
    assert error.message == f"Invalid parameters at {path}: {reason}."
