"""Quotas: used up until they reset, found out about with one call, and foreseen."""

import math
from typing import Any

import pytest
from dragomand.policy.parking import MOST_WINDOWS, UNKNOWN_S, Forecast, Parked, Parking
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

AT = 1_764_000_000.0
HOURS = 3600.0


def test_a_used_up_window_parks_until_it_resets_and_then_one_tries() -> None:
    parking = Parking()
    parked = parking.reject("five_hour", AT, 0.0, AT + 2 * HOURS)
    assert parked == parking.when(AT) == parking.when(AT + 7199) == Parked(AT + 7200, "five_hour")
    assert parking.when(AT + 7200) is None
    number = parking.begin(AT + 7200)
    assert number
    assert parking.when(AT + 7201) == Parked(math.inf, "five_hour"), "one is enough to find out"
    parking.ended(number, succeeded=True)
    assert parking.when(AT + 7202) is None
    assert parking.begin(AT + 7202) == 0


def test_who_tries_in_vain_costs_one_call_each_time() -> None:
    parking, now, calls = Parking(), AT, 0
    parking.reject("five_hour", now, 0.0, now + HOURS)
    for _ in range(5):
        parked = parking.when(now)
        assert parked is not None
        now = parked.until
        number = parking.begin(now)
        calls += 1
        assert parking.when(now) == Parked(math.inf, "five_hour")
        parking.reject("five_hour", now, 0.0, now + HOURS)
        parking.ended(number, succeeded=False)
        assert parking.when(now) == Parked(now + HOURS, "five_hour")
    assert calls == 5


def test_a_call_that_tries_and_tells_nothing_lets_another_try() -> None:
    parking = Parking()
    parking.reject("five_hour", AT, 0.0, AT + 1)
    parking.ended(parking.begin(AT + 1), succeeded=False)
    assert parking.when(AT + 1) is None
    assert parking.begin(AT + 1) == 2


def test_a_success_of_the_time_before_opens_nothing() -> None:
    parking = Parking()
    early = parking.begin(AT)
    parking.reject("five_hour", AT, 0.0, AT + HOURS)
    parking.ended(early, succeeded=True)
    assert parking.when(AT) == Parked(AT + HOURS, "five_hour")


@pytest.mark.parametrize(
    ("chance", "wait", "extra"), [(0.0, HOURS, 0.0), (1.0, HOURS, 60.0), (0.5, 100.0, 5.0), (1.0, 2.0, 1.0)]
)
def test_not_all_come_at_once(chance: float, wait: float, extra: float) -> None:
    assert Parking().reject("five_hour", AT, chance, AT + wait).until == AT + wait + extra


@pytest.mark.parametrize("resets_at", [None, AT - 5, AT, AT + 1e9, math.nan])
def test_without_an_instant_that_can_be_believed_one_tries_after_an_hour(resets_at: float | None) -> None:
    assert Parking().reject("spend", AT, 0.0, resets_at) == Parked(AT + UNKNOWN_S, "spend")


def test_the_window_that_resets_last_is_named_and_one_call_tries_all() -> None:
    parking = Parking()
    parking.reject("seven_day", AT, 0.0, AT + 50 * HOURS)
    parking.reject("five_hour", AT, 0.0, AT + HOURS)
    assert parking.when(AT) == Parked(AT + 50 * HOURS, "seven_day")
    now = AT + 50 * HOURS
    number = parking.begin(now)
    assert parking.begin(now) == 0
    parking.ended(number, succeeded=True)
    assert parking.when(now) is None


def test_windows_that_nobody_has_heard_of_park_too() -> None:
    parking = Parking()
    parking.reject("one_moon_opus_6", AT, 0.0, AT + HOURS)
    assert parking.when(AT) == Parked(AT + HOURS, "one_moon_opus_6")


def test_a_person_who_knows_better() -> None:
    parking = Parking()
    parking.reject("five_hour", AT, 0.0, AT + HOURS)
    parking.reject("spend", AT, 0.0)
    assert not parking.resume("else")
    assert parking.resume("spend")
    assert parking.when(AT) == Parked(AT + HOURS, "five_hour")
    assert parking.resume()
    assert not parking.resume()
    assert parking.when(AT) is None


# -- what is foreseen


def observed(*uses: float, every: float = 600.0, resets_in: float | None = 5 * HOURS) -> Parking:
    parking = Parking()
    for step, used in enumerate(uses):
        resets_at = None if resets_in is None else AT + resets_in
        parking.observe("five_hour", AT + step * every, used=used, resets_at=resets_at)
    return parking


def test_at_the_present_pace_it_runs_out() -> None:
    parking = observed(0.10, 0.20, 0.30)
    assert parking.forecast(AT + 1200) == [
        Forecast("five_hour", 0.30, AT + 5 * HOURS, pytest.approx(AT + 1200 + 7 * 600), False)
    ]


@pytest.mark.parametrize(
    "parking",
    [observed(0.10), observed(0.10, 0.10), observed(0.10, 0.11), observed(0.2, 0.1), observed()],
)
def test_no_forecast_where_there_is_none_or_it_resets_before(parking: Parking) -> None:
    assert all(forecast.runs_out_at is None for forecast in parking.forecast(AT + 600))


def test_a_window_without_a_reset_runs_out_all_the_same() -> None:
    assert observed(0.10, 0.11, resets_in=None).forecast(AT + 600)[0].runs_out_at == pytest.approx(
        AT + 600 + 89 * 600
    )


def test_what_is_used_up_already_runs_out_now() -> None:
    assert observed(0.9, 1.1).forecast(AT + 700)[0].runs_out_at == AT + 700


