"""The limiter of one key: what is configured, what is learned, pauses, and what survives."""

import heapq
import math
from random import Random
from typing import Any

import pytest
from dragomand.policy.rate_limiter import NOW, Charge, Estimate, RateLimiter, Window
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

WALL = 1_764_000_000.0
ONE = Estimate()


def configured(**limits: float) -> RateLimiter:
    limiter = RateLimiter()
    for name, amount in limits.items():
        limiter.configure(name, "requests", amount, 3600 if name == "hour" else 60, 0.0)
    return limiter


def learned(now: float = 0.0, remaining: float | None = None, **limits: float) -> RateLimiter:
    limiter = RateLimiter()
    windows = {name.replace("_", "-"): Window(limit, remaining) for name, limit in limits.items()}
    limiter.learn(0, windows, now, WALL)
    return limiter


def levels(limiter: RateLimiter, now: float) -> dict[str, float]:
    return {bucket.name: bucket.level for bucket in limiter.state(now)}


def test_04_17_the_61st_query_of_a_minute_waits_and_the_minute_is_named() -> None:
    limiter = configured(minute=60, hour=1000)
    for _ in range(60):
        assert limiter.when(ONE, 0.0) == NOW
        limiter.take(ONE, 0.0)
    at, binds = limiter.when(ONE, 0.0)
    assert (at, binds) == (pytest.approx(1.0), "minute")
    assert limiter.when(ONE, 1.0) == NOW


def test_04_17_the_1001st_query_of_an_hour_waits_and_the_hour_is_named() -> None:
    limiter, now = configured(minute=60, hour=1000), 0.0
    granted = 0
    while True:
        at, binds = limiter.when(ONE, now)
        if binds == "hour":
            break
        now = max(now, at)
        limiter.take(ONE, now)
        granted += 1
    assert granted >= 1000
    assert at == pytest.approx(now + 3.6, abs=3.6)
    assert granted <= 1000 + now / 3.6 + 1e-6


def test_nothing_is_limited_before_something_is_known() -> None:
    limiter = RateLimiter()
    for _ in range(1000):
        assert limiter.when(Estimate(1e9, 1e9), 0.0) == NOW
        limiter.finish(limiter.take(Estimate(1e9, 1e9), 0.0), 0.0, succeeded=True)
    assert limiter.state(0.0) == []


def test_a_limit_that_is_taken_away_and_one_that_changes() -> None:
    limiter = configured(minute=1)
    limiter.take(ONE, 0.0)
    assert limiter.when(ONE, 0.0).binds == "minute"
    limiter.configure("minute", "requests", 600, 60, 0.0)
    assert limiter.when(ONE, 0.0).at == pytest.approx(0.1), "ten a second, and nothing for the change"
    limiter.configure("minute", "requests", None, 60, 0.0)
    assert limiter.when(ONE, 0.0) == NOW


# -- learning


def test_the_first_headers_set_rate_and_burst() -> None:
    limiter = learned(requests=60, input_tokens=60_000, output_tokens=6_000)
    assert [(bucket.name, bucket.kind, bucket.capacity, bucket.rate) for bucket in limiter.state(0.0)] == [
        ("requests", "requests", 10, 1), ("input-tokens", "input", 10_000, 1000),
        ("output-tokens", "output", 1000, 100),
    ]  # fmt: skip
    assert limiter.when(Estimate(10_000, 0), 0.0) == NOW
    limiter.take(Estimate(10_000, 0), 0.0)
    assert limiter.when(Estimate(2000, 0), 0.0) == (2.0, "input-tokens")


def test_what_is_left_at_the_provider_lowers_the_level_and_never_raises_it() -> None:
    limiter = learned(requests=60)
    limiter.learn(0, {"requests": Window(60, 3)}, 0.0, WALL)
    assert levels(limiter, 0.0) == {"requests": 3}
    limiter.learn(0, {"requests": Window(60, 60)}, 0.0, WALL)
    assert levels(limiter, 0.0) == {"requests": 3}


