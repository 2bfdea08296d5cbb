"""The JSON-RPC 2.0 envelope: one decode that leaves parameters and results raw, and strict checks around it.

msgspec keeps the last of two equal keys and does not look into raw values, so what it lets through is checked
here: UTF-8, duplicate envelope keys, nesting and the number of parts. The checks cost nothing for a message
that is plainly within bounds.
"""

import json
import re
from typing import Any

import msgspec

from .errors import ErrorBody, RpcError

MAX_DEPTH = 64
"""Deepest nesting of a message."""
MAX_PARTS = 250_000
"""Most structural bytes (`{ [ , :`) outside strings in a message."""

Id = int | str
"""A request's id. Numbers with a fraction and booleans are not ids here."""

NO_RAW = msgspec.Raw()


class Envelope(msgspec.Struct):
    """Any message. Which it is follows from the members that are present."""

    jsonrpc: str | msgspec.UnsetType = msgspec.UNSET
    id: int | str | None | msgspec.UnsetType = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = NO_RAW
    result: msgspec.Raw = NO_RAW
    error: ErrorBody | None = None


class _Response(msgspec.Struct):
    jsonrpc: str
    id: int | str | None
    result: Any


class _Failure(msgspec.Struct):
    jsonrpc: str
    id: int | str | None
    error: ErrorBody


class _Request(msgspec.Struct):
    jsonrpc: str
    id: int | str
    method: str
    params: Any


class _Notification(msgspec.Struct):
    jsonrpc: str
    method: str
    params: Any


class _IdOnly(msgspec.Struct):
    id: int | str | None | msgspec.UnsetType = msgspec.UNSET


_encode = msgspec.json.Encoder().encode
_decode_id = msgspec.json.Decoder(_IdOnly).decode
_decode = msgspec.json.Decoder(Envelope).decode


def encode_request(id: Id, method: str, params: Any) -> bytes:
    """Encode a request; *params* is a struct, a dict, a list or None (an empty object)."""
    return _encode(_Request("2.0", id, method, {} if params is None else params))


def encode_notification(method: str, params: Any) -> bytes:
    """Encode a notification."""
    return _encode(_Notification("2.0", method, {} if params is None else params))


def encode_result(id: Id | None, result: Any) -> bytes:
    """Encode a response with a result; None is `null`."""
    return _encode(_Response("2.0", id, result))


def encode_error(id: Id | None, error: RpcError) -> bytes:
    """Encode a response with an error."""
    return _encode(_Failure("2.0", id, error.body()))


def decode_envelope(data: bytes) -> Envelope:
    """Decode one message that is not a batch.

    Raises `RpcError`: `parse_error` (not JSON, not UTF-8, a lone surrogate, NaN), `too_complex`, or
    `invalid_request` (a member of a wrong type, a member twice).
    """
    check_bounds(data)
    try:
        envelope = _decode(data)
    except msgspec.ValidationError as exc:
        reason, _, path = str(exc).partition(" - at `")
        raise RpcError("invalid_request", f"Invalid request: {exc}", path=path.rstrip("`") or "$", reason=reason) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RpcError("parse_error", f"Parse error: {exc}", reason=str(exc)) from None
    if not _plainly_unique(data, envelope):
        _refuse_duplicates(data)
    return envelope


def salvage_id(data: bytes) -> Id | None:
    """Return the id of a message that could not be decoded, so that it still gets its one answer; else None."""
    try:
        id = _decode_id(data).id
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return None if id is msgspec.UNSET else id


def split_batch(data: bytes) -> list[bytes]:
    """Split a batch into its messages, undecoded. Raises `RpcError` like `decode_envelope`."""
    check_bounds(data)
    try:
        return [bytes(part) for part in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RpcError("parse_error", f"Parse error: {exc}", reason=str(exc)) from None


def check_bounds(data: bytes) -> None:
    """Refuse text that is not UTF-8 (`parse_error`), or too deep or too many parts (`too_complex`)."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            raise RpcError("parse_error", f"Parse error: {exc}", reason=str(exc)) from None
    opened = data.count(b"{") + data.count(b"[")
    if opened <= MAX_DEPTH and len(data) <= MAX_PARTS:
        return
    parts = opened + data.count(b",") + data.count(b":")
    if opened <= MAX_DEPTH and parts <= MAX_PARTS:
        return
    _check_outside_strings(data)


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(rb"[{\[\]}]")


def _check_outside_strings(data: bytes) -> None:
    bare = _STRING.sub(b"", data)
    parts = sum(bare.count(byte) for byte in (b"{", b"[", b",", b":"))
    if parts > MAX_PARTS:
        raise RpcError("too_complex", f"The message has {parts} parts; at most {MAX_PARTS} are allowed.",
                       limit=MAX_PARTS, actual=parts)  # fmt: skip
    depth = deepest = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in b"{[" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise RpcError("too_complex", f"The message is nested {deepest} deep; at most {MAX_DEPTH} is allowed.",
                       limit=MAX_DEPTH, actual=deepest)  # fmt: skip


def _plainly_unique(data: bytes, envelope: Envelope) -> bool:
    """Tell cheaply that no member occurs twice: the members' own lengths add up to the message's.

    Only for the two usual ways to write JSON, compact and with one space after `:` and `,`. False means
    "look closer", not "duplicate".
    """
    members = 0
    length = 0
    if envelope.jsonrpc is not msgspec.UNSET:
        members, length = 1, 12 + len(envelope.jsonrpc)
    id = envelope.id
    if id is not msgspec.UNSET:
        members += 1
        if id.__class__ is int:
            length += 5 + len(str(id))
        elif id.__class__ is str:
            length += 7 + len(id)  # type: ignore[arg-type]  # narrowed by class, which mypy does not follow
        else:
            length += 9
    if envelope.method is not msgspec.UNSET:
        members += 1
        length += 11 + len(envelope.method)
    for name_length, raw in ((9, envelope.params), (9, envelope.result)):
        size = len(memoryview(raw))
        if size:
            members += 1
            length += name_length + size
    total = len(data)
    compact = length + 2 + (members - 1)
    return total == compact or total == compact + members + members - 1


def _refuse_duplicates(data: bytes) -> None:
    def check(pairs: list[tuple[str, Any]]) -> None:
        # Called innermost first, so the last call is the envelope's; only that one matters.
        nonlocal names
        names = [name for name, _ in pairs]

    names: list[str] = []
    json.loads(data, object_pairs_hook=check, parse_float=str, parse_int=str)
    for name in ("jsonrpc", "id", "method", "params", "result", "error"):
        if names.count(name) > 1:
            raise RpcError("invalid_request", f"Invalid request: the member `{name}` occurs twice.",
                           path=f"$.{name}", reason="duplicate member")  # fmt: skip
