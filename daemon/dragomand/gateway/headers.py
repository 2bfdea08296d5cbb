"""Which headers pass, in either direction, and what the provider's own say of its limits.

Both are allow-lists: whatever is not known to be needed stays behind, credentials first of all.
"""

import math
import re
from collections.abc import Iterable
from datetime import datetime

from dragoman_protocol.limits import RateLimitSnapshot, RateWindow

from dragomand.upstream import failures

Pairs = Iterable[tuple[str, str]]

_THERE = re.compile(
    r"accept|content-type|user-agent|x-app|x-client-request-id|x-claude-code-[a-z-]+|x-stainless-[a-z-]+"
    r"|anthropic-(?:version|beta|dangerous-direct-browser-access)"
)
_BACK = re.compile(
    r"content-type|content-length|content-encoding|content-language|cache-control|date|retry-after"
    r"|retry-after-ms|x-should-retry|request-id|cf-ray|anthropic-[a-z0-9-]+"
)
_WINDOW = re.compile(r"anthropic-ratelimit-([a-z0-9_-]{1,64})-(limit|remaining|reset)")
_MOST_WINDOWS = 16


def request_headers(given: Pairs, api_key: str) -> dict[str, str]:
    """Return what is sent to the provider: what may pass of *given*, and the real key.

    The answer is asked for uncompressed, so that it can be passed on as it comes and counted as it goes by.
    """
    passed: dict[str, str] = {}
    for name, value in given:
        lower = name.lower()
        if _THERE.fullmatch(lower):
            passed[lower] = f"{passed[lower]}, {value}" if lower in passed else value
    return {**passed, "accept-encoding": "identity", "x-api-key": api_key}


def response_headers(given: Pairs, now: float) -> dict[str, str]:
    """Return what of the provider's headers is passed back. *now* is Unix seconds.

    A pause that it asks for in another form is told in whole seconds too, which everybody understands: Claude
    Code takes no notice of a date.
    """
    headers = {name.lower(): value for name, value in given if _BACK.fullmatch(name.lower())}
    if not headers.get("retry-after", "").isdecimal():
        pause_ms = failures.retry_after_ms(headers, now)
        if pause_ms is not None:
            headers["retry-after"] = str(math.ceil(pause_ms / 1000))
    return headers


def rate_limits(given: Pairs, status: int, now: float) -> RateLimitSnapshot | None:
    """Return what the headers say of the provider's limits; None if nothing. *now* is Unix seconds."""
    windows: dict[str, RateWindow] = {}
    retry_after_ms = failures.retry_after_ms({name.lower(): value for name, value in given}, now)
    for name, value in given:
        lower = name.lower()
        found = _WINDOW.fullmatch(lower)
        if found is not None and (found[1] in windows or len(windows) < _MOST_WINDOWS):
            _note(windows.setdefault(found[1], RateWindow()), found[2], value)
    if not windows and retry_after_ms is None:
        return None
    return RateLimitSnapshot(seen_at=now, status=status, windows=windows, retry_after_ms=retry_after_ms)


def _note(window: RateWindow, what: str, value: str) -> None:
    if what == "reset":
        window.reset_at = _instant(value)
        return
    number = _number(value)
    if number is None:
        return
    if what == "limit":
        window.limit = int(number)
    else:
        window.remaining = int(number)


def _number(value: str) -> float | None:
    """Return a number that is not negative or absurd, else None."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < 1e15 else None


def _instant(value: str) -> float | None:
    """Return Unix seconds, of themselves or of an RFC 3339 time."""
    number = _number(value)
    if number is not None:
        return number
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo is not None else None
