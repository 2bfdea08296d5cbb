"""Places, and those of each depth that only it can take."""

import pytest
from dragomand.engine.admission.places import Places


def test_each_depth_has_some_of_its_own() -> None:
    places = Places(1, 1)
    places.enter(0)
    assert [places.has_room(depth) for depth in (0, 1, 2)] == [False, True, True]
    places.enter(1)
    assert [places.has_room(depth) for depth in (0, 1, 2)] == [False, False, True]
    places.leave(1, 2.0)
    assert places.has_room(1)
    places.leave(0, 4.0)
    assert (places.running, places.has_room(0)) == (0, True)
    assert places.mean_s == pytest.approx(2.4)
    assert places.each_s() == places.mean_s


def test_one_that_was_not_given_is_not_taken_back() -> None:
    with pytest.raises(RuntimeError, match="had not been given out"):
        Places(1, 1).leave(0, 1.0)


def test_nothing_is_known_of_how_long_one_stays_at_first() -> None:
    assert Places(3, 0).each_s() is None
    assert not Places(0, 0).has_room(1)
