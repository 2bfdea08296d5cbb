"""How many retries all clients together may make.

Theory. Retries multiply the load of a server that is already failing. The budget ties them to what
succeeds: each success pays a tenth of a retry in, each retry takes a whole one out, and at most `MOST` can
be saved up. It begins full. Whatever happens, of n requests at most n succeed, so, with 10 of them,

    attempts <= n + 10 + n / 10,

and when everything fails, at most 10 retries are made in all. It counts in tenths, which do not round.
"""

MOST = 10
"""Retries that can be saved up, unless it is made for more or fewer."""
_WHOLE = 10


class RetryBudget:
    """Retries saved up, shared by everybody."""

    __slots__ = ("_most", "_tenths")

    def __init__(self, tenths: int | None = None, most: int = MOST) -> None:
        """Begin full, or with the *tenths* of an earlier life; *most* retries can be saved up."""
        self._most = most * _WHOLE
        self._tenths = self._most if tenths is None else min(max(tenths, 0), self._most)

    @property
    def tenths(self) -> int:
        """Tenths of a retry saved up."""
        return self._tenths

    @property
    def retries(self) -> int:
        """How many retries could be made now."""
        return self._tenths // _WHOLE

    def restore(self, tenths: int) -> None:
        """Go on with the *tenths* of an earlier life."""
        self._tenths = min(max(tenths, 0), self._most)

    def bound(self, most: int) -> None:
        """Let *most* retries be saved up from now on; where nothing was used, it is full again."""
        was, self._most = self._most, most * _WHOLE
        self._tenths = self._most if self._tenths == was else min(self._tenths, self._most)

    def succeeded(self) -> None:
        """Pay in for a request that succeeded; once a request, not once an attempt."""
        if self._tenths < self._most:
            self._tenths += 1

    def spend(self) -> bool:
        """Take one retry out; False, and nothing is taken, if there is none: do not retry."""
        if self._tenths < _WHOLE:
            return False
        self._tenths -= _WHOLE
        return True
