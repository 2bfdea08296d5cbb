"""Classes of failures, as a table. What the real CLI says of real faults is in `test_faults`."""

from typing import Any

import pytest
from dragomand.upstream.claude_code.failures import (
    Hints,
    cannot_start,
    classify,
    explained,
    is_aborted,
    of_retry,
)
from dragomand.upstream.claude_code.wire import Result, System
from dragomand.upstream.interface import ApiAccess, Failure
from dragomand.upstream.limits_heard import LimitsHeard, Window

NOW = 1_800_000_000.0
FEBRUARY = 1_801_440_000.0
REGAIN = "You will regain access on 2027-02-01 at 00:00 UTC"


def failed(**more: Any) -> Result:
    return Result(is_error=True, terminal_reason=more.pop("terminal_reason", "api_error"), **more)


@pytest.mark.parametrize("subtype", ["success", "error_during_execution", "anything"])
def test_the_subtype_decides_nothing(subtype: str) -> None:
    assert classify(Result(is_error=False, subtype=subtype), Hints()) is None
    failure = classify(failed(subtype=subtype, api_error_status=529), Hints())
    assert failure is not None
    assert failure.category == "overload"


@pytest.mark.parametrize(
    ("result", "hint", "category"),
    [
        (failed(api_error_status=400), None, "caller"),
        (failed(api_error_status=401), None, "auth"),
        (failed(api_error_status=402), None, "quota"),
        (failed(api_error_status=403), None, "auth"),
        (failed(api_error_status=404), None, "caller"),
        (failed(api_error_status=408), None, "overload"),
        (failed(api_error_status=413), None, "caller"),
        (failed(api_error_status=422), None, "caller"),
        (failed(api_error_status=429), None, "throttle"),
        (failed(api_error_status=429, result="Your organization's spend limit is reached."), None, "quota"),
        (failed(api_error_status=400, result="your specified API usage limits"), None, "quota"),
        (failed(api_error_status=500, result="spend limit"), None, "overload"),
        (failed(api_error_status=504), None, "overload"),
        (failed(api_error_status=529), "rate_limit", "overload"),
        (failed(), "authentication_failed", "auth"),
        (failed(), "billing_error", "quota"),
        (failed(), "rate_limit", "throttle"),
        (failed(), "overloaded", "overload"),
        (failed(), "model_not_found", "caller"),
        (failed(), "unknown", "overload"),
        (failed(), None, "overload"),
        (failed(terminal_reason="max_turns"), None, "caller"),
        (failed(terminal_reason="brand_new"), None, "protocol"),
        (failed(terminal_reason=None), None, "protocol"),
    ],
)
def test_classes(result: Result, hint: str | None, category: str) -> None:
    failure = classify(result, Hints(category=hint))
    assert failure is not None
    assert failure.category == category
    assert failure.status == result.api_error_status
    assert failure.message


def heard(**more: Any) -> LimitsHeard:
    return LimitsHeard(sent_order=1, heard_at=NOW, **more)


USED_UP = Failure("quota", "used up", resets_at=NOW + 60, window="five_hour")


def test_a_refused_window_is_a_quota_with_its_reset() -> None:
    hints = Hints(pause_s=5)
    hints.note(heard(windows=(Window("five_hour", "rejected"),), failure=USED_UP))
    failure = classify(failed(api_error_status=429), hints)
    assert failure is not None
    assert (failure.category, failure.resets_at, failure.window) == ("quota", NOW + 60, "five_hour")
    assert failure.retry_after_ms is None
    hints.note(heard(retry_after_s=4.0, failure=Failure("throttle", "slow")))
    assert hints.used_up == USED_UP  # a retry says nothing of windows
    hints.note(heard(windows=(Window("five_hour", "allowed"),)))
    failure = classify(failed(api_error_status=429), hints)
    assert failure is not None
    assert (failure.category, failure.resets_at, failure.retry_after_ms) == ("throttle", None, 4000)


@pytest.mark.parametrize(
    ("result", "category", "resets_at"),
    [
        (failed(api_error_status=429, api_error="usage_limit_reached"), "quota", None),
        (failed(api_error_status=429, api_error_type="billing_error"), "quota", None),
        (failed(api_error_status=429, api_error="model_requires_usage_credits"), "caller", None),
        (failed(api_error_status=429, result="your account's monthly spend limit"), "quota", FEBRUARY),
        (failed(api_error_status=400, result=f"API usage limits. {REGAIN}."), "quota", FEBRUARY),
        (failed(api_error_status=400, result="API usage limits."), "quota", None),
    ],
)  # fmt: skip
def test_quotas_by_words(result: Result, category: str, resets_at: float | None) -> None:
    failure = classify(result, Hints(), NOW)
    assert failure is not None
    assert (failure.category, failure.resets_at) == (category, resets_at)
    undated = classify(result, Hints())
    assert undated is not None
    assert undated.resets_at is None


