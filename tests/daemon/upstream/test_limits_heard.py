"""What is believed, and which of two words stands."""

from typing import Any

import pytest
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import (
    MOST_LIMITS,
    Allowance,
    Believing,
    LimitsHeard,
    LimitsKnown,
    Window,
    instant_of,
    nobody,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0


def said(order: int, **more: Any) -> LimitsHeard:
    return LimitsHeard(sent_order=order, heard_at=NOW + order, **more)


@pytest.mark.parametrize("given_", [None, True, "x", [], {}, float("nan"), float("inf"), -1, 10**400, "²"])
def test_what_is_no_number(given_: object) -> None:
    believing = Believing(NOW)
    assert believing.number(given_, 1e9) is None
    assert believing.count(given_) is None
    assert believing.instant(given_) is None
    assert believing.absurd == 3


@pytest.mark.parametrize("given_", [None, 7, "", "two words", "x" * 41, "1st", "a-b"])
def test_what_is_no_word(given_: object) -> None:
    believing = Believing(NOW)
    assert believing.word(given_) is None
    assert believing.absurd == 1


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("Fri, 15 Jan 2027 08:00:00 GMT", NOW),
        ("Fri, 15 Jan 2027 08:00:00 -0000", NOW),  # a date of HTTP is UTC, whether it says so or not
        ("Friday, 15-Jan-27 08:00:00 GMT", NOW),
        ("2027-01-15", None),
        ("Fri, 15 Jan 2027", None),
        ("Fri, 41 Jan 2027 08:00:00 GMT", None),
    ],
)
def test_instants(text: str, at: float | None) -> None:
    assert instant_of(text) == at


def test_what_says_something() -> None:
    assert not said(1).says_something
    assert said(1, requests=Allowance(1)).says_something
    assert said(1, windows=(Window("five_hour"),)).says_something
    assert said(1, retry_after_s=0.0).says_something
    assert said(1, overage="allowed").says_something
    assert said(1, failure=Failure("throttle", "slow")).says_something
    assert nobody(said(1)) is None


def test_the_newest_word_stands_whatever_comes_first() -> None:
    """An answer that was sent earlier and comes later changes nothing."""
    known = LimitsKnown()
    assert known.hear(said(2, requests=Allowance(50, 10), absurd=1))
    assert not known.hear(said(1, requests=Allowance(50, 20), input_tokens=Allowance(9), absurd=2))
    assert known.hear(said(3, windows=(Window("five_hour", "allowed"),)))
    assert known.allowances == {"requests": Allowance(50, 10), "input-tokens": Allowance(9)}
    assert known.windows == {"five_hour": Window("five_hour", "allowed")}
    assert known.newest is not None
    assert (known.newest.sent_order, known.absurd, known.late) == (3, 3, 1)


def test_names_that_nobody_knows_are_not_collected_for_ever() -> None:
    known = LimitsKnown()
    for n in range(20):
        others = {f"w{n}-{k}": Allowance(1) for k in range(MOST_LIMITS)}
        known.hear(said(n, others=others))
    assert len(known.allowances) == 4 * MOST_LIMITS
    known.hear(said(99, others={"w0-0": Allowance(2)}))
    assert known.allowances["w0-0"] == Allowance(2)


NAMES = st.sampled_from(["requests", "a", "b"])
WORDS = st.lists(
    st.tuples(
        st.dictionaries(NAMES, st.integers(0, 99).map(Allowance), max_size=3),
        st.dictionaries(NAMES, st.floats(0, 1), max_size=3),
    ),
    max_size=8,
)


@given(words=WORDS, data=st.data())
def test_merging_follows_the_order_of_sending(words: list[Any], data: st.DataObject) -> None:
    """In whatever order answers come: of each limit stands what was sent last."""
    heard = [
        said(n, others=others, windows=tuple(Window(name, utilization=u) for name, u in windows.items()))
        for n, (others, windows) in enumerate(words)
    ]
    known, newest = LimitsKnown(), -1
    for each in data.draw(st.permutations(heard)):
        assert known.hear(each) == (each.sent_order >= newest)
        newest = max(newest, each.sent_order)
        assert known.newest is not None
        assert known.newest.sent_order == newest  # never goes back
    naive_allowances: dict[str, Allowance] = {}
    naive_windows: dict[str, Window] = {}
    for each in heard:
        naive_allowances |= each.allowances
        naive_windows |= {window.name: window for window in each.windows}
    assert (known.allowances, known.windows) == (naive_allowances, naive_windows)
