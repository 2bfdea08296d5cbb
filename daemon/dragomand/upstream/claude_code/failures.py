"""Why a turn failed: the classes of the limits, from status, reason and category, never from `subtype`.

Claude Code reports an API error as a result whose `subtype` is `success`; what counts is `is_error`, the HTTP
status, the terminal reason and the category of the error.
"""

import re
from dataclasses import dataclass, replace

from dragomand.upstream import failures
from dragomand.upstream.claude_code.wire import Result, System
from dragomand.upstream.interface import ApiAccess, Failure, FailureCategory
from dragomand.upstream.limits_heard import DAY_S, LimitsHeard

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
_NOT_STARTED = (126, 127)
USED_UP = "usage_limit_reached"
"""Claude Code's word for an error by which a limit window refuses."""
_ABORTED = ("aborted_streaming", "aborted_tools")


@dataclass(slots=True)
class Hints:
    """What was learnt in a turn about a failure that may come of it."""

    category: str | None = None
    """The category that Claude Code gave, in its error message or a retry."""
    code: str | None = None
    """The API's own code, in Claude Code's error message."""
    pause_s: float | None = None
    """What Claude Code waited before its last retry: the server's `retry-after`, where it gave one."""
    used_up: Failure | None = None
    """The limit window that was last reported as used up, and not as anything else since."""

    def note(self, heard: LimitsHeard) -> None:
        """Remember what a frame says of limits."""
        failure = heard.failure
        if heard.windows or (failure is not None and failure.category == "quota"):
            self.used_up = failure
        if heard.retry_after_s is not None:
            self.pause_s = heard.retry_after_s


def is_aborted(result: Result) -> bool:
    """Tell whether the turn ended because somebody stopped it."""
    return result.terminal_reason in _ABORTED


def classify(result: Result, hints: Hints, now: float | None = None) -> Failure | None:
    """Return why the turn failed; None if it did not. *now*, Unix seconds, is for dates in words."""
    if not result.is_error:
        return None
    status = result.api_error_status
    message = _message(result)
    category = _category(result, hints, message)
    used_up = hints.used_up if category == "quota" else None
    resets_at = None if used_up is None else used_up.resets_at
    if category == "quota" and resets_at is None and now is not None:
        words = _words(result, hints, message)
        resets_at = failures.regained_at(words, now) or failures.month_ends_at(words, now)
    pause_s = hints.pause_s if category == "throttle" else None
    return Failure(
        category,
        message,
        status=status,
        retry_after_ms=None if pause_s is None else round(min(pause_s, DAY_S) * 1000),
        resets_at=resets_at,
        window=None if used_up is None else used_up.window,
    )


def of_retry(frame: System, pause_s: float | None) -> Failure:
    """Return why Claude Code repeats a call; *pause_s* is what it waits before it does."""
    status = frame.error_status
    category = _BY_CATEGORY.get(frame.error or "", "overload")
    if status is not None and category not in ("quota", "auth"):
        category = failures.by_status(status)
    text = f"Claude Code repeats a call to its API ({frame.error or status or 'no answer'})."
    waits = category == "throttle" and pause_s is not None
    return Failure(
        category,
        text,
        status=status,
        retry_after_ms=round(min(pause_s, DAY_S) * 1000) if waits and pause_s is not None else None,
    )


def _category(result: Result, hints: Hints, message: str) -> FailureCategory:
    status = result.api_error_status
    if result.terminal_reason in _LIMITS_OF_THE_CALLER:
        return "caller"
    if status in (400, 402, 429):
        words = _words(result, hints, message)
        told = failures.category_of(status, result.api_error_type or "", words)
        used_up = hints.used_up is not None or result.api_error == USED_UP
        return "quota" if told == "throttle" and used_up else told
    if status is not None:
        return failures.by_status(status)
    if hints.category in _BY_CATEGORY:
        return _BY_CATEGORY[hints.category]
    # No answer at all: the connection failed, or broke off.
    return "overload" if result.terminal_reason == "api_error" else "protocol"


def _words(result: Result, hints: Hints, message: str) -> str:
    return f"{result.api_error_code or hints.code} {result.api_error} {message}"


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


def start_failure(
    failed: Exception,
    timeout_s: float,
    status: int | None,
    unreadable: int,
    detail: str | None,
    *,
    lost: bool,
) -> Failure:
    """Return why a process was not ready: it ended (*lost*, with *status*), or said nothing, or nonsense."""
    if isinstance(failed, TimeoutError):
        if unreadable:
            said = f"What was started printed {unreadable} lines that Claude Code would not."
            return Failure("protocol", f"{said} Check the setting claude.path.", detail=detail)
        return Failure("crash", f"Claude Code was not ready after {timeout_s:g} s.", detail=detail)
    if status in _NOT_STARTED:
        return Failure("missing", f"Claude Code cannot be started (status {status}).", detail=detail)
    if lost:
        return Failure("crash", f"Claude Code ended with status {status} while starting.", detail=detail)
    return Failure("protocol", f"Claude Code could not be initialised: {failed}", detail=detail)


def crashed(status: int | None, detail: str | None) -> Failure:
    """Return why a turn has no end: its process ended, with *status* if that is known."""
    how = "ended unexpectedly" if status is None else f"ended with status {status}"
    return Failure("crash", f"Claude Code {how} during the turn.", detail=detail)


def cannot_start(failed: OSError, cwd: str) -> Failure:
    """Return why the guard could not be started in *cwd*."""
    if isinstance(failed, FileNotFoundError | NotADirectoryError | PermissionError):
        return Failure("caller", f"{cwd} cannot be the working directory: {failed.strerror}.")
    return Failure("crash", f"Claude Code cannot be started: {failed.strerror}.")
