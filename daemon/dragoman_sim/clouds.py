"""The dialects of Amazon Bedrock and Google Vertex AI: their requests become those of the Messages API, and
its answers become theirs. No secret is checked, only that a request is signed or has a bearer token.

Bedrock: `POST /model/ID/invoke-with-response-stream`, `/invoke`, `/count-tokens`. Vertex AI:
`POST [/v1]/projects/P/locations/L/publishers/anthropic/models/ID:streamRawPredict`, `:rawPredict`, and
`count-tokens:rawPredict`.
"""

from __future__ import annotations

import base64
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dragoman_sim.conversation import InvalidRequestError
from dragoman_sim.http import HttpRequest
from dragoman_sim.script import Status

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"

_BEDROCK = re.compile(r"/model/([^/]+)/(invoke|invoke-with-response-stream|count-tokens)")
_VERTEX = re.compile(
    r"(?:/v1)?/projects/([^/]+)/locations/([^/]+)/publishers/anthropic/models/"
    r"([^/:]+):(rawPredict|streamRawPredict)"
)
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/, ]+/\d{8}/[a-z0-9-]+/bedrock/aws4_request, "
    r"SignedHeaders=[a-z0-9;-]*\bhost\b[a-z0-9;-]*, Signature=[0-9a-f]{64}"
)
_VERSIONS = {"bedrock": "bedrock-2023-05-31", "vertex": "vertex-2023-10-16"}

_AWS_NAMES = {
    400: "ValidationException",
    401: "UnrecognizedClientException",
    402: "ServiceQuotaExceededException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    413: "ValidationException",
    422: "ValidationException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    500: "InternalServerException",
    503: "ServiceUnavailableException",
}
_GOOGLE_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """In which cloud's words a request came."""

    provider: Literal["bedrock", "vertex"]
    counts: bool = False
    """Whether tokens are to be counted, in place of a message."""
    target: str = ""
    """The path as it came."""

    def refusal(self, headers: dict[str, str]) -> Status | None:
        """Return the answer to a request without a signature or a bearer token; None if it has one."""
        given = headers.get("authorization", "")
        if given.startswith("Bearer ") and given[7:].strip():
            return None
        if self.provider == "vertex":
            return Status(401, message="Request is missing required authentication credential.")
        if _SIGNED.fullmatch(given) and re.fullmatch(r"\d{8}T\d{6}Z", headers.get("x-amz-date", "")):
            return None
        return Status(403, "MissingAuthenticationTokenException", "Missing Authentication Token")

    def error(self, fault: Status, message: str) -> tuple[list[tuple[str, str]], bytes]:
        """Return the headers and the body of an error in the cloud's own words."""
        if self.provider == "bedrock":
            name = fault.error_type or _AWS_NAMES.get(fault.status, "InternalServerException")
            return [("x-amzn-errortype", f"{name}:http://internal.amazon.com/")], _json({"message": message})
        status = fault.error_type or _GOOGLE_NAMES.get(fault.status, "INTERNAL")
        error = {"code": fault.status, "message": message, "status": status}
        return [], _json({"error": error})

    def counted(self, tokens: int) -> bytes:
        """Return the body that tells a count."""
        return _json({"inputTokens" if self.provider == "bedrock" else "input_tokens": tokens})

    @property
    def request_id_header(self) -> str:
        """The header that names a request."""
        return "x-amzn-requestid" if self.provider == "bedrock" else "request-id"

    @property
    def is_binary(self) -> bool:
        """Whether a stream is Amazon's binary one."""
        return self.provider == "bedrock"


def understood(request: HttpRequest) -> tuple[HttpRequest, Dialect] | None:
    """Return what a cloud's *request* asks of the Messages API, and its dialect; None: it is no cloud's.

    What cannot be understood is left as it came: `checked` says what is wrong with it.
    """
    if request.method != "POST":
        return None
    if found := _BEDROCK.fullmatch(request.path):
        counts = found[2] == "count-tokens"
        dialect = Dialect("bedrock", counts, request.path)
        added = {"model": urllib.parse.unquote(found[1]), "stream": found[2].endswith("stream")}
    elif found := _VERTEX.fullmatch(request.path):
        counts = found[3] == "count-tokens"
        dialect = Dialect("vertex", counts, request.path)
        added = {} if counts else {"model": urllib.parse.unquote(found[3])}
    else:
        return None
    path = COUNT if counts else MESSAGES
    try:
        fields = msgspec.json.decode(request.body)
        if counts and dialect.provider == "bedrock":
            fields = msgspec.json.decode(base64.b64decode(fields["input"]["invokeModel"]["body"]))
        body = _json({**fields, **added})
    except (msgspec.MsgspecError, ValueError, TypeError, KeyError):
        body = request.body
    return request._replace(path=path, body=body), dialect


def check(dialect: Dialect, body: bytes) -> None:
    """Raise `InvalidRequestError` for what the cloud would refuse of an understood request's *body*."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as wrong:
        raise InvalidRequestError(str(wrong)) from None
    version = _VERSIONS[dialect.provider]
    if fields.get("anthropic_version") != version:
        raise InvalidRequestError(f"anthropic_version: must be {version}")
    if dialect.provider == "vertex" and not dialect.counts:
        wanted = dialect.target.endswith(":streamRawPredict")
        if bool(fields.get("stream")) != wanted:
            raise InvalidRequestError("stream: does not go with the method of the URL")


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)
