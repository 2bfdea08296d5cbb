"""Why a turn failed: the classes of the limits, from status, reason and category, never from `subtype`.

Claude Code reports an API error as a result whose `subtype` is `success`; what counts is `is_error`, the HTTP
status, the terminal reason and the category of the error.
"""

import re
from dataclasses import dataclass, replace

from dragomand.upstream import failures
from dragomand.upstream.claude_code.wire import RateLimitEvent, Result, System
from dragomand.upstream.interface import ApiAccess, Failure, FailureCategory

_BY_CATEGORY: dict[str, FailureCategory] = {
    "authentication_failed": "auth",
    "oauth_org_not_allowed": "auth",
    "verification_required": "auth",
    "account_on_hold": "auth",
    "cloud_credential_error": "auth",
    "billing_error": "quota",
    "rate_limit": "throttle",
    "overloaded": "overload",
    "server_error": "overload",
    "invalid_request": "caller",
    "model_not_found": "caller",
    "max_output_tokens": "caller",
}
_LIMITS_OF_THE_CALLER = {"max_turns", "max_budget", "budget_exhausted"}
_ADVICE = (
    (re.compile(r"set API_TIMEOUT_MS above \d+"), "raise the setting claude.apiTimeoutMs"),
    (re.compile(r"Run --model to pick a different model\."), "Choose another model."),
)
"""Claude Code's advice is for who started it: that was Dragoman."""
_ADVICE_ON_GATEWAYS = (
    (re.compile(r" If it persists, check your inference gateway \([^)]*\)\."), ""),
    (re.compile(r"Check the gateway set in ANTHROPIC_BASE_URL, then try again\."), "Try again."),
)
"""The gateway that it means is Dragoman's own."""
_ABORTED = ("aborted_streaming", "aborted_tools")


@dataclass(slots=True)
class Hints:
    """What was learnt in a turn about a failure that may come of it."""

    category: str | None = None
    """The category that Claude Code gave, in its error message or a retry."""
    retry_after_ms: int | None = None
    """What Claude Code waited before its retry: the server's `retry-after`, where it gave one."""
    resets_at: float | None = None
    refused_window: bool = False
    """A limit window was reported as used up."""

    def note_retry(self, frame: System) -> None:
        """Remember what an `api_retry` says."""
        self.category = frame.error or self.category
        if frame.retry_delay_ms is not None:
            self.retry_after_ms = max(0, round(frame.retry_delay_ms))

    def note_window(self, frame: RateLimitEvent) -> None:
        """Remember what is said of a limit window."""
        self.refused_window = frame.rate_limit_info.status == "rejected"
        self.resets_at = frame.rate_limit_info.resets_at if self.refused_window else None


def is_aborted(result: Result) -> bool:
    """Tell whether the turn ended because somebody stopped it."""
    return result.terminal_reason in _ABORTED


def classify(result: Result, hints: Hints) -> Failure | None:
    """Return why the turn failed; None if it did not."""
    if not result.is_error:
        return None
    status = result.api_error_status
    message = _message(result)
    category = _category(result, hints, message)
    return Failure(
        category,
        message,
        status=status,
        retry_after_ms=hints.retry_after_ms if category == "throttle" else None,
        resets_at=hints.resets_at if category == "quota" else None,
    )


def _category(result: Result, hints: Hints, message: str) -> FailureCategory:
    status = result.api_error_status
    if result.terminal_reason in _LIMITS_OF_THE_CALLER:
        return "caller"
    # (The API's error code of a spend cap does not get through Claude Code, its words do.)
    if status in (400, 402, 429) and (hints.refused_window or failures.is_spent(status, message)):
        return "quota"
    if status is not None:
        return failures.by_status(status)
    if hints.category in _BY_CATEGORY:
        return _BY_CATEGORY[hints.category]
    # No answer at all: the connection failed, or broke off.
    return "overload" if result.terminal_reason == "api_error" else "protocol"


def _message(result: Result) -> str:
    if result.result:
        return result.result
    said = [text for text in result.errors or () if isinstance(text, str)]
    if said:
        return " ".join(said)
    return f"Claude Code ended the turn ({result.terminal_reason or result.subtype or 'no reason given'})."


def explained(failure: Failure, access: ApiAccess | None) -> Failure:
    """Return *failure* in words for whoever asked, with what the gateway saw of it if the calls go there.

    Claude Code hides the provider's error code, its request id and most forms of `retry-after`.
    """
    message = _replaced(failure.message, _ADVICE)
    if access is None:
        return replace(failure, message=message)
    message = _replaced(message, _ADVICE_ON_GATEWAYS)
    for name in (access.base_url, access.base_url.partition("://")[2]):
        message = message.replace(name, "the Messages API")
    seen = access.last_failure()
    if seen is None or seen.status is None or seen.status != failure.status:
        return replace(failure, message=message)
    return replace(
        failure,
        message=message,
        category=seen.category,
        retry_after_ms=seen.retry_after_ms,
        resets_at=seen.resets_at or failure.resets_at,
        detail=failure.detail or seen.detail,
    )


def _replaced(message: str, advice: tuple[tuple[re.Pattern[str], str], ...]) -> str:
    for pattern, words in advice:
        message = pattern.sub(words, message)
    return message
