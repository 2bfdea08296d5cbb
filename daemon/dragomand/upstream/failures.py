"""The classes of failure that both upstreams share: by status, by the API's own words, by its headers."""

import email.utils
import re
from collections.abc import Mapping

import msgspec

from dragomand.upstream.interface import Failure, FailureCategory

SPENT = (
    "enforced_spend_limit_reached",
    "specified API usage limits",
    "spend limit",
    "credit balance is too low",
)
"""What the API says of a quota: its error code, or in words alone."""

MAX_RETRY_AFTER_MS = 86_400_000
"""A longer pause than a day is not believed."""

_BY_STATUS: dict[int, FailureCategory] = {
    401: "auth",
    402: "quota",
    403: "auth",
    408: "overload",
    429: "throttle",
}
_STATUS_OF = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_NUMBER = re.compile(r"\d{1,12}(\.\d{0,9})?")
_MOST_TEXT = 2_000


class _Error(msgspec.Struct, frozen=True):
    type: str = ""
    message: str = ""
    details: object = None


class _Body(msgspec.Struct, frozen=True):
    error: _Error = _Error()


_decode = msgspec.json.Decoder(_Body).decode


def by_status(status: int) -> FailureCategory:
    """Return the class of an HTTP status that is no success."""
    return _BY_STATUS.get(status, "overload" if status >= 500 else "caller")


def is_spent(status: int | None, words: str) -> bool:
    """Tell whether the API says that a quota, not a rate, is used up."""
    return status in (400, 402, 429) and any(word in words for word in SPENT)


def of_response(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    """Return the failure of an HTTP response that is no success; *now* is Unix seconds, for dates."""
    try:
        error = _decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = _Error()  # a proxy's page, or nothing
    message = error.message or f"The Messages API answered with HTTP status {status}."
    words = f"{error.details} {message}"
    category: FailureCategory = "quota" if is_spent(status, words) else by_status(status)
    waits = category in ("throttle", "overload", "quota")
    return Failure(
        category,
        message[:_MOST_TEXT],
        status=status,
        retry_after_ms=retry_after_ms(headers, now) if waits else None,
        resets_at=_resets_at(headers) if category == "quota" else None,
        detail=headers.get("request-id"),
    )


def of_event(error_type: str, message: str, request_id: str | None) -> Failure:
    """Return the failure that an `error` event in a stream tells of."""
    status = _STATUS_OF.get(error_type, 500)
    category: FailureCategory = "quota" if is_spent(status, message) else by_status(status)
    text = message or f"The Messages API broke the answer off: {error_type or 'no reason given'}."
    return Failure(category, text[:_MOST_TEXT], status=status, detail=request_id)


def retry_after_ms(headers: Mapping[str, str], now: float) -> int | None:
    """Return the pause that the server asks for: `retry-after-ms`, or `retry-after` in seconds or as a date.

    None where it says nothing that can be believed: no number, no date, more than a day.
    """
    exact = headers.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(exact):
        return _believed(float(exact))
    given = headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(given):
        return _believed(float(given) * 1000)
    try:
        at = email.utils.parsedate_to_datetime(given).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return _believed(max(0.0, at - now) * 1000)


def _believed(pause_ms: float) -> int | None:
    return round(pause_ms) if pause_ms <= MAX_RETRY_AFTER_MS else None


def _resets_at(headers: Mapping[str, str]) -> float | None:
    given = headers.get("anthropic-ratelimit-unified-reset", "").strip()
    return float(given) if _NUMBER.fullmatch(given) else None