def test_what_was_sent_later_is_not_in_what_is_left() -> None:
    limiter = learned(requests=600, input_tokens=600_000)
    first, second = limiter.take(Estimate(1000), 0.0), limiter.take(Estimate(5000), 0.0)
    windows = {"requests": Window(600, 50), "input-tokens": Window(600_000, 20_000)}
    limiter.learn(first.order, windows, 0.0, WALL)
    assert levels(limiter, 0.0) == {"requests": 49, "input-tokens": 15_000}
    limiter.settle(first, 0.0, input_tokens=10)
    assert levels(limiter, 0.0)["input-tokens"] == 15_000, "what it really took was in it"
    limiter.settle(second, 0.0, input_tokens=1000)
    assert levels(limiter, 0.0)["input-tokens"] == 19_000


def test_an_older_answer_is_ignored() -> None:
    limiter = learned(requests=600)
    first, second = limiter.take(ONE, 0.0), limiter.take(ONE, 0.0)
    limiter.learn(second.order, {"requests": Window(600, 40)}, 0.0, WALL)
    limiter.learn(first.order, {"requests": Window(6, 1)}, 0.0, WALL)
    assert levels(limiter, 0.0) == {"requests": 40}
    assert limiter.stale == 1


def test_whoever_counts_sendings_otherwise_may_say_so() -> None:
    limiter = learned(requests=600)
    orders = [limiter.take(ONE, 0.0, order).order for order in (5_000, 7_000, 7_000, 0)]
    assert orders == [5_000, 7_000, 7_001, 7_002], "later is always more"
    limiter.learn(7_000, {"requests": Window(600, 40)}, 0.0, WALL)
    assert levels(limiter, 0.0) == {"requests": 38}, "two were sent later"
    limiter.learn(5_000, {"requests": Window(600, 1)}, 0.0, WALL)
    assert limiter.stale == 1


def test_a_changed_limit_is_followed() -> None:
    limiter = learned(requests=60)
    limiter.learn(1, {"requests": Window(120)}, 0.0, WALL)
    (bucket,) = limiter.state(0.0)
    assert (bucket.level, bucket.capacity, bucket.rate) == (10, 20, 2)


@pytest.mark.parametrize(
    "window",
    [
        Window(0), Window(-5), Window(1e12), Window(math.nan), Window(math.inf), Window(60, -1),
        Window(60, 61), Window(60, math.nan),
    ],
)  # fmt: skip
def test_what_cannot_be_is_ignored_and_counted(window: Window) -> None:
    limiter = RateLimiter()
    limiter.learn(1, {"requests": window, "input-tokens": Window(60)}, 0.0, WALL)
    assert list(levels(limiter, 0.0)) == ["input-tokens"]
    assert limiter.absurd == 1


@pytest.mark.parametrize("reset_at", [WALL + 1e7, 0.0, math.nan])
def test_a_clock_that_is_wrong_says_nothing_of_the_limit(reset_at: float) -> None:
    limiter = RateLimiter()
    limiter.learn(1, {"requests": Window(60, 5, reset_at)}, 0.0, WALL)
    limiter.learn(2, {"requests": Window(60, 5, WALL + 30)}, 0.0, WALL)
    assert (levels(limiter, 0.0), limiter.absurd) == ({"requests": 5}, 1)


def test_unknown_names_and_windows_without_a_limit_say_nothing() -> None:
    limiter = RateLimiter()
    limiter.learn(1, {"tokens": Window(60, 1), "requests": Window(None, 1)}, 0.0, WALL)
    assert (limiter.state(0.0), limiter.absurd) == ([], 0)


def test_the_least_limits_let_one_call_pass() -> None:
    limiter = learned(requests=1)
    assert limiter.when(ONE, 0.0) == NOW


# -- settling


