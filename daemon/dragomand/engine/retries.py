"""Whether a call that failed is made once more: one layer of retries, for both upstreams and the gateway.

Nothing is repeated after something of the answer has been passed on. All clients together have one budget
(`policy.retry_budget`), so that a provider that fails is not asked much more than one that does not. After a
throttle there is nothing to wait for here: the door is closed for the pause, and the repetition waits at it.
"""

from collections.abc import Awaitable, Callable

import anyio

from dragomand.policy.backoff import Backoff
from dragomand.policy.retry_budget import RetryBudget
from dragomand.upstream.interface import Failure

MOST_WAIT_S = 60.0
"""A longer pause than that is told to who waits, not waited for."""


class Retries:
    """Decides, and waits."""

    def __init__(
        self,
        budget: RetryBudget,
        *,
        chance: Callable[[], float],
        attempts: int = 3,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """Spend *budget*; make *attempts* at most, the first included; *chance* gives 0 to 1."""
        self.budget = budget
        self.backoff = Backoff(attempts)
        self._chance = chance
        self._sleep = sleep

    async def again(self, failure: Failure, failed: int) -> bool:
        """Return whether to try again after *failed* attempts, when it is time to; False: give up."""
        kind = "connect" if failure.category == "overload" and failure.status is None else failure.category
        hint_ms = failure.retry_after_ms
        hint_s = None if hint_ms is None else hint_ms / 1000
        wait_s = self.backoff.wait(kind, failed, self._chance(), hint_s)
        if wait_s is None or wait_s > MOST_WAIT_S or not self.budget.spend():
            return False
        if kind != "throttle":
            await self._sleep(wait_s)
        return True
