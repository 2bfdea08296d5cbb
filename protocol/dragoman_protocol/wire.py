"""The JSON-RPC 2.0 envelope: one decode that leaves parameters and results raw, and strict checks around it.

msgspec keeps the last of two equal keys and does not look into raw values, so what it lets through is checked
here: UTF-8, duplicate envelope keys, nesting and the number of parts. The checks cost next to nothing for a
message that is plainly within bounds.
"""

import json
from typing import Annotated, Any, NamedTuple

import msgspec

from .errors import ErrorBody, RpcError

MAX_DEPTH = 64
"""Deepest nesting of a message."""
MAX_PARTS = 250_000
"""Most structural bytes (`{ [ , :`) outside strings in a message."""

Id = int | str
"""A request's id. Numbers with a fraction or an exponent and booleans are not ids here."""

NO_RAW = msgspec.Raw()
"""A member that is not there."""
_UNSET = msgspec.UNSET

_SafeInt = Annotated[int, msgspec.Meta(ge=-(2**53) + 1, le=2**53 - 1)]
"""Beyond these a client in JavaScript would get another id back than it sent."""


class Envelope(msgspec.Struct):
    """Any message. Which it is follows from the members that are present."""

    jsonrpc: str | msgspec.UnsetType = msgspec.UNSET
    id: _SafeInt | str | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = NO_RAW
    result: msgspec.Raw = NO_RAW
    error: ErrorBody | None = None


class Salvage(NamedTuple):
    """What can be told of a message that was refused."""

    id: Id | None
    """None: there is none, or it cannot be told."""
    is_response: bool
    """It has a `result` or an `error` (not `null`) and no `method`."""


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


class _Members(msgspec.Struct):
    id: msgspec.Raw = NO_RAW
    method: msgspec.Raw = NO_RAW
    result: msgspec.Raw = NO_RAW
    error: msgspec.Raw = NO_RAW


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Envelope).decode
_decode_members = msgspec.json.Decoder(_Members).decode
_decode_id = msgspec.json.Decoder(_SafeInt | str | None).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
    """Encode a response with an error. Never raises for what the error carries."""
    return _encode(_Failure("2.0", id, error.body()))


def decode_envelope(data: bytes) -> Envelope:
    """Decode one message that is not a batch.

    Raises `RpcError`: `parse_error` (not JSON, not UTF-8, a lone surrogate, NaN), `too_complex`, or
    `invalid_request` (a member of a wrong type, a member twice).
    """
    # What is opened must be closed, so a short text is not deep.
    if len(data) > 2 * MAX_DEPTH or not data.isascii():
        check_bounds(data)
    try:
        envelope = _decode(data)
    except msgspec.ValidationError as exc:
        reason, _, path = str(exc).partition(" - at `")
        raise RpcError("invalid_request", f"Invalid request: {exc}.",
                       path=path.rstrip("`") or "$", reason=reason) from None  # fmt: skip
    except msgspec.DecodeError as exc:
        raise _parse_error(exc) from None
    except RecursionError:
        raise _too_deep() from None
    if not _plainly_unique(data, envelope) and not _unique_when_compact(data):
        _refuse_duplicates(data)
    return envelope


def salvage(data: bytes) -> Salvage:
    """Look into a message that was refused: whom to tell, and whether it may be answered at all.

    An answer to an answer could go back and forth for ever, so a broken response is never answered.
    """
    try:
        members = _decode_members(data)
    except (msgspec.MsgspecError, RecursionError):
        return Salvage(None, False)
    failed = bool(members.error) and bytes(members.error) != b"null"
    is_response = not members.method and (failed or bool(members.result))
    try:
        return Salvage(_decode_id(members.id), is_response)
    except msgspec.MsgspecError:
        return Salvage(None, is_response)


def split_batch(data: bytes) -> list[bytes]:
    """Split a batch into its messages, undecoded. Raises `RpcError` like `decode_envelope`."""
    check_bounds(data)
    try:
        return [bytes(part) for part in msgspec.json.decode(data, type=list[msgspec.Raw])]
    except msgspec.DecodeError as exc:
        raise _parse_error(exc) from None
    except RecursionError:
        raise _too_deep() from None