def test_output_counts_as_it_arrives_and_gives_back_at_the_end() -> None:
    limiter = learned(output_tokens=6000)
    charge = limiter.take(Estimate(0, 500), 0.0)
    assert levels(limiter, 0.0)["output-tokens"] == 500
    limiter.settle(charge, 0.0, output_tokens=100)
    assert levels(limiter, 0.0)["output-tokens"] == 500, "there may be more to come"
    limiter.settle(charge, 0.0, output_tokens=700)
    limiter.settle(charge, 0.0)
    assert levels(limiter, 0.0)["output-tokens"] == 300
    other = limiter.take(Estimate(0, 300), 0.0)
    limiter.finish(other, 0.0, succeeded=True, output_tokens=50)
    limiter.finish(other, 0.0, succeeded=True, output_tokens=0)
    limiter.settle(other, 0.0, input_tokens=5, output_tokens=5000)
    assert levels(limiter, 0.0)["output-tokens"] == 250, "over is over"


def test_what_was_never_sent_gives_everything_back() -> None:
    limiter = learned(requests=60, input_tokens=60_000, output_tokens=6000)
    before = levels(limiter, 0.0)
    limiter.finish(limiter.take(Estimate(5000, 500), 0.0), 0.0, succeeded=None, sent=False)
    assert levels(limiter, 0.0) == before


def test_a_call_that_is_older_than_a_limit_only_takes_from_it() -> None:
    limiter = RateLimiter()
    early = limiter.take(Estimate(1000, 100), 0.0)
    limiter.learn(early.order, {"input-tokens": Window(60_000), "output-tokens": Window(6000)}, 0.0, WALL)
    limiter.settle(early, 0.0, input_tokens=400, output_tokens=150)
    assert levels(limiter, 0.0) == {"input-tokens": 10_000, "output-tokens": 950}


# -- pauses


def test_nothing_is_sent_before_retry_after_and_then_one_to_try() -> None:
    limiter = RateLimiter()
    assert limiter.pause(20.0, 1.0, 100.0)
    assert limiter.when(ONE, 100.0) == (122.0, "retryAfter")
    assert limiter.when(ONE, 121.9).binds == "retryAfter"
    assert limiter.when(ONE, 122.0) == NOW
    probe = limiter.take(ONE, 122.0)
    assert limiter.when(ONE, 130.0) == (math.inf, "trial")
    limiter.finish(probe, 131.0, succeeded=True)
    assert limiter.trials == 2


def test_each_success_doubles_what_may_try_until_anything_may() -> None:
    limiter = RateLimiter()
    limiter.pause(1.0, 0.0, 0.0)
    seen = []
    while limiter.trials is not None:
        seen.append(limiter.trials)
        limiter.finish(limiter.take(ONE, 2.0), 2.0, succeeded=True)
    assert seen == [1, 2, 4, 8, 16]
    assert limiter.when(ONE, 2.0) == NOW


def test_a_long_answer_that_begins_well_keeps_nobody_waiting() -> None:
    limiter = RateLimiter()
    limiter.pause(1.0, 0.0, 0.0)
    probe = limiter.take(ONE, 2.0)
    limiter.accepted(probe)
    limiter.accepted(probe)
    assert (limiter.trials, limiter.when(ONE, 2.0)) == (2, NOW)
    limiter.take(ONE, 2.0)
    limiter.take(ONE, 2.0)
    assert limiter.when(ONE, 2.0).binds == "trial"
    limiter.finish(probe, 300.0, succeeded=True)
    assert limiter.trials == 2, "it has counted already"


@pytest.mark.parametrize("succeeded", [False, None])
def test_a_trial_that_shows_nothing_lets_another_try(succeeded: bool | None) -> None:
    limiter = RateLimiter()
    limiter.pause(1.0, 0.0, 0.0)
    limiter.finish(limiter.take(ONE, 2.0), 2.0, succeeded=succeeded)
    assert (limiter.trials, limiter.when(ONE, 2.0)) == (1, NOW)


