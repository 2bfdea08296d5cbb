"""Breakers by kind: what one client breaks is its own, what breaks everything stops everything new."""

import pytest
from dragomand.policy.crash_breakers import CrashBreakers
from hypothesis import given
from hypothesis import strategies as st


def crash(breakers: CrashBreakers, *kinds: str, at: float = 100.0, plain: bool = True) -> None:
    for kind in kinds:
        assert breakers.refusal(kind, at, plain=plain) is None
        breakers.crashed(kind, at, plain=plain)


def test_a_kind_that_crashes_is_refused_and_no_other() -> None:
    breakers = CrashBreakers()
    crash(breakers, "broken", "broken", "broken")
    assert breakers.is_open("broken")
    assert breakers.refusal("broken", 101.0) == 9.0
    assert not breakers.is_open("sound")
    assert breakers.refusal("sound", 101.0) is None
    assert breakers.kinds == 1
    assert breakers.refusal("broken", 110.0) is None, "one tries it out"
    breakers.started("broken", 111.0)
    assert breakers.kinds == 0


def test_plain_crashes_of_several_kinds_stop_all_that_is_new() -> None:
    breakers = CrashBreakers()
    breakers.started("proven", 90.0)
    crash(breakers, "a", "b", "c")
    assert breakers.refusal("new", 100.0) == 10.0
    assert breakers.refusal("new", 100.0, plain=False) == 10.0
    assert not breakers.is_open("proven")
    assert breakers.refusal("proven", 100.0) is None
    assert breakers.refusal("new", 110.0) is None
    assert breakers.refusal("newer", 110.0) == 10.0, "one tries for all"
    breakers.crashed("new", 110.0)
    assert breakers.refusal("newer", 111.0) == 19.0, "and all wait for longer"
    breakers.started("proven", 112.0)
    assert breakers.refusal("newer", 112.0) is None, "anything that works shows that it can work"


def test_the_same_kind_again_and_again_does_not_stop_all() -> None:
    breakers = CrashBreakers()
    for at in (0.0, 10.0, 70.0, 140.0, 220.0):
        crash(breakers, "a", at=at)
    crash(breakers, "b", at=221.0)
    assert not breakers.is_open("new")


def test_what_a_client_brought_along_is_never_held_against_others() -> None:
    breakers = CrashBreakers()
    for number in range(50):
        crash(breakers, f"own {number}", plain=False)
    assert breakers.refusal("new", 100.0) is None


def test_an_attempt_that_is_not_plain_does_not_use_up_that_of_all() -> None:
    breakers = CrashBreakers()
    crash(breakers, "a", "b", "c")
    crash(breakers, "own", at=110.0, plain=False)
    assert breakers.refusal("new", 110.0) is None


def test_one_that_has_worked_is_its_own_reason_to_crash() -> None:
    breakers = CrashBreakers()
    for kind in "abc":
        breakers.started(kind, 1.0)
    crash(breakers, "a", "b", "c")
    assert not breakers.is_open("new")


@pytest.mark.parametrize("plain", [True, False])
def test_it_remembers_to_a_bound(plain: bool) -> None:
    breakers = CrashBreakers(most_kinds=4)
    for number in range(20):
        breakers.started(f"worked {number}", 1.0)
    for number in range(20):
        at = 1000.0 * number  # far apart
        crash(breakers, f"kind {number}", at=at, plain=plain)
    assert breakers.kinds == 4
    assert len(breakers._working) <= 4
    assert len(breakers._plain) <= 4


def test_how_they_stand() -> None:
    breakers = CrashBreakers()
    assert breakers.look(0.0) == []
    crash(breakers, "a", "a")
    assert breakers.look(101.0) == [
        (True, ("closed", 1, None, None, True)), (False, ("closed", 2, None, None, True)),
    ]  # fmt: skip
    assert breakers.look(200.0) == [], "long ago"
    crash(breakers, "a", at=101.0)
    assert breakers.look(102.0)[1] == (False, ("open", 3, 101.0, 111.0, True))
    assert breakers.look(111.0)[1][1].state == "half_open", "the next is let through"
    assert breakers.refusal("a", 112.0) is None
    assert breakers.look(113.0)[1] == (False, ("half_open", 3, 101.0, None, True)), "one is under way"
    breakers.crashed("a", 114.0)
    assert breakers.look(115.0)[1] == (False, ("open", 4, 101.0, 134.0, True))
    breakers.started("a", 135.0)
    assert breakers.look(136.0) == []


def test_a_person_closes_them() -> None:
    breakers = CrashBreakers()
    crash(breakers, "a", "a", "a", plain=False)
    crash(breakers, "b", "c", "d")
    assert breakers.refusal("a", 101.0) == breakers.refusal("new", 101.0) == 9.0
    assert breakers.reset() == 2
    assert breakers.refusal("a", 101.0) is breakers.refusal("new", 101.0) is None
    assert breakers.look(101.0) == []
    crash(breakers, "a", "b", at=101.0)
    assert not breakers.is_open("a"), "it counts from the beginning"
    assert breakers.reset() == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.integers(0, 40)), max_size=60))
def test_no_kind_crashes_more_often_than_its_own_breaker_allows(steps: list[tuple[str, bool, int]]) -> None:
    breakers, now = CrashBreakers(), 0.0
    crashes: dict[str, list[float]] = {}
    for kind, succeeds, pause in steps:
        now += pause
        if breakers.refusal(kind, now) is not None:
            assert breakers.is_open(kind)
            continue
        mine = crashes.setdefault(kind, [])
        if succeeds:
            breakers.started(kind, now)
            mine.clear()
        else:
            breakers.crashed(kind, now)
            mine.append(now)
        if len(mine) >= 4:
            assert mine[-1] - mine[-4] >= 10, "never four within the first pause"
