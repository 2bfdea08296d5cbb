"""What the provider says becomes what the door does: four classes of failure, four mechanisms.

A throttle pauses the pool; a used up quota parks what waits until it returns; overload is the breaker's
business (when the call ends) and lowers the concurrency; a refused credential is let alone at once. What is
the caller's own fault, or nobody's, changes nothing. What is heard twice is done once.
"""

from collections.abc import Callable

from dragomand.policy.rate_limiter import Charge, Estimate, Window
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import LimitsHeard

from .permit import Permit
from .pool import Pool, Pools

PUSHED_BACK = frozenset({429, 529})
"""Statuses by which the provider says that it is asked for too much at once."""
PAUSE_S = 1.0
"""How long a throttle lasts of which the provider does not say how long, at first."""
NOTHING = Estimate()
SPENT = "spend"
"""The name of a quota that the provider gives none."""


class Hearing:
    """Acts on what is heard."""

    def __init__(
        self,
        pools: Pools,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        chance: Callable[[], float],
        changed: Callable[[], None],
        used: Callable[[], None],
    ) -> None:
        """Act on *pools*; *changed* is called after what may let in or keep out somebody.

        *used* is called when a rate is known that has not been written down.
        """
        self._used = used
        self._pools = pools
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._changed = changed
        self.on_parked: Callable[[str, float | None, str], None] = lambda *_: None
        """A credential's quota is used up until (Unix seconds; None: is there again), and which window."""
        self.on_refused: Callable[[str, str], None] = lambda *_: None
        """The provider refused a credential, for the first time; and what it said."""

    def of_call(self, permit: Permit, heard: LimitsHeard) -> None:
        """Take what the answer to a call said, at its head or at its end."""
        pool, charge = permit.pool, permit.charge
        assert pool is not None
        assert charge is not None
        if heard.failure is not None:
            self.failed(permit, heard.failure)
        elif heard.status is not None and heard.status < 400:
            self._accepted(permit, pool, charge)
        windows = {
            name: Window(allowance.limit, allowance.remaining, allowance.resets_at)
            for name, allowance in heard.allowances.items()
        }
        if windows:
            now = self._clock()
            pool.limiter.learn(charge.order, windows, now, self._wall())
            if not pool.limiter.covers(NOTHING, now):
                self._used()
        if heard.absurd:
            pool.limiter.absurd += heard.absurd
        if heard.windows:
            self._observe(pool.credential.name, heard)

    def overheard(self, credential: str, models: str, heard: LimitsHeard) -> None:
        """Take what Claude Code said of calls that the daemon does not see."""
        pool = self._pools.get(credential, models)
        if heard.windows:
            self._observe(credential, heard)
        if heard.failure is not None:
            self._act(pool, heard.failure)

    def failed(self, permit: Permit, failure: Failure) -> None:
        """A call failed. What its end means for the breaker is settled with the permit."""
        pool = permit.pool
        assert pool is not None
        permit.failure = failure.category
        self._act(pool, failure)

    # -- within

    def _accepted(self, permit: Permit, pool: Pool, charge: Charge) -> None:
        """The answer begins well: a call that tries has shown what it had to, long before it ends."""
        if pool.limiter.trials is None and pool.credential.clear:
            return
        pool.limiter.accepted(charge)
        if not pool.credential.clear:
            pool.credential.ended(permit, permit.trial, succeeded=True)
            permit.trial = ()
        self._changed()

    def _act(self, pool: Pool, failure: Failure) -> None:
        category = failure.category
        now = self._clock()
        if failure.status in PUSHED_BACK and category in ("throttle", "overload"):
            pool.ceiling.pushed_back(now)
        if category == "throttle":
            wait_ms = failure.retry_after_ms
            pool.limiter.pause(PAUSE_S if wait_ms is None else wait_ms / 1000, self._chance(), now)
        elif category == "overload":
            pool.provider.reason = failure.message[:500]
            return
        elif category == "quota":
            self._park(pool, failure)
        elif category == "auth":
            if pool.credential.refuse(failure.message[:500], now):
                self.on_refused(pool.credential.name, failure.message)
        else:
            return
        self._changed()

    def _park(self, pool: Pool, failure: Failure) -> None:
        window = failure.window or SPENT
        was = pool.credential.parked_until(window)
        parked = pool.credential.use_up(window, failure.resets_at, self._chance(), self._wall())
        if was is None or abs(was - parked.until) > 1:
            pool.credential.told_parked = True
            self.on_parked(pool.credential.name, parked.until, window)

    def _observe(self, credential: str, heard: LimitsHeard) -> None:
        known = self._pools.credential(credential)
        for each in heard.windows:
            known.observe(each.name, each.utilization, each.resets_at, self._wall())