def test_a_success_of_the_time_before_the_pause_proves_nothing() -> None:
    limiter = RateLimiter()
    early = limiter.take(ONE, 0.0)
    limiter.pause(1.0, 0.0, 0.0)
    limiter.finish(early, 2.0, succeeded=True)
    assert limiter.trials == 1
    probe = limiter.take(ONE, 2.0)
    limiter.pause(5.0, 0.0, 2.0)
    limiter.finish(probe, 3.0, succeeded=True)
    assert limiter.trials == 1
    assert limiter.when(ONE, 6.9).binds == "retryAfter"


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    limiter = RateLimiter()
    limiter.pause(60.0, 0.0, 0.0)
    limiter.pause(1.0, 0.0, 0.0)
    assert limiter.when(ONE, 0.0).at == 60.0


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 86_401.0])
def test_a_pause_that_cannot_be_is_not_believed(seconds: float) -> None:
    limiter = RateLimiter()
    assert not limiter.pause(seconds, 0.0, 0.0)
    assert (limiter.when(ONE, 0.0), limiter.absurd) == (NOW, 1)


def test_what_binds_longest_is_named() -> None:
    limiter = configured(minute=1)
    limiter.take(ONE, 0.0)
    limiter.pause(5.0, 0.0, 0.0)
    assert limiter.when(ONE, 0.0) == (60.0, "minute")
    limiter.pause(90.0, 0.0, 0.0)
    assert limiter.when(ONE, 0.0) == (90.0, "retryAfter")


# -- a restart


def test_a_kill_loosens_nothing_and_costs_a_second() -> None:
    limiter = configured(minute=60)
    limiter.learn(0, {"input-tokens": Window(60_000)}, 0.0, WALL)
    for _ in range(30):
        if not limiter.covers(ONE, 0.0):
            kept = limiter.lease(ONE, 0.0, WALL)
        limiter.take(ONE, 0.0)
    again = configured(minute=60)
    again.restore(kept, 7000.0, WALL)
    assert levels(again, 7000.0) == {"minute": 30, "input-tokens": 9000}
    again = configured(minute=60)
    again.restore(kept, 7000.0, WALL + 10)
    assert levels(again, 7000.0)["minute"] == 40
    again = configured(minute=20)
    again.restore(kept, 7000.0, WALL)
    assert levels(again, 7000.0)["minute"] == 20, "settings are today's"
    again = RateLimiter()
    again.restore(kept, 7000.0, WALL)
    assert list(levels(again, 7000.0)) == ["input-tokens"], "and what is no longer configured does not limit"


def test_what_was_written_of_another_limit_covers_nothing() -> None:
    limiter = configured(minute=60)
    limiter.lease(ONE, 0.0, WALL)
    limiter.configure("minute", "requests", 120, 60, 0.0)
    assert not limiter.covers(ONE, 0.0)
    limiter.lease(ONE, 0.0, WALL)
    assert limiter.covers(ONE, 0.0)


def test_a_clean_end_forfeits_nothing_and_a_pause_goes_on() -> None:
    limiter = configured(minute=60)
    limiter.take(ONE, 0.0)
    limiter.pause(100.0, 0.0, 0.0)
    kept = limiter.snapshot(0.0, WALL)
    again = configured(minute=60)
    again.restore(kept, 7000.0, WALL + 40)
    assert levels(again, 7000.0) == {"minute": 60}
    assert again.when(ONE, 7000.0) == (7060.0, "retryAfter")
    late = configured(minute=60)
    late.restore(kept, 7000.0, WALL + 100)
    assert late.when(ONE, 7000.0) == NOW
    assert limiter.lease(ONE, 200.0, WALL + 200).not_before is None


