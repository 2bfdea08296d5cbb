"""What Claude Code says of limits, as facts: its frames `rate_limit_event`, `system/api_retry`, and errors.

The first comes with a subscription whenever a window moves (never with an API key), the second before Claude
Code repeats a call. A window that is used up does not move, so later refusals tell of it in the error alone.
All tell of calls that the daemon does not see by itself.
"""

import time
from typing import Any

import msgspec

from dragomand.upstream.claude_code.failures import USED_UP, of_retry
from dragomand.upstream.claude_code.wire import AnyFrame, Assistant, RateLimitEvent, RateLimitInfo, System
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import (
    LONGEST_AHEAD_S,
    MOST_LIMITS,
    Believing,
    LimitsHeard,
    OnLimits,
    Window,
)

_NOT_PAID_FOR = "credits_required"


class Listener:
    """Tells what one process says of limits as it comes, whether a turn runs or not."""

    __slots__ = ("_tell",)

    def __init__(self, tell: OnLimits) -> None:
        """Tell *tell*."""
        self._tell = tell

    def hear(
        self, frame: AnyFrame | None, model: str | None, *, first_hand: bool = True
    ) -> LimitsHeard | None:
        """Return what *frame* says of limits, after it was told; None if nothing. *model* made the call.

        Not *first_hand* is what went through the gateway: that has heard it itself and better, and may have
        said it itself, so it is not told again.
        """
        if not isinstance(frame, RateLimitEvent | System | Assistant):
            return None
        found = heard(frame, sent_order=time.monotonic_ns(), now=time.time(), model=model)
        if found is not None and first_hand:
            self._tell(found)
        return found


def heard(
    frame: RateLimitEvent | System | Assistant, *, sent_order: int, now: float, model: str | None
) -> LimitsHeard | None:
    """Return what *frame* says of limits; None if nothing. *now* is Unix seconds."""
    if isinstance(frame, RateLimitEvent):
        return of_windows(frame.rate_limit_info, sent_order=sent_order, now=now, model=model)
    if isinstance(frame, Assistant):
        info = _refusal_in(frame)
        return None if info is None else of_windows(info, sent_order=sent_order, now=now, model=model)
    if frame.subtype != "api_retry":
        return None
    believing = Believing(now)
    delay_ms = frame.retry_delay_ms
    delay_ms = None if delay_ms is None else believing.number(delay_ms, LONGEST_AHEAD_S * 1000)
    pause_s = None if delay_ms is None else delay_ms / 1000
    return LimitsHeard(
        sent_order,
        now,
        frame.error_status,
        model,
        retry_after_s=pause_s,
        failure=of_retry(frame, pause_s),
        absurd=believing.absurd,
    )


def of_windows(info: RateLimitInfo, *, sent_order: int, now: float, model: str | None) -> LimitsHeard:
    """Return what Claude Code says of the windows; the one that decides comes first."""
    believing = Believing(now)
    windows: dict[str, Window] = {}
    given = info.unified_windows if isinstance(info.unified_windows, dict) else {}
    for name, parts in list(given.items())[:MOST_LIMITS]:
        known = believing.word(name)
        if known is not None and isinstance(parts, dict):
            windows[known] = _window(known, parts, believing)
    believing.absurd += max(0, len(given) - MOST_LIMITS)
    claim = None if info.rate_limit_type is None else believing.word(info.rate_limit_type)
    own = believing.window(claim or "unified", info.status, info.resets_at, info.utilization)
    inside = windows.pop(own.name, Window(own.name))
    deciding = own._replace(
        resets_at=inside.resets_at if own.resets_at is None else own.resets_at,
        utilization=inside.utilization if own.utilization is None else own.utilization,
    )
    told = claim is not None or own.status == "rejected" or own.resets_at is not None
    refused = deciding.status == "rejected" and not _is_paid_for(info) and info.error_code != _NOT_PAID_FOR
    return LimitsHeard(
        sent_order,
        now,
        429 if refused else None,
        model,
        windows=((deciding, *windows.values()) if told else tuple(windows.values())),
        overage=None if info.overage_status is None else believing.word(info.overage_status),
        failure=_used_up(deciding) if refused else None,
        absurd=believing.absurd,
    )


def _refusal_in(frame: Assistant) -> RateLimitInfo | None:
    """Return what an error says of the windows, if it is one for which they are used up."""
    params = frame.api_error_params
    used_up = frame.api_error == USED_UP and frame.api_error_code != _NOT_PAID_FOR
    if not used_up or not isinstance(params, dict):
        return None
    try:
        return msgspec.convert(params.get("rate_limit_info"), RateLimitInfo)
    except msgspec.ValidationError:
        return None


def _is_paid_for(info: RateLimitInfo) -> bool:
    """Tell whether what goes beyond the window is answered all the same."""
    if isinstance(info.is_using_overage, bool):
        return info.is_using_overage
    return info.overage_status in ("allowed", "allowed_warning")


def _window(name: str, parts: dict[Any, Any], believing: Believing) -> Window:
    return believing.window(name, parts.get("status"), parts.get("resetsAt"), parts.get("utilization"))


def _used_up(window: Window) -> Failure:
    name = None if window.name == "unified" else window.name
    text = f"The limit {name or 'of the subscription'} is used up."
    return Failure("quota", text, status=429, resets_at=window.resets_at, window=name)
