"""How many retries all clients together may make.

Theory. Retries multiply the load of a server that is already failing. The budget ties them to what
succeeds: each success pays a tenth of a retry in, each retry takes a whole one out, and at most `MOST` can
be saved up. It begins full. Whatever happens, of n requests at most n succeed, so

    attempts <= n + 10 + n / 10,

and when everything fails, at most 10 retries are made in all. It counts in tenths, which do not round.
"""

MOST = 10
"""Retries that can be saved up."""
_WHOLE = 10


class RetryBudget:
    """Retries saved up, shared by everybody."""

    __slots__ = ("_tenths",)

    def __init__(self, tenths: int = MOST * _WHOLE) -> None:
        """Begin full, or with the *tenths* of an earlier life."""
        self._tenths = min(max(tenths, 0), MOST * _WHOLE)

    @property
    def tenths(self) -> int:
        """Tenths of a retry saved up, 0 to 100."""
        return self._tenths

    @property
    def retries(self) -> int:
        """How many retries could be made now."""
        return self._tenths // _WHOLE

    def restore(self, tenths: int) -> None:
        """Go on with the *tenths* of an earlier life."""
        self._tenths = min(max(tenths, 0), MOST * _WHOLE)

    def succeeded(self) -> None:
        """Pay in for a request that succeeded; once a request, not once an attempt."""
        if self._tenths < MOST * _WHOLE:
            self._tenths += 1

    def spend(self) -> bool:
        """Take one retry out; False, and nothing is taken, if there is none: do not retry."""
        if self._tenths < _WHOLE:
            return False
        self._tenths -= _WHOLE
        return True
