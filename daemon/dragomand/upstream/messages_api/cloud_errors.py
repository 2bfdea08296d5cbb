"""What Amazon and Google say when they answer no: their words become the classes of failure. Pure."""

import re
from collections.abc import Mapping

import msgspec

from dragomand.upstream import failures, limit_headers
from dragomand.upstream.interface import Failure, FailureCategory
from dragomand.upstream.limits_heard import DAY_S

_MOST_TEXT = 2_000
_PER_DAY = re.compile(r"per[ _]?day|daily", re.IGNORECASE)
_DELAY = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")

_AWS: dict[str, FailureCategory] = {
    "accessdenied": "auth",
    "expiredtoken": "auth",
    "incompletesignature": "auth",
    "internalserver": "overload",
    "invalidclienttokenid": "auth",
    "invalidsignature": "auth",
    "missingauthenticationtoken": "auth",
    "modelerror": "overload",
    "modelnotready": "overload",
    "modelstreamerror": "overload",
    "modeltimeout": "overload",
    "notauthorized": "auth",
    "optinrequired": "auth",
    "resourcenotfound": "caller",
    "servicequotaexceeded": "quota",
    "serviceunavailable": "overload",
    "signaturedoesnotmatch": "auth",
    "throttling": "throttle",
    "toomanyrequests": "throttle",
    "unrecognizedclient": "auth",
    "validation": "caller",
}
"""By the error's name, in small letters and without `Exception`."""

_TYPES: dict[FailureCategory, str] = {
    "auth": "permission_error",
    "caller": "invalid_request_error",
    "overload": "api_error",
    "quota": "billing_error",
    "throttle": "rate_limit_error",
}
"""The Messages API's own word for each class."""


class _AwsBody(msgspec.Struct, frozen=True):
    type: str = msgspec.field(default="", name="__type")
    message: str = ""
    Message: str = ""


class _Detail(msgspec.Struct, frozen=True):
    reason: str = ""
    retry_delay: str = msgspec.field(default="", name="retryDelay")


class _GoogleError(msgspec.Struct, frozen=True):
    message: str = ""
    status: str = ""
    type: str = ""
    details: list[_Detail] = []


class _GoogleBody(msgspec.Struct, frozen=True):
    error: _GoogleError = _GoogleError()


_decode_aws = msgspec.json.Decoder(_AwsBody).decode
_decode_google = msgspec.json.Decoder(_GoogleBody | list[_GoogleBody]).decode
_WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def of_aws(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    """Return the failure of a response of Amazon Bedrock's."""
    try:
        said = _decode_aws(body)
    except _WRONG:
        said = _AwsBody()
    name = (headers.get("x-amzn-errortype") or said.type).partition(":")[0].rpartition("#")[2]
    words = said.message or said.Message
    category = aws_category(name, words) or failures.by_status(status)
    told = ": ".join(part for part in (name, words) if part)
    message = told or f"Amazon Bedrock answered with HTTP status {status}."
    request_id = headers.get("x-amzn-requestid")
    return _failure(category, message, status, _pause_s(headers, status, now), request_id, now)


def aws_category(name: str, words: str) -> FailureCategory | None:
    """Return the class of an error that Amazon names *name* and explains with *words*; None: not known."""
    found = _AWS.get(name.lower().removesuffix("exception"))
    return "quota" if found == "throttle" and _PER_DAY.search(words) else found


def error_event(name: str, payload: bytes) -> bytes:
    """Return the exception *name* of Bedrock's stream as the Messages API's own `error` event."""
    try:
        said = _decode_aws(payload)
    except _WRONG:
        said = _AwsBody()
    words = said.message or said.Message
    category = aws_category(name, words) or "overload"
    kind = "timeout_error" if name.lower().startswith("modeltimeout") else _TYPES[category]
    message = ": ".join(part for part in (name, words) if part)
    data = {"type": "error", "error": {"type": kind, "message": message}}
    return b"event: error\ndata: " + msgspec.json.encode(data) + b"\n\n"


def of_google(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    """Return the failure of a response of Vertex AI's, be the words Google's own or passed on from Claude."""
    try:
        said = _decode_google(body)
        error = (said[0] if isinstance(said, list) else said).error
    except (*_WRONG, IndexError):
        error = _GoogleError()
    category = _google_category(status, error)
    told = ": ".join(part for part in (error.status or error.type, error.message) if part)
    message = told or f"Vertex AI answered with HTTP status {status}."
    pause = _pause_s(headers, status, now)
    if pause is None:
        pause = _asked_for_s(error)
    request_id = headers.get("request-id") or headers.get("x-vertex-ai-request-id")
    return _failure(category, message, status, pause, request_id, now)


def _asked_for_s(error: _GoogleError) -> float | None:
    found = [_DELAY.fullmatch(detail.retry_delay) for detail in error.details]
    return next((float(asked[1]) for asked in found if asked is not None), None)


def _google_category(status: int, error: _GoogleError) -> FailureCategory:
    if any(detail.reason.startswith("BILLING_DISABLED") for detail in error.details):
        return "quota"
    category = failures.by_status(status)
    daily = category == "throttle" and _PER_DAY.search(error.message)
    return "quota" if daily or failures.is_spent(status, error.message) else category


def _pause_s(headers: Mapping[str, str], status: int, now: float) -> float | None:
    return limit_headers.read(headers.items(), sent_order=0, now=now, status=status).retry_after_s


def _failure(
    category: FailureCategory,
    message: str,
    status: int,
    pause_s: float | None,
    request_id: str | None,
    now: float,
) -> Failure:
    if category == "throttle" and pause_s is not None and pause_s > DAY_S:
        category = "quota"  # longer than a day is no pause
    waits = category in ("throttle", "overload") and pause_s is not None
    return Failure(
        category,
        message[:_MOST_TEXT],
        status=status,
        retry_after_ms=round(min(pause_s or 0.0, DAY_S) * 1000) if waits else None,
        resets_at=now + pause_s if category == "quota" and pause_s is not None else None,
        detail=request_id,
    )
