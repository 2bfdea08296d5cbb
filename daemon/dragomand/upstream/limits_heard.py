"""What the provider says of its limits, as facts: one vocabulary for both upstreams and the gateway.

Whatever comes from outside is believed within bounds only: a number is finite and not negative, an instant
neither long past nor far ahead, nothing remains above its limit. What is not believed is left out and
counted; nothing raises. A fact may be heard twice, or late: `LimitsKnown` keeps, of each limit, the one that
was sent last.
"""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import msgspec

from dragomand.upstream.interface import Failure

DAY_S = 86_400.0
LONGEST_AHEAD_S = 100 * DAY_S
"""No limit is believed to return later than that: a month's spend cap may, a year's does not exist."""
LONGEST_AGO_S = DAY_S
"""An instant further back says nothing; the clocks of two machines may differ by less."""
MOST_LIMITS = 16
"""So many limits, and so many windows, are kept of one answer; what is beyond is counted as absurd."""
MOST_UTILIZATION = 100.0
"""Above 1 a window is overdrawn, which happens; beyond this it is nonsense."""
_MOST_COUNT = 10**12

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,9})?")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Allowance(NamedTuple):
    """One of the API's limits a minute. None: not told, or not to be believed."""

    limit: int | None = None
    remaining: int | None = None
    resets_at: float | None = None
    """Unix seconds at which it is full again."""


class Window(NamedTuple):
    """A subscription's limit over hours or days. None: not told, or not to be believed."""

    name: str
    """`five_hour`, `seven_day`, `seven_day_opus`, `overage` …, or a name not known today."""
    status: str | None = None
    """`allowed`, `allowed_warning`, `rejected`, or a word not known today."""
    resets_at: float | None = None
    """Unix seconds."""
    utilization: float | None = None
    """The share that is used: 1 is all of it."""


class LimitsHeard(msgspec.Struct, frozen=True):
    """What one answer, or one frame of Claude Code's, says. All of it may be heard twice without harm."""

    sent_order: int
    """Of two, the larger one was sent later: nanoseconds of the monotonic clock, when the call was sent; of a
    frame, when it came."""
    heard_at: float
    """Unix seconds."""
    status: int | None = None
    """HTTP status of the answer."""
    model: str | None = None
    """Whom the call was for; limits are shared by models of one kind."""
    message_id: str | None = None
    """The message of the turn that the call was made for, where it is known."""
    requests: Allowance | None = None
    tokens: Allowance | None = None
    """Of both directions together."""
    input_tokens: Allowance | None = None
    output_tokens: Allowance | None = None
    others: dict[str, Allowance] = {}
    """Limits of names that are not known today."""
    windows: tuple[Window, ...] = ()
    """The one that decides comes first."""
    overage: str | None = None
    """The status of usage beyond the windows, which is paid for."""
    retry_after_s: float | None = None
    """The pause that is asked for; of a frame, the one that Claude Code makes."""
    should_retry: bool | None = None
    """`x-should-retry`."""
    request_id: str | None = None
    failure: Failure | None = None
    """Why this call was refused; None: it was not."""
    absurd: int = 0
    """How many values were not believed."""

    @property
    def allowances(self) -> dict[str, Allowance]:
        """Every limit a minute, by the provider's name for it."""
        known = {
            "requests": self.requests,
            "tokens": self.tokens,
            "input-tokens": self.input_tokens,
            "output-tokens": self.output_tokens,
        }
        return {**{name: value for name, value in known.items() if value is not None}, **self.others}

    @property
    def says_something(self) -> bool:
        """Whether there is a fact in it."""
        told = self.allowances or self.windows or self.overage
        return bool(told) or self.retry_after_s is not None or self.failure is not None


OnLimits = Callable[[LimitsHeard], None]
"""Is told what was heard, in the order in which it came; returns at once and does not raise."""


def nobody(_: LimitsHeard) -> None:
    """Tell nobody."""


