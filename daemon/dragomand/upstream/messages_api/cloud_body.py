"""The Messages API's body as the clouds want it: the model is in the URL, the version in the body. Pure."""

import urllib.parse
from typing import Any

import msgspec

from dragomand.upstream.interface import Failure, UpstreamError

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Body:
    """The fields of a request; what is in them is not decoded."""

    def __init__(self, body: bytes) -> None:
        """Take *body* apart."""
        self._fields: dict[str, Any] = _decode(body)
        self.model: str = msgspec.json.decode(self._fields.pop("model"), type=str)

    def with_fields(self, **fields: Any) -> "Body":
        """Add fields that are not there yet, and return this."""
        self._fields = fields | self._fields
        return self

    def without(self, *names: str) -> "Body":
        """Leave fields out, and return this."""
        for name in names:
            self._fields.pop(name, None)
        return self

    def encode(self) -> bytes:
        """Return the body."""
        return _encode(self._fields)


def in_path(name: str, safe: str = "") -> str:
    """Return *name* as one segment of a path. Raises `UpstreamError` for one that would be none."""
    if not name or name.partition(";")[0].partition(":")[0] in (".", "..", ""):
        raise UpstreamError(Failure("caller", f"{name!r} is no model's name."))
    return urllib.parse.quote(name, safe=safe)
