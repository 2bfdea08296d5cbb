"""When to stop asking a server that fails, and when to try again.

Theory. A circuit breaker (Nygard). Closed, everything passes. It opens after `failure_threshold` failures
in a row, or when within a minute at least five calls ended and half of them failed; then nothing passes
for `timeout_s` (times 0.8 to 1.2, by chance, so that not everybody returns at once). After that it is half
open: `half_open_requests` at a time are let through to try. `success_threshold` successes close it; one
failure opens it again, for twice as long, up to `longest_s`.

A call counts for the state in which it began: each state has a number (generation), and what comes back
with the number of an earlier one is ignored. So a success that was under way when the server broke closes
nothing, and stragglers of the bad time open nothing. Only failures of the server are failures: whoever
asked wrongly (4xx), too often (429) or gave up is `abandoned`. A trial that is never reported (it should
not be) blocks the others no longer than one opening lasts. The minute is counted in whole seconds, so
memory has a bound.
"""

from collections import deque
from typing import Literal, NamedTuple

State = Literal["closed", "open", "half_open"]

WINDOW_S = 60
"""How far back the second trigger looks, in whole seconds."""
WINDOW_LEAST = 5
"""How many outcomes it wants to see."""
TRIAL_S = 1.0
"""When to ask again while all trials are under way."""
SPREAD = 0.2
"""How much shorter or longer an opening is, by chance."""


class BreakerSnapshot(NamedTuple):
    """What there is to tell of a breaker."""

    state: State
    failures: int
    """In a row, while closed."""
    successes: int
    """Of trials, while half open."""
    opened: int
    """How many times in a row it has opened with no success between."""
    retry_after: float
    """Seconds until calls may pass; 0: now."""


class Breaker:
    """The breaker of one server. Times are seconds of one monotonic clock; chance is 0 to 1."""

    __slots__ = (
        "_failed", "_failures", "_generation", "_half_open_at", "_opened", "_per_second", "_second", "_seen",
        "_state", "_successes", "_trials", "_until", "failure_threshold", "half_open_requests", "longest_s",
        "success_threshold", "timeout_s",
    )  # fmt: skip

    def __init__(
        self,
        *,
        failure_threshold: int = 5,
        timeout_s: float = 60.0,
        success_threshold: int = 2,
        half_open_requests: int = 2,
        longest_s: float = 300.0,
    ) -> None:
        """Begin closed. All five may be set at any time and count from the next outcome on."""
        self.failure_threshold = failure_threshold
        self.timeout_s = timeout_s
        self.success_threshold = success_threshold
        self.half_open_requests = half_open_requests
        self.longest_s = longest_s
        self._generation = 0
        self._state: State = "closed"
        self._until = 0.0
        self._opened = 0
        self._failures = 0
        self._successes = 0
        self._trials = 0
        self._forget()

    def state(self, now: float) -> State:
        """Return the state; open becomes half open by time alone."""
        if self._state == "open" and now >= self._until:
            self._enter("half_open")
            self._half_open_at = now
        return self._state

    def refusal(self, now: float) -> float | None:
        """Return None if a call may begin now, or the seconds after which to ask again, above 0."""
        if self._state == "closed":
            return None
        state = self.state(now)
        if state == "open":
            return self._until - now
        if self._trials < self.half_open_requests:
            return None
        if now - self._half_open_at >= self.timeout_s:  # whoever tried does not report: others may
            self._trials = 0
            self._half_open_at = now
            return None
        return TRIAL_S

    def begin(self, now: float) -> int:
        """Begin a call; returns what to report its end with. Raises `RuntimeError` if it is refused."""
        if self._state != "closed":
            wait = self.refusal(now)
            if wait is not None:
                raise RuntimeError(
                    f"the breaker is {self._state}: `refusal`, asked before, says {wait:.3f} s"
                )
            self._trials += 1
        return self._generation

    def succeeded(self, generation: int, now: float) -> None:
        """Report a call that succeeded."""
        if generation != self._generation:
            return
        if self._state == "half_open":
            self._trials = max(0, self._trials - 1)
            self._successes += 1
            if self._successes >= self.success_threshold:
                self._opened = 0
                self._enter("closed")
        else:
            self._failures = 0
            self._count(now, 0)

    def failed(self, generation: int, now: float, chance: float) -> None:
        """Report a call that the server failed: 5xx, overload, no connection, no answer, a broken one."""
        if generation != self._generation:
            return
        if self._state == "half_open":
            self._open(now, chance)
            return
        self._failures += 1
        self._count(now, 1)
        many = self._seen >= WINDOW_LEAST and self._failed * 2 >= self._seen
        if many or self._failures >= self.failure_threshold:
            self._open(now, chance)

    def abandoned(self, generation: int) -> None:
        """Report a call that tells nothing of the server: cancelled, never sent, 4xx, 429."""
        if generation == self._generation and self._state == "half_open":
            self._trials = max(0, self._trials - 1)

    def reset(self) -> None:
        """Close, and forget what was: somebody knows better."""
        self._opened = 0
        self._enter("closed")

    def snapshot(self, now: float) -> BreakerSnapshot:
        """Return what there is to tell."""
        state = self.state(now)
        wait = self._until - now if state == "open" else 0.0
        return BreakerSnapshot(state, self._failures, self._successes, self._opened, wait)

    def restore(self, opened: int, wait: float, now: float) -> None:
        """Be as in an earlier life: *opened* times in a row, the last for *wait* seconds from now.

        Times out of range are cut to what an opening may last; 0 times is closed.
        """
        self.reset()
        if opened > 0:
            self._opened = opened
            self._enter("open")
            self._until = now + min(max(wait, 0.0), self.longest_s * (1 + SPREAD))

    def _open(self, now: float, chance: float) -> None:
        lasts = min(self.timeout_s * 2.0 ** min(self._opened, 30), max(self.longest_s, self.timeout_s))
        self._opened += 1
        self._enter("open")
        self._until = now + lasts * (1 - SPREAD + 2 * SPREAD * chance)

    def _enter(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._forget()

    def _forget(self) -> None:
        self._failures = self._successes = self._trials = 0
        self._half_open_at = 0.0
        self._per_second: deque[list[int]] = deque()
        self._seen = self._failed = 0
        self._second = 0

    def _count(self, now: float, failed: int) -> None:
        """Count an outcome of this second, and forget those of more than a minute ago."""
        second = max(int(now), self._second)
        self._second = second
        if self._per_second and self._per_second[-1][0] == second:
            self._per_second[-1][1] += 1
            self._per_second[-1][2] += failed
        else:
            self._per_second.append([second, 1, failed])
        self._seen += 1
        self._failed += failed
        while self._per_second[0][0] <= second - WINDOW_S:
            _, seen, bad = self._per_second.popleft()
            self._seen -= seen
            self._failed -= bad