def test_the_pace_is_that_of_the_last_half_hour() -> None:
    parking = Parking()
    for minute in range(120):
        used = 0.2 if minute < 60 else 0.2 + (minute - 60) * 0.005
        parking.observe("five_hour", AT + minute * 60, used=used, resets_at=AT + 5 * HOURS)
    left = 1 - (0.2 + 59 * 0.005)
    assert parking.forecast(AT + 119 * 60)[0].runs_out_at == pytest.approx(AT + 119 * 60 + left / 0.005 * 60)


def test_a_new_window_begins_with_no_past() -> None:
    parking = observed(0.5, 0.9)
    parking.observe("five_hour", AT + 5 * HOURS, used=None, resets_at=AT + 10 * HOURS)
    assert parking.forecast(AT + 5 * HOURS) == [Forecast("five_hour", None, AT + 10 * HOURS, None, False)]


def test_samples_that_are_close_together_are_one() -> None:
    parking = observed(0.1, 0.5, every=1.0)
    assert parking.forecast(AT + 1) == [Forecast("five_hour", 0.5, AT + 5 * HOURS, None, False)]


@pytest.mark.parametrize("used", [-0.1, math.nan, math.inf])
def test_what_cannot_be_used_is_not_believed(used: float) -> None:
    parking = Parking()
    parking.observe("five_hour", AT, used=used, resets_at=AT + 1e9)
    assert parking.forecast(AT) == [Forecast("five_hour", None, None, None, False)]


def test_a_window_that_has_reset_is_not_told() -> None:
    assert observed(0.5).forecast(AT + 5 * HOURS) == []
    parking = Parking()
    parking.reject("five_hour", AT, 0.0, AT + HOURS)
    assert [forecast.rejected for forecast in parking.forecast(AT + 9 * HOURS)] == [True], (
        "until one has tried"
    )


# -- a share for people


def test_batch_leaves_a_share_to_people() -> None:
    parking = observed(0.79)
    parking.reserved_share = 0.2
    assert parking.when(AT, batch=True) is None
    parking.observe("five_hour", AT, used=0.81, resets_at=AT + 5 * HOURS)
    assert parking.when(AT, batch=True) == Parked(AT + 5 * HOURS, "five_hour")
    assert parking.when(AT) is None
    assert parking.when(AT + 5 * HOURS, batch=True) is None
    parking.reserved_share = 0.0
    assert parking.when(AT, batch=True) is None


# -- bounds, and a restart


def test_only_so_many_windows_are_kept_and_those_that_park_longest() -> None:
    parking = Parking()
    parking.reject("first", AT, 0.0, AT + HOURS)
    for number in range(100):
        parking.observe(f"w{number}", AT, used=0.1, resets_at=None)
    assert len(parking.forecast(AT)) == MOST_WINDOWS
    assert parking.when(AT) == Parked(AT + HOURS, "first")
    for number in range(100):
        parking.reject(f"r{number}", AT, 0.0, AT + 2 * HOURS)
    assert len(parking.forecast(AT)) == MOST_WINDOWS


def test_a_restart_parks_on() -> None:
    parking = observed(0.5)
    parking.reject("seven_day", AT, 1.0, AT + 50 * HOURS)
    again = Parking()
    again.restore(parking.snapshot(), AT + 60)
    assert again.when(AT + 60) == parking.when(AT + 60) == Parked(AT + 50 * HOURS + 60, "seven_day")
    assert again.forecast(AT) == parking.forecast(AT)
    again.restore([(parking.snapshot()[1])._replace(parked_until=AT + 1e12)], AT)
    parked = again.when(AT)
    assert parked is not None
    assert parked.until < AT + 101 * 86_400


class OneFindsOut(RuleBasedStateMachine):
    """However calls begin and end: after a reset one is under way that tries."""

    subject: type[Parking] = Parking

    @initialize()
    def begin(self) -> None:
        self.parking = self.subject()
        self.now = AT
        self.calls: list[int] = []
        self.parked: dict[str, float] = {}
        self.trying: dict[str, int] = {}

    @rule(seconds=st.sampled_from([1.0, 600.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call(self) -> None:
        blocked = [w for w, until in self.parked.items() if self.now < until or w in self.trying]
        assert (self.parking.when(self.now) is None) == (not blocked)
        if not blocked:
            number = self.parking.begin(self.now)
            assert bool(number) == bool(self.parked)
            self.calls.append(number)
            for window in self.parked:
                self.trying[window] = number

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), succeeded=st.booleans(), window=st.sampled_from(["a", "b", ""]))
    def end(self, data: Any, succeeded: bool, window: str) -> None:
        number = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        if window:
            self.parking.reject(window, self.now, 0.0, self.now + 3600)
            self.parked[window] = self.now + 3600
            self.trying.pop(window, None)
        self.parking.ended(number, succeeded=succeeded and not window)
        for tried in [tried for tried, by in self.trying.items() if by == number]:
            del self.trying[tried]
            if succeeded and not window:
                del self.parked[tried]

    @invariant()
    def at_most_one_tries(self) -> None:
        if hasattr(self, "parking"):
            assert len({number for number in self.calls if number in self.trying.values()} - {0}) <= 2


def test_one_finds_out(play: Any) -> None:
    play(OneFindsOut)


class _Stampede(Parking):
    """Lets everybody go at the reset."""

    __slots__ = ()

    def begin(self, now: float) -> int:
        number = super().begin(now)
        for window in self._windows.values():
            window.trying = 0
        return number


def test_a_stampede_is_caught(catches: Any) -> None:
    catches(type("Broken", (OneFindsOut,), {"subject": _Stampede}))
