"""The envelope: what is taken, what is refused and with which words, and that neither takes long."""

import json
from typing import Any

import msgspec
import pytest
from dragoman_protocol import wire
from dragoman_protocol.errors import FieldData, RpcError, SizeData
from hypothesis import example, given, settings
from hypothesis import strategies as st

CALL = b'{"jsonrpc":"2.0","id":1,"method":"x","params":%b}'


def refused(data: bytes) -> RpcError:
    with pytest.raises(RpcError) as caught:
        wire.decode_envelope(data)
    return caught.value


# -- what is taken


@pytest.mark.parametrize(
    ("data", "id", "method", "params"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1}}', 1, "x", b'{"a":1}'),
        (b'{"jsonrpc": "2.0", "id": "a", "method": "x", "params": [1, 2]}', "a", "x", b"[1, 2]"),
        (b' {"method":"x","id":-0,"jsonrpc":"2.0"}\r', 0, "x", b""),
        (b'{"jsonrpc":"2.0","id":null,"method":"x","params":null}', None, "x", b"null"),
        (b'{"jsonrpc":"2.0","id":9007199254740991,"method":"x"}', 2**53 - 1, "x", b""),
        (b'{"jsonrpc":"2.0","id":"\\u0061\\ud83d\\ude42","method":"x"}', "a🙂", "x", b""),
        ('{"jsonrpc":"2.0","id":"é","method":"ü","params":["🙂"]}'.encode(), "é", "ü", '["🙂"]'.encode()),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","\\u00e9":1,"more":{"id":1,"id":2}}', 1, "x", b""),
    ],
)  # fmt: skip
def test_request_is_decoded_with_raw_params(data: bytes, id: Any, method: str, params: bytes) -> None:
    envelope = wire.decode_envelope(data)
    assert (envelope.id, envelope.method, bytes(envelope.params)) == (id, method, params)
    assert type(envelope.id) is type(id)


def test_members_that_are_absent_are_told_from_null() -> None:
    envelope = wire.decode_envelope(b'{"result":null}')
    assert envelope.id is envelope.method is envelope.jsonrpc is msgspec.UNSET
    assert bytes(envelope.result) == b"null"
    assert not envelope.params


def test_error_member_keeps_its_data_raw() -> None:
    envelope = wire.decode_envelope(b'{"jsonrpc":"2.0","id":1,"error":{"code":7,"message":"m","data":[1]}}')
    assert envelope.error is not None
    assert (envelope.error.code, envelope.error.message, bytes(envelope.error.data)) == (7, "m", b"[1]")


# -- what is refused


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"jsonrpc":"2.0","method":"\xff"}',
        CALL % b'["\xed\xa0\x80"]',
        CALL % b"[NaN]",
        CALL % b"[-Infinity]",
        CALL % b'["\\ud800"]',
        CALL % b'{"a":"\\ud800\\u0041 and more"}',
        CALL % b'["\\udc00"]',
        CALL % b"[01]",
        CALL % b"[1,]",
        CALL % b'["\x01"]',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud800 and more text"}',
    ],
)
def test_what_is_not_json_in_utf8_is_a_parse_error(data: bytes) -> None:
    error = refused(data)
    assert error.kind == "parse_error"
    assert error.message.startswith("Parse error: ")
    assert isinstance(error.data, FieldData)
    assert error.data.reason


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"1", "$"),
        (b'"text"', "$"),
        (b"null", "$"),
        (b"[[]]", "$"),
        (b'{"jsonrpc":2,"method":"x"}', "$.jsonrpc"),
        (b'{"jsonrpc":"2.0","method":1}', "$.method"),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', "$.id"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', "$.id"),
        (b'{"jsonrpc":"2.0","id":[1],"method":"x"}', "$.id"),
        (b'{"jsonrpc":"2.0","id":9007199254740992,"method":"x"}', "$.id"),
        (b'{"jsonrpc":"2.0","id":-9007199254740992,"method":"x"}', "$.id"),
        (b'{"jsonrpc":"2.0","id":1,"error":"no"}', "$.error"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":"m"}}', "$.error.code"),
    ],
)
def test_member_of_a_wrong_type_is_named(data: bytes, path: str) -> None:
    error = refused(data)
    assert error.kind == "invalid_request"
    assert isinstance(error.data, FieldData)
    assert error.data.path == path
    assert error.data.reason


