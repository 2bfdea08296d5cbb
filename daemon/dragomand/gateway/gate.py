"""What is let in: the method and path, the origin, the host, the bearer. Pure but for the grants."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from dragomand.engine.call import Grant
from dragomand.engine.calls import Calls

MOST_BODY = 32 << 20
"""The largest request, in bytes; the Messages API's own bound."""

_PATHS = {
    "POST": re.compile(r"/v1/messages(?:/count_tokens)?"),
    "GET": re.compile(r"/v1/models(?:/[A-Za-z0-9][A-Za-z0-9._:@-]{0,127})?"),
}
_QUERY = re.compile(r"[A-Za-z0-9_.=&-]{0,256}")


class Refusal(NamedTuple):
    """An answer of the gateway's own, in the shape of the Messages API's errors."""

    status: int
    type: str
    message: str
    retry_after_s: int | None = None

    @property
    def body(self) -> bytes:
        """The JSON that is sent."""
        error = {"type": self.type, "message": f"Dragoman's gateway: {self.message}"}
        return msgspec.json.encode({"type": "error", "error": error})


class Asked(NamedTuple):
    """What of a request decides whether it is let in."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Looked up without regard to case."""
    port: int | None
    """The loopback port it came to; None for the private socket."""


def let_in(asked: Asked, calls: Calls) -> Grant | Refusal:
    """Return whose call it is, or why it is none."""
    headers = asked.headers
    if "Origin" in headers or "Sec-Fetch-Site" in headers:
        return Refusal(403, "permission_error", "requests of web pages are refused.")
    if asked.port is not None and headers.get("Host") not in _hosts(asked.port):
        return Refusal(403, "permission_error", f"the Host must be 127.0.0.1:{asked.port}.")
    allowed = _PATHS.get(asked.method)
    if allowed is None or not allowed.fullmatch(asked.path) or not _QUERY.fullmatch(asked.query):
        return Refusal(
            404,
            "not_found_error",
            "only POST /v1/messages, POST /v1/messages/count_tokens and GET /v1/models are passed on.",
        )
    grant = calls.find(_bearer(headers))
    if grant is None or (asked.port is not None and not grant.tcp):
        return Refusal(
            401, "authentication_error", "the token is not valid (any more). Get one: dragoman gateway token"
        )
    length = headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > MOST_BODY:
        return too_large()
    return grant


def too_large() -> Refusal:
    """Return the answer to a request beyond `MOST_BODY`."""
    return Refusal(413, "request_too_large", f"a request may have {MOST_BODY} bytes.")


def _hosts(port: int) -> tuple[str, str]:
    return f"127.0.0.1:{port}", f"localhost:{port}"


def _bearer(headers: Mapping[str, str]) -> str:
    """Return the token, from either header that clients of the Messages API send it in."""
    kind, _, token = headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return headers.get("x-api-key", "").strip()
