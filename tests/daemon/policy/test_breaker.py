"""The breaker, as the plans' tests and against a model that remembers everything."""

import itertools
from typing import Any

import pytest
from dragomand.policy.breaker import SPREAD, Breaker
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

MIDDLE = 0.5
"""The chance with which an opening is as long as it says."""


def fail(breaker: Breaker, times: int, now: float) -> None:
    for _ in range(times):
        breaker.failed(breaker.begin(now), now, MIDDLE)


def opened(now: float = 0.0, **settings: Any) -> Breaker:
    breaker = Breaker(**settings)
    fail(breaker, breaker.failure_threshold, now)
    assert breaker.state(now) == "open"
    return breaker


def test_04_18_five_failures_in_a_row_open_it_and_requests_are_rejected() -> None:
    breaker = Breaker()
    fail(breaker, 4, 0.0)
    assert breaker.refusal(0.0) is None
    fail(breaker, 1, 0.0)
    assert breaker.state(0.0) == "open"
    assert breaker.refusal(0.0) == 60.0
    assert breaker.refusal(59.0) == 1.0


def test_ts_23_five_failures_of_the_api_and_the_refusal_is_immediate() -> None:
    breaker = opened()
    for now in (0.0, 0.001, 30.0, 59.999):
        assert breaker.refusal(now) == pytest.approx(60.0 - now), "no wait, no attempt: the answer is there"
        with pytest.raises(RuntimeError, match="the breaker is open"):
            breaker.begin(now)


def test_04_19_after_the_timeout_it_is_half_open_and_successes_close_it() -> None:
    breaker = opened()
    assert breaker.state(60.0) == "half_open"
    first, second = breaker.begin(60.0), breaker.begin(60.0)
    assert breaker.refusal(60.0) == 1.0, "two at a time"
    breaker.succeeded(first, 61.0)
    assert breaker.state(61.0) == "half_open"
    breaker.succeeded(second, 62.0)
    assert breaker.state(62.0) == "closed"
    assert breaker.refusal(62.0) is None


def test_00_89_a_server_that_stays_away_is_asked_less_and_less_and_found_when_it_is_back() -> None:
    breaker, now, attempts = opened(), 0.0, 5
    lengths = []
    for _ in range(6):
        wait = breaker.refusal(now)
        assert wait is not None
        lengths.append(wait)
        now += wait
        fail(breaker, 1, now)
        attempts += 1
    assert lengths == [60.0, 120.0, 240.0, 300.0, 300.0, 300.0]
    now += 300.0
    for _ in range(2):
        breaker.succeeded(breaker.begin(now), now)
    assert breaker.state(now) == "closed"
    assert attempts == 11
    assert opened(now).refusal(now) == 60.0, "and the next time it begins anew"


def test_half_of_a_minutes_calls_open_it_too() -> None:
    breaker = Breaker()
    for failed in (False, True, False, True, False, True):
        generation = breaker.begin(1.0)
        assert breaker.state(1.0) == "closed"
        if failed:
            breaker.failed(generation, 1.0, MIDDLE)
        else:
            breaker.succeeded(generation, 1.0)
    assert breaker.state(1.0) == "open", "three of six"


def test_failures_that_are_more_than_a_minute_old_do_not_count() -> None:
    breaker = Breaker()
    fail(breaker, 4, 0.0)
    breaker.succeeded(breaker.begin(0.0), 0.0)
    fail(breaker, 1, 60.0)
    assert breaker.state(60.0) == "closed", "one of one, not five of six"
    breaker = Breaker()
    fail(breaker, 4, 0.0)
    breaker.succeeded(breaker.begin(0.0), 0.0)
    fail(breaker, 1, 59.0)
    assert breaker.state(59.0) == "open"
    slowly = Breaker()
    for now in range(0, 600, 30):
        fail(slowly, 1, float(now))
        slowly.succeeded(slowly.begin(now), float(now))
    assert slowly.state(600.0) == "closed", "never five in a minute"


def test_a_success_of_the_time_before_closes_nothing() -> None:
    breaker = Breaker()
    early = [breaker.begin(0.0) for _ in range(3)]
    fail(breaker, 5, 0.0)
    assert breaker.state(60.0) == "half_open"
    for generation in early:
        breaker.succeeded(generation, 60.0)
    assert breaker.state(60.0) == "half_open"