@pytest.mark.parametrize(
    ("data", "name"),
    [
        # Seven bytes more than compact: what one space after every `:` and `,` would have been.
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"x","params":{}}', "id"),
        (b'{"id":1,"id":1}', "id"),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","method":"x"}', "method"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "x", "params": {}, "params": {}}', "params"),
        (b'{"jsonrpc":"2.0","jsonrpc":"2.0","method":"x"}', "jsonrpc"),
        (b'{"jsonrpc":"2.0","id":1,"result":1,"result":1}', "result"),
        (b'{"jsonrpc":"2.0","id":1,"error":null,"error":{"code":1,"message":""}}', "error"),
        (b'{"jsonrpc":"2.0","id":1,"\\u0069d":2,"method":"x"}', "id"),
        (b'{"jsonrpc":"2.0","id":1234567890,"id":1,"method":"x"}', "id"),
        (b'{"jsonrpc":"2.0","id":null,"id":1,"method":"x","params":{"id":1}}', "id"),
        (b'{"jsonrpc":"2.0","id":"a","id":1,"method":"x","other":[{"id":1}]}', "id"),
    ],
)
def test_member_that_occurs_twice_is_refused(data: bytes, name: str) -> None:
    error = refused(data)
    assert error.kind == "invalid_request"
    assert error.message == f"Invalid request: the member `{name}` occurs twice."
    assert isinstance(error.data, FieldData)
    assert error.data.path == f"$.{name}"


NAMES = st.sampled_from(["jsonrpc", "id", "method", "params", "result", "other", "é"])
VALUES = {
    "jsonrpc": st.just("2.0"),
    "id": st.one_of(st.integers(-(10**10), 10**10), st.text(max_size=4), st.none()),
    "method": st.text(max_size=4),
}
ANYTHING = st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner)),
    max_leaves=4,
)  # fmt: skip
MEMBERS = st.lists(
    NAMES.flatmap(lambda name: st.tuples(st.just(name), VALUES.get(name, ANYTHING))), max_size=6
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(MEMBERS, st.booleans(), st.booleans(), st.sampled_from(["", " ", "  ", "\n"]))
@example([("jsonrpc", "2.0"), ("id", 1), ("id", 2), ("method", "x"), ("params", {})], False, False, "")
def test_duplicates_are_found_however_they_are_written(
    members: list[tuple[str, Any]], ascii_only: bool, escape_names: bool, space: str
) -> None:
    def write(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, separators=("," + space, ":" + space))

    def name(text: str) -> str:
        return '"' + "".join(f"\\u{ord(char):04x}" for char in text) + '"' if escape_names else write(text)

    data = ("{" + ",".join(f"{name(key)}:{space}{write(value)}" for key, value in members) + "}").encode()
    names = [key for key, _ in members if key not in ("other", "é")]
    if len(names) != len(set(names)):
        assert refused(data).message.endswith("occurs twice.")
    else:
        wire.decode_envelope(data)


# -- bounds


def nested(depth: int) -> bytes:
    return CALL % (b"[" * (depth - 1) + b"]" * (depth - 1))


def test_nesting_up_to_the_bound_is_taken_and_above_is_refused() -> None:
    wire.decode_envelope(nested(wire.MAX_DEPTH))
    error = refused(nested(wire.MAX_DEPTH + 1))
    assert error.kind == "too_complex"
    assert isinstance(error.data, SizeData)
    assert error.data.limit == wire.MAX_DEPTH
    mixed = b'[{"a":' * 32 + b"1" + b"}]" * 32
    assert refused(CALL % mixed).kind == "too_complex"
    wire.decode_envelope(CALL % (b"[" + b",".join([b"{}", b"[]"] * 200) + b"]"))


def test_brackets_inside_strings_do_not_count() -> None:
    wire.decode_envelope(CALL % json.dumps(["[" * 70, '\\"[[[{{{' * 70, "\\", '"' * 70, "]"]).encode())
    wire.decode_envelope(CALL % json.dumps(["," * (wire.MAX_PARTS + 10)]).encode())


@pytest.mark.parametrize("opened", [70, 200_000])
def test_nesting_that_is_never_closed_is_refused(opened: int) -> None:
    assert refused(CALL[:-3] + b"[" * opened).kind in ("parse_error", "too_complex")


def test_number_of_parts_is_bounded() -> None:
    few = wire.MAX_PARTS - 9  # the envelope's own: `{`, four `:`, three `,` and the list's `[`
    wire.decode_envelope(CALL % (b"[" + b",".join([b"1"] * (few + 1)) + b"]"))
    error = refused(CALL % (b"[" + b",".join([b"1"] * (few + 2)) + b"]"))
    assert error.kind == "too_complex"
    assert isinstance(error.data, SizeData)
    assert error.data.limit == wire.MAX_PARTS


@pytest.mark.parametrize(
    "params",
    [
        b'["' + b"x" * 15_000_000 + b'"]',
        b'["' + b"\\n" * 7_000_000 + b'"]',
        b'["' + b'\\"' * 7_000_000 + b'"]',
        b'["' + b"[" * 15_000_000 + b'"]',
        b'[ "' + "ü".encode() * 7_000_000 + b'"]',
    ],
    ids=["plain", "escapes", "quotes", "brackets", "two bytes each"],
)
def test_longest_strings_are_taken(params: bytes) -> None:
    # With a regular expression that backtracks this needs seconds and gigabytes.
    assert len(memoryview(wire.decode_envelope(CALL % params).params)) == len(params)


@pytest.mark.parametrize("piece", [b'"a",', b'"",', b'{"":""},', b"[],", b"{},"])
def test_most_parts_are_refused(piece: bytes) -> None:
    list_of_many = b"[" + piece * (15_000_000 // len(piece)) + b"1]"
    assert refused(CALL % list_of_many).kind == "too_complex"


# -- salvage, batches, encoding


@pytest.mark.parametrize(
    ("data", "id", "is_response"),
    [
        (b'{"jsonrpc":2,"id":7,"method":"x"}', 7, False),
        (b'{"jsonrpc":2,"id":"7","method":"x","result":1}', "7", False),
        (b'{"id":7,"error":"no"}', 7, True),
        (b'{"id":true,"error":"no"}', None, True),
        (b'{"id":7,"error":null}', 7, False),
        (b'{"id":7,"error":null,"result":null}', 7, True),
        (b'{"id":null,"result":1}', None, True),
        (b'{"id":1e3}', None, False),
        (b'{"id":12345678901234567890}', None, False),
        (b"[]", None, False),
        (b"{", None, False),
        (b'{"id":1,"a":' + b"[" * 100_000, None, False),
    ],
)
def test_salvage_tells_whom_to_answer(data: bytes, id: Any, is_response: bool) -> None:
    assert wire.salvage(data) == (id, is_response)


def test_batch_is_split_into_its_messages() -> None:
    assert wire.split_batch(b' [ {"a": 1} , 2,[3] ] ') == [b'{"a": 1}', b"2", b"[3]"]
    assert wire.split_batch(b"[]") == []


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"[1,", "parse_error"),
        (b"[\xff]", "parse_error"),
        (b"[" * 70 + b"]" * 70, "too_complex"),
        (b"[" * 100_000, "too_complex"),
    ],
)
def test_broken_batch_is_refused_as_a_whole(data: bytes, kind: str) -> None:
    with pytest.raises(RpcError) as caught:
        wire.split_batch(data)
    assert caught.value.kind == kind


