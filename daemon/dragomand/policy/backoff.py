"""How long to wait before an attempt is repeated, if it is.

Theory. Exponential backoff with jitter, so that those who failed together do not come back together. After
a throttle or an overload the wait has a certain half (equal jitter): the server needs the pause. After a
connection that did not come about it is random from its least on (full jitter): the network may be back at
once. A hint of the server's wins over both; a tenth of jitter goes on top, never below. After the last
attempt, or for a failure that repeating cannot mend, the answer is None.
"""

import math
from typing import Literal

Kind = Literal["throttle", "overload", "connect"]
"""Failures that are worth another attempt: told to slow down, the server fails, the server is not reached."""

ATTEMPTS = 3
"""Attempts in all, the first included."""
HINT_JITTER = 0.1
"""How much longer than the hint, at most."""
_LEAST_S, _MOST_S = 1.0, 30.0
_CONNECT_LEAST_S, _CONNECT_MOST_S = 0.5, 8.0
_MOST_DOUBLINGS = 16


class Backoff:
    """The waits between the attempts of one request. Keeps nothing; share it."""

    __slots__ = ("attempts",)

    def __init__(self, attempts: int = ATTEMPTS) -> None:
        """Make *attempts* in all (1: never repeat)."""
        if attempts < 1:
            raise ValueError(f"{attempts} attempts would be none; it must be at least 1")
        self.attempts = attempts

    def wait(self, kind: str, failed: int, chance: float, hint_s: float | None = None) -> float | None:
        """Return the seconds to wait after *failed* attempts (1 or more); None: give up.

        *chance* is 0 to 1. *hint_s* is the server's `retry-after`; one that is no number of seconds is none.
        A kind that is none of `Kind` is never repeated.
        """
        if failed >= self.attempts or kind not in ("throttle", "overload", "connect"):
            return None
        if hint_s is not None and 0 <= hint_s < math.inf:
            return hint_s * (1 + HINT_JITTER * chance)
        doubled = 2.0 ** min(failed, _MOST_DOUBLINGS)
        if kind == "connect":
            longest = min(_CONNECT_MOST_S, _CONNECT_LEAST_S * doubled)
            return _CONNECT_LEAST_S + chance * (longest - _CONNECT_LEAST_S)
        half = min(_MOST_S, _LEAST_S * doubled) / 2
        return half + chance * half
