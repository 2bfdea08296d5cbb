"""Amazon's binary event stream, written: server-sent events go in, its messages come out."""

from __future__ import annotations

import base64
import struct
from zlib import crc32

import msgspec

CONTENT_TYPE = "application/vnd.amazon.eventstream"

DAMAGED = b": damaged\n\n"
"""A comment among server-sent events that becomes a message with a wrong checksum."""

_EXCEPTIONS = {
    "authentication_error": "accessDeniedException",
    "billing_error": "serviceQuotaExceededException",
    "invalid_request_error": "validationException",
    "overloaded_error": "serviceUnavailableException",
    "permission_error": "accessDeniedException",
    "rate_limit_error": "throttlingException",
    "timeout_error": "modelTimeoutException",
}
"""Bedrock's own names of the API's errors; every other one is `internalServerException`."""


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """Return one message; its headers are texts."""
    packed = b"".join(
        bytes([len(name)]) + name.encode() + struct.pack(">BH", 7, len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    whole = lengths + struct.pack(">I", crc32(lengths)) + packed + payload
    return whole + struct.pack(">I", crc32(whole))


def converted(events: bytes) -> bytes:
    """Return whole server-sent *events* as messages, an `error` event as an exception."""
    return b"".join(_converted(event) for event in events.split(b"\n\n") if event)


def exception(error_type: str, text: str) -> bytes:
    """Return the message that ends a stream with an error; a name of Amazon's own is taken as it is."""
    name = error_type
    if not error_type.lower().endswith("exception"):
        name = _EXCEPTIONS.get(error_type, "internalServerException")
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, msgspec.json.encode({"message": text}))


def _converted(event: bytes) -> bytes:
    if event + b"\n\n" == DAMAGED:
        whole = message({":message-type": "event", ":event-type": "chunk"}, b"{}")
        return whole[:-1] + bytes([whole[-1] ^ 1])
    name, found, data = event.partition(b"\ndata: ")
    if not found:
        return message({":message-type": "event", ":event-type": "unheardOf"}, event)
    if name == b"event: error":
        error = msgspec.json.decode(data)["error"]
        return exception(error["type"], error["message"])
    payload = msgspec.json.encode({"bytes": base64.b64encode(data).decode(), "p": "abcdefgh"})
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return message(headers, payload)
