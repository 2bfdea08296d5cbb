"""`breaker/*`."""

from typing import Any

from dragomand.engine.admission import Asked
from dragomand.upstream.interface import Failure, StartBreaker


async def test_state_and_reset(house: Any) -> None:
    """04.11."""
    async with house() as at:
        admin = at.client("admin")
        assert at.call(admin, "breaker/state").breakers == []
        for _ in range(5):
            async with at.engine.admission.admit_call(Asked(client="c", models="opus")) as permit:
                at.engine.admission.hearing.failed(permit, Failure("overload", "HTTP 503", status=503))
        (breaker,) = at.call(admin, "breaker/state").breakers
        assert (breaker.models, breaker.state, breaker.reason) == ("opus", "open", "HTTP 503")
        assert breaker.retry_at is not None
        assert at.call(admin, "breaker/reset", models="haiku").reset == 0
        assert at.call(admin, "breaker/reset").reset == 1
        assert at.call(admin, "breaker/state").breakers[0].state == "closed"


async def test_the_starting_of_claude_code_has_breakers_too(house: Any) -> None:
    """04.11: with the host `claudeCode`, and no word of what crashed, which may be another client's own."""
    async with house() as at:
        admin = at.client("admin")
        opened = [
            StartBreaker(True, "open", 3, 10.0, 20.0),
            StartBreaker(False, "half_open", 4, 5.0, None),
            StartBreaker(False, "closed", 1, None, None),
        ]
        at.starting.breakers = opened
        told = at.call(admin, "breaker/state").breakers
        assert {(each.host, each.models) for each in told} == {("claudeCode", "")}
        assert [(each.state, each.failures, each.opened_at, each.retry_at) for each in told] == [
            ("open", 3, 10.0, 20.0), ("half_open", 4, 5.0, None), ("closed", 1, None, None),
        ]  # fmt: skip
        assert ["kind" in (each.reason or "") for each in told] == [True, True, False]
        assert at.call(admin, "breaker/reset", host="api.anthropic.com").reset == 0
        assert at.starting.breakers == opened
        assert at.call(admin, "breaker/reset", host="claudeCode").reset == 3
        at.starting.breakers = opened[:1]
        assert at.call(admin, "breaker/reset").reset == 1
        assert at.call(admin, "breaker/state").breakers == []