def test_stragglers_of_the_bad_time_open_nothing() -> None:
    breaker = Breaker()
    early = [breaker.begin(0.0) for _ in range(9)]
    fail(breaker, 5, 0.0)
    for generation in early:
        breaker.failed(generation, 1.0, MIDDLE)
    assert breaker.refusal(1.0) == 59.0, "and do not make it longer"
    for _ in range(2):
        breaker.succeeded(breaker.begin(60.0), 60.0)
    for generation in early:
        breaker.failed(generation, 61.0, MIDDLE)
    assert breaker.state(61.0) == "closed"


def test_what_tells_nothing_of_the_server_does_not_count() -> None:
    breaker = Breaker()
    for _ in range(50):
        breaker.abandoned(breaker.begin(0.0))
    assert breaker.snapshot(0.0).failures == 0
    fail(breaker, 4, 0.0)
    breaker.abandoned(breaker.begin(0.0))
    fail(breaker, 1, 0.0)
    assert breaker.state(0.0) == "open", "nor does it break a row"


def test_a_trial_that_tells_nothing_makes_room_for_another() -> None:
    breaker = opened()
    generations = [breaker.begin(60.0), breaker.begin(60.0)]
    breaker.abandoned(generations[0])
    assert breaker.refusal(60.0) is None


def test_trials_that_never_end_block_no_longer_than_one_opening() -> None:
    breaker = opened()
    lost = [breaker.begin(60.0), breaker.begin(60.0)]
    assert breaker.refusal(119.0) == 1.0
    assert breaker.refusal(120.0) is None
    breaker.begin(120.0)
    breaker.abandoned(lost[0])
    breaker.abandoned(lost[1])
    assert breaker.refusal(120.0) is None, "their places were given away, and are not given away twice"


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 48.0), (1.0, 72.0), (0.25, 54.0)])
def test_not_everybody_comes_back_at_once(chance: float, seconds: float) -> None:
    breaker = Breaker(failure_threshold=1)
    breaker.failed(breaker.begin(0.0), 0.0, chance)
    assert breaker.refusal(0.0) == pytest.approx(seconds)


def test_somebody_who_knows_better_closes_it() -> None:
    breaker = opened()
    straggler = breaker.begin(60.0)
    breaker.reset()
    assert breaker.snapshot(60.0) == ("closed", 0, 0, 0, 0.0)
    breaker.failed(straggler, 60.0, MIDDLE)
    assert breaker.snapshot(60.0).failures == 0


def test_settings_hold_from_the_next_outcome_on() -> None:
    breaker = Breaker()
    fail(breaker, 2, 0.0)
    breaker.failure_threshold, breaker.timeout_s = 3, 5.0
    fail(breaker, 1, 0.0)
    assert breaker.refusal(0.0) == 5.0
    breaker.success_threshold = 1
    breaker.succeeded(breaker.begin(5.0), 5.0)
    assert breaker.state(5.0) == "closed"


def test_a_restart_does_not_close_it() -> None:
    breaker = opened()
    state, _, _, times, wait = breaker.snapshot(20.0)
    assert (state, wait) == ("open", 40.0)
    again = Breaker()
    again.restore(times, wait, 7000.0)
    assert again.refusal(7000.0) == 40.0
    fail(again, 1, 7040.0)
    assert again.refusal(7040.0) == 120.0, "the second time in a row"
    again.restore(0, 99.0, 7040.0)
    assert again.state(7040.0) == "closed"
    again.restore(1, 1e9, 0.0)
    assert again.refusal(0.0) == 360.0


