"""What the engine has to say to every client that wants to know how the limits stand."""

from collections.abc import Callable

from dragoman_protocol.breaker import BreakerChangedParams
from dragoman_protocol.budget import BudgetExhaustedParams, BudgetWarningParams
from dragoman_protocol.limits import LimitsParkedParams

from dragomand.engine.notices import Notice

_METHOD: dict[type[Notice], str] = {
    LimitsParkedParams: "limits/parked",
    BreakerChangedParams: "breaker/changed",
    BudgetWarningParams: "budget/warning",
    BudgetExhaustedParams: "budget/exhausted",
}

WANTED = "limits"
"""The capability of a client that is told: `{"limits": true}` in `initialize`."""


def notifier(broadcast: Callable[[str, object, str], None]) -> Callable[[Notice], None]:
    """Return what tells a notice to every connection that wants it.

    *broadcast* takes a method, its parameters and the capability of those that are told.
    """

    def tell(notice: Notice) -> None:
        broadcast(_METHOD[type(notice)], notice, WANTED)

    return tell