def test_the_wait_before_the_last_retry_is_the_hint() -> None:
    hints = Hints()
    hints.note(heard(retry_after_s=1.2224, failure=Failure("throttle", "slow")))
    hints.note(heard(failure=Failure("throttle", "slow")))
    failure = classify(failed(api_error_status=429), hints)
    assert failure is not None
    assert failure.retry_after_ms == 1222
    overload = classify(failed(api_error_status=529), hints)
    assert overload is not None
    assert overload.retry_after_ms is None  # its own back-off, not the server's word


@pytest.mark.parametrize(
    ("status", "error", "category", "pause"),
    [
        (429, "rate_limit", "throttle", 1200),
        (529, "overloaded", "overload", None),
        (500, "server_error", "overload", None),
        (None, "unknown", "overload", None),
        (None, None, "overload", None),
        (401, "authentication_failed", "auth", None),
        (429, "billing_error", "quota", None),
        (529, "rate_limit", "overload", None),
        (None, "rate_limit", "throttle", 1200),
    ],
)
def test_retries(status: int | None, error: str | None, category: str, pause: int | None) -> None:
    frame = System(subtype="api_retry", error=error, error_status=status)
    failure = of_retry(frame, 1.2)
    assert (failure.category, failure.status, failure.retry_after_ms) == (category, status, pause)
    assert failure.message
    assert of_retry(frame, None).retry_after_ms is None


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (failed(result="The text."), "The text."),
        (failed(errors=["one", 2, "two"]), "one two"),
        (failed(terminal_reason="brand_new"), "Claude Code ended the turn (brand_new)."),
        (failed(terminal_reason=None, subtype="error_x"), "Claude Code ended the turn (error_x)."),
        (failed(terminal_reason=None), "Claude Code ended the turn (no reason given)."),
    ],
)
def test_messages(result: Result, message: str) -> None:
    failure = classify(result, Hints())
    assert failure is not None
    assert failure.message == message


def test_who_stopped_it() -> None:
    assert is_aborted(failed(terminal_reason="aborted_streaming"))
    assert is_aborted(failed(terminal_reason="aborted_tools"))
    assert not is_aborted(failed())


def access(seen: Failure | None = None, base_url: str = "http://dragoman.invalid") -> ApiAccess:
    return ApiAccess("g", base_url, None, "t", lambda: None, last_failure=lambda: seen)


INFERENCE = "API Error: 500 Oops. Try again in a moment. If it persists, check your inference gateway ({})."


@pytest.mark.parametrize(
    ("said", "through", "straight"),
    [
        (INFERENCE.format("dragoman.invalid"), "API Error: 500 Oops. Try again in a moment.", None),
        (
            "Connection dropped. Check the gateway set in ANTHROPIC_BASE_URL, then try again.",
            "Connection dropped. Try again.",
            None,
        ),
        (
            "Timed out. If it is slow, set API_TIMEOUT_MS above 600000.",
            "Timed out. If it is slow, raise the setting claude.apiTimeoutMs.",
            "Timed out. If it is slow, raise the setting claude.apiTimeoutMs.",
        ),
        (
            "No such model. Run --model to pick a different model.",
            "No such model. Choose another model.",
            "No such model. Choose another model.",
        ),
        (
            "No way to http://dragoman.invalid/v1/messages (dragoman.invalid)",
            "No way to the Messages API/v1/messages (the Messages API)",
            None,
        ),
    ],
)
def test_advice_is_for_whoever_asked(said: str, through: str, straight: str | None) -> None:
    failure = Failure("overload", said)
    assert explained(failure, access()).message == through
    assert explained(failure, None).message == (straight or said)


def test_a_port_of_ours_is_nobodys_address() -> None:
    failure = Failure("overload", INFERENCE.format("127.0.0.1:4711"))
    assert "127.0.0.1" not in explained(failure, access(base_url="http://127.0.0.1:4711")).message
    assert "127.0.0.1" in explained(failure, None).message, "an address of the user's own helps"


def test_what_the_gateway_saw_is_told() -> None:
    seen = Failure("quota", "spent", status=429, retry_after_ms=7, resets_at=9.0, detail="req_1")
    told = explained(Failure("throttle", "Rejected", status=429, retry_after_ms=600), access(seen))
    assert told == Failure("quota", "Rejected", status=429, retry_after_ms=7, resets_at=9.0, detail="req_1")


@pytest.mark.parametrize("seen", [None, Failure("quota", "spent"), Failure("quota", "spent", status=402)])
def test_of_another_failure_it_is_not(seen: Failure | None) -> None:
    failure = Failure("throttle", "Rejected", status=429, retry_after_ms=600)
    assert explained(failure, access(seen)) == failure
    assert explained(Failure("overload", "lost"), access(seen)) == Failure("overload", "lost")


def test_why_a_process_could_not_be_started() -> None:
    for error in (FileNotFoundError, NotADirectoryError, PermissionError):
        failure = cannot_start(error(2, "why"), "/w")
        assert (failure.category, failure.message) == ("caller", "/w cannot be the working directory: why.")
    failure = cannot_start(OSError(11, "too many"), "/w")
    assert (failure.category, failure.message) == ("crash", "Claude Code cannot be started: too many.")