def test_what_is_sent() -> None:
    assert wire.encode_request(1, "a/b", None) == b'{"jsonrpc":"2.0","id":1,"method":"a/b","params":{}}'
    assert wire.encode_request("x", "a", [1]) == b'{"jsonrpc":"2.0","id":"x","method":"a","params":[1]}'
    assert wire.encode_notification("a", None) == b'{"jsonrpc":"2.0","method":"a","params":{}}'
    assert (
        wire.encode_notification("a", {"b": "ü"}).decode()
        == '{"jsonrpc":"2.0","method":"a","params":{"b":"ü"}}'
    )
    assert wire.encode_result(1, None) == b'{"jsonrpc":"2.0","id":1,"result":null}'
    assert wire.encode_result(None, msgspec.Raw(b"[1]")) == b'{"jsonrpc":"2.0","id":null,"result":[1]}'
    assert json.loads(wire.encode_error("x", RpcError("draining"))) == {
        "jsonrpc": "2.0",
        "id": "x",
        "error": {
            "code": 1001,
            "message": "The daemon is stopping; connect again and retry.",
            "data": {"kind": "draining", "retryable": True},
        },
    }


def test_error_that_cannot_be_written_is_sent_all_the_same() -> None:
    path = RpcError("invalid_cwd", "no such directory: \udcff", path="\udcff")
    assert json.loads(wire.encode_error(1, path))["error"] == {
        "code": 1303,
        "message": "no such directory: \\udcff",
        "data": {"kind": "invalid_cwd", "retryable": False},
    }
    value = RpcError("internal_error", request_id=object(), retryable=True)
    assert json.loads(wire.encode_error(1, value))["error"]["data"] == {
        "kind": "internal_error",
        "retryable": True,
    }
