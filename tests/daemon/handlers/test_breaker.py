"""`breaker/*`."""

from typing import Any

from dragomand.engine.admission import Asked
from dragomand.upstream.interface import Failure


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
