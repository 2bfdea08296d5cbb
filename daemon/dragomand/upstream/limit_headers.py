"""What an answer's headers say of the provider's limits, in every form that is known of them.

`anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}` tell the limits a
minute; `anthropic-ratelimit-unified-*` the windows of a subscription, each by a short name (`5h`, `7d`,
`7d_opus` …) and the one that decides by `representative-claim`; `retry-after`, `retry-after-ms` and
`x-should-retry` what is to be done. Names that are not known today are kept under their own.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from dragomand.upstream.limits_heard import MOST_LIMITS, Allowance, Believing, LimitsHeard, Window

Pairs = Iterable[tuple[str, str]]

_PREFIX = "anthropic-ratelimit-"
_ALLOWANCE = re.compile(r"([a-z0-9_-]{1,64})-(limit|remaining|reset)")
_WINDOW = re.compile(r"unified-([a-z0-9_]{1,40})-(status|reset|utilization)")
_UNIFIED = frozenset(["unified-status", "unified-reset", "unified-representative-claim"])
_OVERAGE = "unified-overage-status"
"""Of a window, and of the whole."""
_NO_WINDOWS = frozenset(["slow", "grace"])
"""Not windows: service at lower priority, and the allowance beyond a window's end."""
_PLAIN = frozenset(["retry-after", "retry-after-ms", "x-should-retry", "request-id"])
_SPANS = {"5h": "five_hour", "7d": "seven_day"}
_NAMES = {"7d_oi": "seven_day_overage_included"}
_LONGEST_ID = 200


class _Read:
    """The headers, sorted by what they tell of."""

    __slots__ = ("allowances", "left_out", "plain", "unified", "windows")

    def __init__(self, given: Pairs) -> None:
        self.allowances: dict[str, dict[str, str]] = {}
        self.windows: dict[str, dict[str, str]] = {}
        self.unified: dict[str, str] = {}
        self.plain: dict[str, str] = {}
        self.left_out = 0
        for name, value in given:
            about = _about(name)
            if about is None:
                continue
            group, what, part = about
            if group == "allowance":
                self._keep(self.allowances, what, part, value)
            elif group == "window":
                self._keep(self.windows, what, part, value)
            elif group == "plain":
                self.plain[what] = value
            else:
                self.unified[what] = value
                if part:
                    self._keep(self.windows, "overage", part, value)

    def _keep(self, kept: dict[str, dict[str, str]], name: str, part: str, value: str) -> None:
        found = kept.get(name)
        if found is not None:
            found[part] = value
        elif len(kept) < MOST_LIMITS:
            kept[name] = {part: value}
        else:
            self.left_out += 1


@lru_cache(maxsize=256)
def _about(name: str) -> tuple[str, str, str] | None:
    """Return what a header tells of, (group, name, part); None: of nothing that matters here.

    The names are few and always the same, so each is looked at once.
    """
    lower = name.lower()
    if lower in _PLAIN:
        return "plain", lower, ""
    if not lower.startswith(_PREFIX):
        return None
    rest = lower[len(_PREFIX) :]
    if not rest.startswith("unified-"):
        found = _ALLOWANCE.fullmatch(rest)
        return None if found is None else ("allowance", found[1], found[2])
    if rest in _UNIFIED:
        return "unified", rest, ""
    if rest == _OVERAGE:
        return "both", rest, "status"
    found = _WINDOW.fullmatch(rest)
    if found is None or found[1] in _NO_WINDOWS:
        return None
    return "window", window_name(found[1]), found[2]


def window_name(short: str) -> str:
    """Return a window's name as Claude Code gives it: `seven_day_opus` for the `7d_opus` of headers.

    A name that is not known today stays as it is.
    """
    if short in _NAMES:
        return _NAMES[short]
    span, line, rest = short.partition("_")
    return f"{_SPANS.get(span, span)}{line}{rest}"


def read(
    given: Pairs, *, sent_order: int, now: float, status: int | None = None, model: str | None = None
) -> LimitsHeard:
    """Return what the headers of an answer say; *now* is Unix seconds, *sent_order* as in `LimitsHeard`."""
    headers = _Read(given)
    believing = Believing(now)
    believing.absurd = headers.left_out
    others = {name: believing.allowance(parts) for name, parts in headers.allowances.items()}
    plain = headers.plain
    return LimitsHeard(
        sent_order,
        now,
        status,
        model,
        requests=_told(others.pop("requests", None)),
        tokens=_told(others.pop("tokens", None)),
        input_tokens=_told(others.pop("input-tokens", None)),
        output_tokens=_told(others.pop("output-tokens", None)),
        others={name: value for name, value in others.items() if _told(value) is not None},
        windows=_windows(headers, believing),
        overage=_word(headers.unified, _OVERAGE, believing),
        retry_after_s=believing.pause_s(plain.get("retry-after-ms"), plain.get("retry-after")),
        should_retry={"true": True, "false": False}.get(plain.get("x-should-retry", "").strip().lower()),
        request_id=plain.get("request-id", "")[:_LONGEST_ID] or None,
        absurd=believing.absurd,
    )


def _windows(headers: _Read, believing: Believing) -> tuple[Window, ...]:
    """Return the windows; the one that decides has the status of the whole, whatever it says of itself."""
    found = {
        name: believing.window(name, parts.get("status"), parts.get("reset"), parts.get("utilization"))
        for name, parts in headers.windows.items()
    }
    unified = headers.unified
    claim = _word(unified, "unified-representative-claim", believing)
    status = _word(unified, "unified-status", believing)
    reset = unified.get("unified-reset")
    resets_at = None if reset is None else believing.instant(reset)
    if claim is None and (status is not None or resets_at is not None):
        claim = "unified"
    if claim is None:
        return tuple(found.values())
    own = found.pop(claim, Window(claim))
    first = own._replace(status=status or own.status, resets_at=resets_at or own.resets_at)
    return (first, *found.values())


def _word(headers: dict[str, str], name: str, believing: Believing) -> str | None:
    return believing.word(headers[name]) if name in headers else None


def _told(allowance: Allowance | None) -> Allowance | None:
    return None if allowance == Allowance() else allowance