def check_bounds(data: bytes) -> None:
    """Refuse text that is not UTF-8 (`parse_error`), or too deep or too many parts (`too_complex`)."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            raise _parse_error(exc) from None
    opened = data.count(b"{") + data.count(b"[")
    if opened <= MAX_DEPTH and len(data) <= MAX_PARTS:
        return
    parts = opened + data.count(b",") + data.count(b":")
    if opened <= MAX_DEPTH and parts <= MAX_PARTS:
        return
    _check_outside_strings(data)


_ONE_BRACKET = bytes.maketrans(b"[]", b"{}")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"{}[]")


def _check_outside_strings(data: bytes) -> None:
    # Every step is one pass in C over at most 16 MiB; a regular expression here would take seconds.
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data
    # Every string but one stands beside a structural byte of its own, so this many need not be split.
    strings = unescaped.count(b'"') // 2
    bare = b"".join(unescaped.split(b'"')[::2]) if strings <= MAX_PARTS + 1 else b"," * strings
    parts = sum(bare.count(byte) for byte in (b"{", b"[", b",", b":"))
    if parts > MAX_PARTS:
        raise RpcError("too_complex", f"The message has more than {MAX_PARTS} parts.", limit=MAX_PARTS)
    nested = bare.translate(_ONE_BRACKET, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        # Takes away the innermost level, everywhere at once.
        nested = nested.replace(b"{}", b"")
    if b"{}" in nested:
        raise _too_deep()


def _plainly_unique(data: bytes, envelope: Envelope) -> bool:
    """Tell cheaply that no member occurs twice: the members' own lengths add up to the message's.

    Only for text without any space between its tokens, as most programs write it. A member is never longer
    decoded than written, save for an integer with an exponent, should msgspec take one: below 10⁹ that is six
    bytes at most, and a second member needs seven. False means "look closer", not "duplicate".
    """
    if envelope.params is NO_RAW and envelope.id.__class__ is int and data.count(b'"') == 10:
        # Three names and two values have as many quotes: there is no room for a fourth name.
        return envelope.jsonrpc is not _UNSET and envelope.method is not _UNSET
    length = 1  # the braces, and a comma less than members
    if envelope.jsonrpc is not _UNSET:
        length += 13 + len(envelope.jsonrpc)
    id = envelope.id
    if id.__class__ is int:
        if not -1_000_000_000 < id < 1_000_000_000:
            return False
        length += 6 + len(str(id))
    elif id.__class__ is str:
        length += 8 + len(id)
    elif id is None:
        length += 10
    if envelope.method is not _UNSET:
        length += 12 + len(envelope.method)
    size = len(envelope.params)
    if size:
        length += 10 + size
    size = len(envelope.result)
    if size:
        length += 10 + size
    return len(data) == length


def _unique_when_compact(data: bytes) -> bool:
    """Tell the same of text with spaces, or with members that we do not know, in a few passes of C.

    Exact but for names that are not ASCII or are written with escapes, where it returns False.
    """
    compact = msgspec.json.format(data, indent=-1)
    members = _decode_object(compact)
    return len(compact) == 1 + sum(len(name) + 4 + len(memoryview(raw)) for name, raw in members.items())


def _refuse_duplicates(data: bytes) -> None:
    names: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> None:
        # Called innermost first, so the last call is the envelope's; only that one matters.
        names[:] = [name for name, _ in pairs]

    json.loads(data, object_pairs_hook=check, parse_float=str, parse_int=str)
    for name in Envelope.__struct_fields__:
        if names.count(name) > 1:
            raise RpcError("invalid_request", f"Invalid request: the member `{name}` occurs twice.",
                           path=f"$.{name}", reason="duplicate member")  # fmt: skip


def _parse_error(exc: Exception) -> RpcError:
    return RpcError("parse_error", f"Parse error: {exc}.", reason=str(exc))


def _too_deep() -> RpcError:
    return RpcError("too_complex", f"The message is nested more than {MAX_DEPTH} deep.", limit=MAX_DEPTH)
