"""The classes of failure that both upstreams share: by status, by the API's own words, by its headers.

Four classes drive four mechanisms, so what matters is to tell them apart: a throttle is over in moments and
pauses everything; a quota is over at `resets_at` and parks what waits; overload is nobody's fault and trips a
breaker; auth stops the credential. The rest is the caller's, and is neither repeated nor counted.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from dragomand.upstream import limit_headers
from dragomand.upstream.interface import Failure, FailureCategory
from dragomand.upstream.limits_heard import (
    DAY_S,
    LONGEST_AGO_S,
    LONGEST_AHEAD_S,
    LimitsHeard,
    Window,
    instant_of,
)

SPENT = ("spend limit", "credit balance is too low", "api usage limits", "spend cap")
"""Words by which the API tells of a quota, where it gives no code."""
SPENT_CODES = ("enforced_spend_limit_reached",)
"""`error.details.error_code` of a quota."""
NOT_PAID_FOR = ("credits_required", "requires_usage_credits", "extra usage is required")
"""The request needs what is not paid for (a long context, a model): it fails alone, others do not."""

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
_REGAINED = re.compile(
    r"(?:regain access|resets?|resume[sd]?|available again)(?: on| at)?:? "
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:(?: at |[T ])([0-9]{2}:[0-9]{2})(?::[0-9]{2})?)?",
    re.IGNORECASE,
)
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
    lower = words.lower()
    return status in (400, 402, 429) and any(word in lower for word in (*SPENT, *SPENT_CODES))


def category_of(status: int, kind: str, words: str) -> FailureCategory:
    """Return the class of an error: its status, its `error.type` or "", and all its words."""
    if status == 429 and any(word in words.lower() for word in NOT_PAID_FOR):
        return "caller"
    if is_spent(status, words) or (kind == "billing_error" and status < 500):
        return "quota"
    return by_status(status)


def of_answer(status: int, heard: LimitsHeard, body: bytes) -> Failure:
    """Return the failure of an HTTP response that is no success, whose headers said what was *heard*."""
    try:
        error = _decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = _Error()  # a proxy's page, or nothing
    message = error.message or f"The Messages API answered with HTTP status {status}."
    words = f"{_code(error.details)} {message}"
    category = category_of(status, error.type, words)
    refused = refusing(heard.windows) if category == "throttle" else None
    pause = heard.retry_after_s
    if refused is not None or (category == "throttle" and pause is not None and pause > DAY_S):
        category = "quota"  # longer than a day is no pause: whatever waits is better parked
    waits = category in ("throttle", "overload")
    return Failure(
        category,
        message[:_MOST_TEXT],
        status=status,
        retry_after_ms=round(min(pause, DAY_S) * 1000) if waits and pause is not None else None,
        resets_at=_resets_at(heard, words) if category == "quota" else None,
        window=refused.name if refused is not None else None,
        detail=heard.request_id,
    )


def of_response(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Failure:
    """Return the failure of an HTTP response that is no success; *now* is Unix seconds, for dates."""
    heard = limit_headers.read(headers.items(), sent_order=0, now=now, status=status)
    return of_answer(status, heard, body)


def of_event(error_type: str, message: str, request_id: str | None, now: float | None = None) -> Failure:
    """Return the failure that an `error` event in a stream tells of; *now*, Unix seconds, is for dates."""
    status = _STATUS_OF.get(error_type, 500)
    category = category_of(status, error_type, message)
    text = message or f"The Messages API broke the answer off: {error_type or 'no reason given'}."
    resets_at = None
    if now is not None and category == "quota":
        resets_at = regained_at(message, now) or month_ends_at(message, now)
    return Failure(category, text[:_MOST_TEXT], status=status, resets_at=resets_at, detail=request_id)


def refusing(windows: tuple[Window, ...]) -> Window | None:
    """Return the window that is used up: the deciding one, or else the one that returns last."""
    if not windows or windows[0].status not in ("rejected", None):
        return None
    if windows[0].status == "rejected":
        return windows[0]
    refused = [each for each in windows if each.status == "rejected"]
    return max(refused, key=lambda each: each.resets_at or 0.0, default=None)


def regained_at(words: str, now: float) -> float | None:
    """Return the date (UTC) at which a quota that is told of in *words* returns."""
    found = _REGAINED.search(words)
    if found is not None:
        at = instant_of(f"{found[1]}T{found[2] or '00:00'}:00+00:00")
        if at is not None and -LONGEST_AGO_S <= at - now <= LONGEST_AHEAD_S:
            return at
    return None


def month_ends_at(words: str, now: float) -> float | None:
    """Return the end of *now*'s month in UTC if *words* tell of a month's spend cap: then it returns."""
    lower = words.lower()
    if not any(word in lower for word in (*SPENT_CODES, "monthly spend")):
        return None
    today = datetime.fromtimestamp(now, UTC)
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp()


def _resets_at(heard: LimitsHeard, words: str) -> float | None:
    """Return the most exact that is said: a window's reset, a date in words, a pause, a month."""
    refused = refusing(heard.windows)
    if refused is not None and refused.resets_at is not None:
        return refused.resets_at
    dated = regained_at(words, heard.heard_at)
    if dated is not None:
        return dated
    if heard.windows and heard.windows[0].resets_at is not None:
        return heard.windows[0].resets_at
    if heard.retry_after_s is not None:
        return heard.heard_at + heard.retry_after_s
    return month_ends_at(words, heard.heard_at)


def _code(details: object) -> str:
    code = details.get("error_code") if isinstance(details, dict) else None
    return code if isinstance(code, str) else ""
