"""What every client that wants to know of limits is told."""

from dragoman_protocol.breaker import BreakerChangedParams
from dragoman_protocol.budget import BudgetExhaustedParams, BudgetWarningParams
from dragoman_protocol.limits import LimitsParkedParams
from dragoman_protocol.methods import METHODS
from dragomand.handlers.notices import WANTED, notifier


def test_each_notice_is_its_own_notification() -> None:
    told: list[tuple[str, object, str]] = []
    tell = notifier(lambda *what: told.append(what))
    notices = [
        LimitsParkedParams(until=1.0),
        BreakerChangedParams(host="h", models="m", state="open"),
        BudgetWarningParams(scope="hour"),
        BudgetExhaustedParams(scope="hour"),
    ]
    for notice in notices:
        tell(notice)
    methods = [method for method, _, _ in told]
    assert methods == ["limits/parked", "breaker/changed", "budget/warning", "budget/exhausted"]
    assert [type(notice) for notice in notices] == [METHODS[method].params for method in methods]
    assert {capability for _, _, capability in told} == {WANTED}
