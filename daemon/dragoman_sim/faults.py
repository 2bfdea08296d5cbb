"""Faults by name, and the API's words for its errors."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import formatdate

import msgspec

from dragoman_sim.script import Cut, Fault, Malformed, Pings, ScriptError, Stall, Status, StreamError

SPEND_CAP = "enforced_spend_limit_reached"

NAMED: dict[str, Fault] = {
    "bad_request": Status(400),
    "spend_limit_400": Status(
        400,
        message="You have reached your specified API usage limits. You will regain access on {next_month}.",
    ),
    "unauthorized": Status(401, message="invalid x-api-key"),
    "payment_required": Status(402),
    "forbidden": Status(403),
    "not_found": Status(404),
    "request_timeout": Status(408),
    "too_large": Status(413),
    "rate_limited": Status(429, retry_after=1),
    "rate_limited_date": Status(429, retry_after_date_s=2),
    "rate_limited_ms": Status(429, headers={"retry-after-ms": "1500"}),
    "rate_limited_bare": Status(429),
    "spend_cap": Status(429, error_code=SPEND_CAP, message="Your organization's spend limit is reached."),
    "server_error": Status(500),
    "bad_gateway": Status(502, html=True),
    "unavailable": Status(503),
    "gateway_timeout": Status(504),
    "overloaded": Status(529),
    "no_headers": Stall("before_headers"),
    "headers_only": Stall("after_headers"),
    "stall": Stall("inside_block"),
    "cut_before_headers": Cut("before_headers"),
    "cut_after_headers": Cut("after_headers"),
    "cut_before_block": Cut("before_block"),
    "cut": Cut("inside_block"),
    "cut_after_block": Cut("after_block"),
    "reset": Cut("inside_block", reset=True),
    "pings_only": Pings(),
    "overloaded_event": StreamError(),
    "bad_json": Malformed("json"),
    "bad_sse": Malformed("sse"),
    "bad_utf8": Malformed("utf8"),
    "lone_surrogate": Malformed("surrogate"),
    "long_line": Malformed("long_line"),
}
"""Every fault of the matrix in its usual form."""

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The `error.type` of each status."""

_MESSAGES = {
    400: "The request is not valid.",
    401: "x-api-key header is required",
    402: "Your credit balance is too low to access the API.",
    403: "Your API key does not have permission to use the specified resource.",
    404: "Not found",
    408: "The request took too long to arrive.",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your organization's rate limit.",
    503: "Service unavailable",
    504: "The request timed out while processing.",
    529: "Overloaded",
}
_STATUSES = {kind: status for status, kind in reversed(ERROR_TYPES.items())}
_PAGE = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n"
    b"<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)


def fault_of(given: str | Fault | None) -> Fault | None:
    """Return the fault that a rule names. Raises `ScriptError` for an unknown name."""
    if not isinstance(given, str):
        return given
    try:
        return NAMED[given]
    except KeyError:
        raise ScriptError(f"There is no fault {given!r}; there are: {', '.join(sorted(NAMED))}") from None


def status_of(error_type: str) -> int:
    """Return the HTTP status that goes with an `error.type`; 500 for one that is not known."""
    return _STATUSES.get(error_type, 500)


def message_of(status: int) -> str:
    """Return what the API says with a status."""
    return _MESSAGES.get(status, "Internal server error")


def error_body(fault: Status, request_id: str) -> tuple[str, bytes]:
    """Return the content type and the body of the error response."""
    if fault.html:
        return "text/html", _PAGE
    error: dict[str, object] = {
        "type": fault.error_type or ERROR_TYPES.get(fault.status, "api_error"),
        "message": dated(fault.message or message_of(fault.status)),
    }
    if fault.error_code is not None:
        error["details"] = {"error_code": fault.error_code}
    return "application/json", msgspec.json.encode(
        {"type": "error", "error": error, "request_id": request_id}
    )


def dated(message: str) -> str:
    """Return *message* with the next month's beginning for `{next_month}`, as the API writes it."""
    if "{next_month}" not in message:
        return message
    today = datetime.fromtimestamp(time.time(), UTC)
    year, month = (today.year + 1, 1) if today.month == 12 else (today.year, today.month + 1)
    return message.replace("{next_month}", f"{year}-{month:02}-01 at 00:00 UTC")


def error_headers(fault: Status) -> list[tuple[str, str]]:
    """Return the headers that belong to this fault alone: `retry-after`, and its own."""
    headers = list(fault.headers.items())
    after = fault.retry_after
    if after is not None:
        headers.append(("retry-after", after if isinstance(after, str) else f"{after:g}"))
    if fault.retry_after_date_s is not None:
        headers.append(("retry-after", formatdate(time.time() + fault.retry_after_date_s, usegmt=True)))
    if fault.status in (408, 409, 429) or fault.status >= 500:
        headers.append(("x-should-retry", "false" if fault.error_code else "true"))
    return headers