class Against(RuleBasedStateMachine):
    """Remembers every outcome, and looks at all of them each time."""

    subject: type[Breaker] = Breaker

    @initialize(
        threshold=st.integers(1, 6), successes=st.integers(1, 3), trials=st.integers(1, 3),
        timeout=st.sampled_from([10.0, 60.0, 400.0]),
    )  # fmt: skip
    def begin_with(self, threshold: int, successes: int, trials: int, timeout: float) -> None:
        self.breaker = self.subject(
            failure_threshold=threshold, success_threshold=successes, half_open_requests=trials,
            timeout_s=timeout,
        )  # fmt: skip
        self.now = 5.0
        self.era = 0
        self.state = "closed"
        self.outcomes: list[tuple[int, bool]] = []
        self.until = 0.0
        self.in_a_row = 0
        self.good = self.trying = 0
        self.tried_since = 0.0
        self.calls: dict[int, tuple[int, int]] = {}
        self.numbers = itertools.count()

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 9.0, 60.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.state == "open" and self.now >= self.until:
            self._enter("half_open")

    @rule()
    def begin(self) -> None:
        wait = self.breaker.refusal(self.now)
        if self.state == "half_open" and self.trying >= self.breaker.half_open_requests:
            if self.now - self.tried_since >= self.breaker.timeout_s:
                self.trying, self.tried_since = 0, self.now
            else:
                assert wait == 1.0
                return
        if self.state == "open":
            assert wait == pytest.approx(self.until - self.now)
            assert wait > 0
            return
        assert wait is None
        self.calls[next(self.numbers)] = (self.breaker.begin(self.now), self.era)
        self.trying += self.state == "half_open"

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), end=st.sampled_from("sffa"), chance=st.floats(0, 1))
    def end(self, data: Any, end: str, chance: float) -> None:
        generation, era = self.calls.pop(data.draw(st.sampled_from(sorted(self.calls))))
        if end == "a":
            self.breaker.abandoned(generation)
        elif end == "s":
            self.breaker.succeeded(generation, self.now)
        else:
            self.breaker.failed(generation, self.now, chance)
        if era != self.era:
            return
        if self.state == "half_open":
            self.trying = max(0, self.trying - 1)
            if end == "s":
                self.good += 1
                if self.good >= self.breaker.success_threshold:
                    self.in_a_row = 0
                    self._enter("closed")
            elif end == "f":
                self._open(chance)
        elif end != "a":
            self.outcomes.append((int(self.now), end == "f"))
            if end == "f" and self._is_too_much():
                self._open(chance)

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.in_a_row = 0
        self._enter("closed")

    @invariant()
    def same_state(self) -> None:
        if hasattr(self, "breaker"):
            assert self.breaker.state(self.now) == self.state
            told = self.breaker.snapshot(self.now)
            assert (told.failures, told.successes) == (len(self._row()), self.good)

    def _row(self) -> list[tuple[int, bool]]:
        return list(itertools.takewhile(lambda outcome: outcome[1], reversed(self.outcomes)))

    def _is_too_much(self) -> bool:
        minute = [failed for second, failed in self.outcomes if second > int(self.now) - 60]
        many = len(minute) >= 5 and sum(minute) * 2 >= len(minute)
        return many or len(self._row()) >= self.breaker.failure_threshold

    def _open(self, chance: float) -> None:
        longest = max(300.0, self.breaker.timeout_s)
        lasts = min(longest, self.breaker.timeout_s * 2**self.in_a_row)
        self.in_a_row += 1
        self._enter("open")
        self.until = self.now + lasts * (1 - SPREAD + 2 * SPREAD * chance)

    def _enter(self, state: str) -> None:
        self.state = state
        self.era += 1
        self.outcomes = []
        self.good = self.trying = 0
        self.tried_since = self.now


def test_against_the_model(play: Any) -> None:
    play(Against)


class _Credulous(Breaker):
    """Counts whatever comes back."""

    __slots__ = ()

    def succeeded(self, generation: int, now: float) -> None:
        super().succeeded(self._generation, now)

    def failed(self, generation: int, now: float, chance: float) -> None:
        super().failed(self._generation, now, chance)


class _Unforgiving(Breaker):
    """Does not see successes in a row of failures."""

    __slots__ = ()

    def succeeded(self, generation: int, now: float) -> None:
        failures = self._failures
        super().succeeded(generation, now)
        if self._state == "closed":
            self._failures = failures


class _Hasty(Breaker):
    """Never opens for longer than the first time."""

    __slots__ = ()

    def _open(self, now: float, chance: float) -> None:
        self._opened = 0
        super()._open(now, chance)


@pytest.mark.parametrize("broken", [_Credulous, _Unforgiving, _Hasty])
def test_the_model_catches(broken: type[Breaker], catches: Any) -> None:
    catches(type("Broken", (Against,), {"subject": broken}))