class Crashes(RuleBasedStateMachine):
    """Crashes at any time, and counts over all lives what a provider with the same limits would see."""

    @initialize(per_minute=st.sampled_from([6, 60, 600]))
    def begin(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self.now, self.wall = 0.0, WALL
        self.limiter = RateLimiter()
        self.limiter.configure("minute", "requests", per_minute, 60, 0.0)
        self.kept = self.limiter.lease(ONE, self.now, self.wall)
        self.sent: list[float] = []
        self.open: list[Charge] = []

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    @rule(times=st.integers(1, 30))
    def send(self, times: int) -> None:
        for _ in range(times):
            if self.limiter.when(ONE, self.now) != NOW:
                return
            if not self.limiter.covers(ONE, self.now):
                self.kept = self.limiter.lease(ONE, self.now, self.wall)
            self.open.append(self.limiter.take(ONE, self.now))
            self.sent.append(self.wall)

    @precondition(lambda self: self.open)
    @rule(succeeded=st.booleans(), pause=st.booleans())
    def end(self, succeeded: bool, pause: bool) -> None:
        if pause:
            self.limiter.pause(2.0, 0.5, self.now)
        self.limiter.finish(self.open.pop(), self.now, succeeded=succeeded)

    @rule(seconds=st.sampled_from([0.0, 0.5, 30.0]))
    def crash(self, seconds: float) -> None:
        self.wall += seconds
        self.now = 5000.0
        self.limiter = RateLimiter()
        self.limiter.configure("minute", "requests", self.per_minute, 60, self.now)
        self.limiter.restore(self.kept, self.now, self.wall)
        self.open = []

    @invariant()
    def over_all_lives_the_limit_holds(self) -> None:
        for first, at in enumerate(getattr(self, "sent", ())):
            in_window = len(self.sent) - first
            assert in_window <= self.per_minute + (self.sent[-1] - at) * self.per_minute / 60 + 1e-6


def test_crashes_at_any_time(play: Any) -> None:
    play(Crashes)


def test_crashes_without_a_lease_are_caught(catches: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RateLimiter, "covers", lambda *_: True)
    catches(Crashes)


# -- against a provider that enforces limits of its own, in virtual time


class Provider:
    """Buckets of a minute's worth, and what it refused."""

    def __init__(self, requests: float, tokens: float) -> None:
        self.limits = (requests, tokens)
        self.levels = [requests, tokens]
        self.at = 0.0
        self.accepted = [0.0, 0.0]
        self.refused = 0

    def ask(self, now: float, tokens: float) -> bool:
        for which, limit in enumerate(self.limits):
            self.levels[which] = min(limit, self.levels[which] + (now - self.at) * limit / 60)
        self.at = now
        if self.levels[0] < 1 or self.levels[1] < tokens:
            self.refused += 1
            return False
        for which, amount in enumerate((1, tokens)):
            self.levels[which] -= amount
            self.accepted[which] += amount
        return True

    def windows(self) -> dict[str, Window]:
        names = ("requests", "input-tokens")
        return {
            name: Window(limit, math.floor(level))
            for name, limit, level in zip(names, self.limits, self.levels, strict=True)
        }


@settings(max_examples=15, deadline=None)
@given(
    requests=st.sampled_from([50, 1000]),
    tokens=st.sampled_from([30_000, 400_000]),
    seed=st.integers(0, 2**32),
)
def test_a_providers_limit_is_used_and_not_crossed(requests: int, tokens: int, seed: int) -> None:
    """Ten minutes of more load than the limits, sixteen calls at once, estimates that are half off."""
    random, provider, limiter = Random(seed), Provider(requests, tokens), RateLimiter()
    under_way: list[tuple[float, int, Charge, float, dict[str, Window]]] = []
    now = 0.0
    while now < 600:
        estimate = Estimate(random.randint(100, 3000), 100)
        at, _ = limiter.when(estimate, now)
        if at <= now and len(under_way) < 16:
            charge, real = limiter.take(estimate, now), estimate.input_tokens * random.uniform(0.5, 1.1)
            assert provider.ask(now, real)
            entry = (now + random.uniform(0.2, 1.0), charge.order, charge, real, provider.windows())
            heapq.heappush(under_way, entry)
        elif under_way and (under_way[0][0] <= at or len(under_way) == 16):
            now, order, charge, real, windows = heapq.heappop(under_way)
            limiter.learn(order, windows, now, WALL + now)
            limiter.finish(charge, now, succeeded=True, input_tokens=real, output_tokens=50)
        else:
            now = at
    used = max(provider.accepted[0] / requests, provider.accepted[1] / tokens) / 10
    assert used >= 0.9
    assert provider.refused == 0