class Believing:
    """Turns what was said into values, and counts what cannot be believed."""

    __slots__ = ("absurd", "now")

    def __init__(self, now: float) -> None:
        """Judge instants from *now*, Unix seconds."""
        self.now = now
        self.absurd = 0

    def number(self, given: object, most: float) -> float | None:
        """Return a number from 0 to *most*, of itself or of ASCII digits."""
        found = _number_of(given)
        if found is not None and 0 <= found <= most:
            return found
        self.absurd += 1
        return None

    def count(self, given: object) -> int | None:
        """Return a whole number."""
        if isinstance(given, str) and len(given) <= 12 and given.isascii() and given.isdigit():
            return int(given)  # the usual form
        found = self.number(given, _MOST_COUNT)
        return None if found is None else int(found)

    def instant(self, given: object, ahead_s: float = LONGEST_AHEAD_S) -> float | None:
        """Return Unix seconds, of themselves, of an RFC 3339 time or of an HTTP date; *ahead_s* at most."""
        found = _number_of(given)
        if found is None and isinstance(given, str):
            found = instant_of(given.strip())
        if found is None or not -LONGEST_AGO_S <= found - self.now <= ahead_s:
            self.absurd += 1
            return None
        return found

    def word(self, given: object) -> str | None:
        """Return a word in snake case, as statuses and names are."""
        found = given.strip().lower() if isinstance(given, str) else ""
        if _WORD.fullmatch(found):
            return found
        self.absurd += 1
        return None

    def allowance(self, parts: dict[str, str]) -> Allowance:
        """Return the limit that headers tell by `limit`, `remaining` and `reset`."""
        limit, remaining = (
            self.count(parts[name]) if name in parts else None for name in ("limit", "remaining")
        )
        if limit is not None and remaining is not None and remaining > limit:
            remaining = None
            self.absurd += 1
        return Allowance(limit, remaining, self.instant(parts["reset"], DAY_S) if "reset" in parts else None)

    def window(self, name: str, status: object, reset: object, utilization: object) -> Window:
        """Return a window; each of its values may be None."""
        return Window(
            name,
            None if status is None else self.word(status),
            None if reset is None else self.instant(reset),
            None if utilization is None else self.number(utilization, MOST_UTILIZATION),
        )

    def pause_s(self, exact_ms: str | None, given: str | None) -> float | None:
        """Return the pause of `retry-after-ms`, or of `retry-after` in seconds or as a date."""
        if exact_ms is not None:
            found = self.number(exact_ms, LONGEST_AHEAD_S * 1000)
            if found is not None:
                return found / 1000
        if given is None:
            return None
        if _number_of(given) is not None:
            return self.number(given, LONGEST_AHEAD_S)
        at = self.instant(given)
        return None if at is None else max(0.0, at - self.now)


class LimitsKnown:
    """The newest word on each limit. Order of arrival does not matter, the order of sending does."""

    __slots__ = ("_allowances", "_newest", "_windows", "absurd", "late")

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._allowances: dict[str, tuple[int, Allowance]] = {}
        self._windows: dict[str, tuple[int, Window]] = {}
        self._newest: LimitsHeard | None = None
        self.absurd = 0
        """How many values were not believed."""
        self.late = 0
        """How much was heard after something that was sent later."""

    def hear(self, heard: LimitsHeard) -> bool:
        """Take *heard*; False if something newer was heard before, of which nothing is replaced."""
        self.absurd += heard.absurd
        newest = self._newest
        is_new = newest is None or heard.sent_order >= newest.sent_order
        if is_new:
            self._newest = heard
        else:
            self.late += 1
        _note(self._allowances, heard.sent_order, heard.allowances)
        _note(self._windows, heard.sent_order, {each.name: each for each in heard.windows})
        return is_new

    @property
    def newest(self) -> LimitsHeard | None:
        """What was sent last."""
        return self._newest

    @property
    def allowances(self) -> dict[str, Allowance]:
        """The limits a minute, by the provider's names."""
        return {name: value for name, (_, value) in self._allowances.items()}

    @property
    def windows(self) -> dict[str, Window]:
        """The windows, by their names."""
        return {name: value for name, (_, value) in self._windows.items()}


def _note(known: dict[str, tuple[int, Any]], order: int, said: dict[str, Any]) -> None:
    for name, value in said.items():
        before = known.get(name)
        if before is None and len(known) >= 4 * MOST_LIMITS:
            continue  # names that nobody knows are not collected for ever
        if before is None or before[0] <= order:
            known[name] = (order, value)


def _number_of(given: object) -> float | None:
    if isinstance(given, str):
        text = given.strip()
        if not text or text[0] not in "0123456789" or not _NUMBER.fullmatch(text):
            return None
        return float(text)
    if isinstance(given, int | float) and not isinstance(given, bool):
        try:
            found = float(given)
        except OverflowError:
            return None
        return found if math.isfinite(found) else None
    return None


def instant_of(text: str) -> float | None:
    """Return the Unix seconds of an RFC 3339 time with a zone, or of an HTTP date; None if it is neither."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return found.timestamp() if found.tzinfo is not None else None
    try:
        found = parsedate_to_datetime(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
