"""What the engine has to say to every client that wants to know how the limits stand."""

from collections.abc import Callable

from dragoman_protocol.breaker import BreakerChangedParams
from dragoman_protocol.budget import BudgetExhaustedParams, BudgetWarningParams
from dragoman_protocol.limits import LimitsParkedParams

from dragomand.server.server import Server

Notice = LimitsParkedParams | BreakerChangedParams | BudgetWarningParams | BudgetExhaustedParams

_METHOD: dict[type[Notice], str] = {
    LimitsParkedParams: "limits/parked",
    BreakerChangedParams: "breaker/changed",
    BudgetWarningParams: "budget/warning",
    BudgetExhaustedParams: "budget/exhausted",
}

WANTED = "limits"
"""The capability of a client that is told: `{"limits": true}` in `initialize`."""


def notifier(server: Server) -> Callable[[Notice], None]:
    """Return what tells a notice to every connection that wants it."""

    def tell(notice: Notice) -> None:
        server.broadcast(_METHOD[type(notice)], notice, capability=WANTED)

    return tell
