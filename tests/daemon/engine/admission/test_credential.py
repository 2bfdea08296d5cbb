"""A credential that was refused, and one whose quota is used up."""

from typing import Any

import pytest
from dragomand.engine.admission import Asked
from dragomand.engine.admission.credential import Credential

WALL = 1_800_000_000.0


def credential(**more: Any) -> Credential:
    return Credential("apiKey", probe_s=60.0, **more)


def asked(priority: Any = "interactive", models: str = "opus") -> Asked:
    return Asked(client="ann", priority=priority, models=models)


def test_only_the_one_that_tries_can_bring_it_back() -> None:
    one = credential()
    before, probe = object(), object()
    assert one.refuse("invalid", 0.0)
    assert not one.refuse("invalid", 0.0), "it is no news"
    one.ended(before, (), succeeded=True)  # it had been sent before
    assert one.refused
    blocked = one.blocks(asked(), 30.0, WALL)
    assert blocked is not None
    assert (blocked.reason, blocked.until) == ("auth", 60.0)
    assert blocked.refusal is not None
    assert blocked.refusal.data["retry_after_ms"] == 30_000
    assert one.blocks(asked("batch"), 60.0, WALL) is None
    one.begin(probe, "opus", WALL)
    waiting = one.blocks(asked("batch"), 61.0, WALL)
    assert waiting is not None
    assert (waiting.until, waiting.refusal) == (None, None)
    one.ended(probe, (), succeeded=True)
    assert not one.refused
    assert one.clear


def test_one_that_tried_and_was_given_up_lets_another_try() -> None:
    one = credential()
    one.refuse("invalid", 0.0)
    one.begin(first := object(), "opus", WALL)
    one.ended(first, (), succeeded=False)
    assert one.blocks(asked(), 70.0, WALL) is None


@pytest.mark.parametrize(
    ("window", "stopped"),
    [
        ("five_hour", ["opus", "haiku"]),
        ("seven_day_opus", ["opus"]),
        ("seven_day_new_one", ["opus", "haiku"]),
    ],
)
def test_a_window_of_a_family_stops_that_family(window: str, stopped: list[str]) -> None:
    one = credential()
    one.use_up(window, WALL + 100, 0.0, WALL)
    found = [each for each in ("opus", "haiku") if one.blocks(asked(models=each), 0.0, WALL) is not None]
    assert found == stopped
    blocked = one.blocks(asked(), 5.0, WALL)
    assert blocked is not None
    assert (blocked.reason, blocked.until, blocked.resets_at) == ("quota", 105.0, WALL + 100)
    assert one.parked_until(window) == WALL + 100
    assert one.resume()
    assert one.clear
    assert not one.resume()


def test_after_the_reset_one_call_tries_and_its_failure_parks_again() -> None:
    one = credential()
    one.use_up("five_hour", WALL + 100, 0.0, WALL)
    later = WALL + 101
    assert one.blocks(asked(), 0.0, later) is None
    trial = one.begin(object(), "opus", later)
    assert trial
    blocked = one.blocks(asked(), 0.0, later)
    assert blocked is not None
    assert (blocked.reason, blocked.until) == ("quota", None)
    one.use_up("five_hour", later + 50, 0.0, later)
    one.ended(object(), trial, succeeded=False)
    again = one.blocks(asked(), 0.0, later)
    assert again is not None
    assert again.resets_at == later + 50


def test_a_share_of_each_window_is_for_people() -> None:
    one = credential(reserved_share=0.1)
    one.observe("five_hour", 0.95, WALL + 100, WALL)
    assert one.blocks(asked(), 0.0, WALL) is None
    blocked = one.blocks(asked("batch"), 0.0, WALL)
    assert blocked is not None
    assert blocked.reason == "quota"
    one.reserve(0.0)
    assert one.blocks(asked("batch"), 0.0, WALL) is None
