"""One owner of the provider's word on its limits."""

from dragoman_protocol.limits import RateWindow
from dragomand.engine.provider_limits import ProviderLimits
from dragomand.upstream.limits_heard import Allowance, LimitsHeard, Window


def test_nothing_was_said() -> None:
    limits = ProviderLimits()
    said: list[LimitsHeard] = []
    limits.on_heard = said.append
    limits.hear(LimitsHeard(1, 1.0, status=200))
    assert limits.snapshot() is None
    assert said == []


def test_headers_and_windows_stand_side_by_side() -> None:
    limits = ProviderLimits()
    limits.hear(LimitsHeard(1, 1.0, status=200, requests=Allowance(5, 4, 61.0), absurd=1))
    limits.hear(LimitsHeard(2, 2.0, windows=(Window("five_hour", "rejected", 9.0, 1.0),)))
    found = limits.snapshot()
    assert found is not None
    assert (found.seen_at, found.status, found.retry_after_ms) == (2.0, None, None)
    assert found.windows == {
        "requests": RateWindow(limit=5, remaining=4, reset_at=61.0),
        "five_hour": RateWindow(reset_at=9.0, status="rejected", utilization=1.0),
    }
    assert (limits.absurd, limits.late) == (1, 0)


def test_late_words_are_passed_on_and_counted_and_change_nothing() -> None:
    limits = ProviderLimits()
    said: list[LimitsHeard] = []
    limits.on_heard = said.append
    newer = LimitsHeard(2, 2.0, requests=Allowance(5, 1))
    older = LimitsHeard(1, 3.0, requests=Allowance(5, 4))
    limits.hear(newer)
    limits.hear(older)
    assert said == [newer, older]
    assert limits.late == 1
    found = limits.snapshot()
    assert found is not None
    assert (found.seen_at, found.windows["requests"].remaining) == (2.0, 1)
