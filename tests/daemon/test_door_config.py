"""The door's figures from the settings."""

import msgspec
from dragoman_protocol.limits import ClientShare
from dragomand.door_config import door_settings, values_of
from dragomand.engine.admission import Share
from dragomand.settings import Config, LimitsSettings


def test_the_defaults_are_the_plans() -> None:
    """00.20, 00.29, 04.2, 04.3, 04.7 to 04.9."""
    door = door_settings(values_of(Config()))
    assert (door.queries_per_minute, door.queries_per_hour) == (60, 1000)
    assert (door.failure_threshold, door.breaker_s) == (5, 60.0)
    assert (door.half_open_requests, door.success_threshold) == (2, 2)
    assert (door.max_running, door.max_calls, door.calls_at_start) == (8, 16, 4)
    assert (door.attempts, door.retry_budget) == (3, 10)
    assert (door.input_tokens_per_minute, door.output_tokens_per_minute) == (None, None)
    assert door.clients == {}


def test_what_is_set_at_run_time_goes_before() -> None:
    values = {
        **values_of(Config(limits=LimitsSettings(max_calls=2))),
        "limits.queriesPerMinute": 0,
        "breaker.timeoutMs": 1500,
        "limits.peoplePlace": False,
        "retry.budget": 0,
        "limits.peopleShare": 0.2,
        "limits.maxDepth": 3,
    }
    door = door_settings(values, {"ci": ClientShare(weight=0.5, priority="batch"), "mine": ClientShare()})
    assert (door.queries_per_minute, door.breaker_s, door.keep_for_people) == (None, 1.5, False)
    assert (door.calls_at_start, door.retry_budget) == (2, 0)
    assert (door.reserved_share, door.max_depth) == (0.2, 3)
    assert door.clients == {"ci": Share(0.5, "batch"), "mine": Share(1.0, None)}
    assert msgspec.structs.replace(door, max_calls=3).max_calls == 3
