"""How the state machines of this folder are played: a little always, much by CI, and once against a bug."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

Play = Callable[[type[RuleBasedStateMachine]], None]

CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much]
FEW = settings(
    max_examples=40, stateful_step_count=30, derandomize=True, deadline=None, suppress_health_check=CHECKS
)
MANY = settings(max_examples=500, stateful_step_count=50, deadline=None, suppress_health_check=CHECKS)
CATCH = settings(MANY, derandomize=True, database=None, phases=[Phase.generate], print_blob=False)


@pytest.fixture(
    params=[
        pytest.param(FEW, id="few"),
        pytest.param(MANY, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ]
)
def play(request: pytest.FixtureRequest) -> Play:
    """Play a machine: the same few games each time, or 500 new ones of 50 steps."""
    chosen: Any = request.param
    return lambda machine: run_state_machine_as_test(machine, settings=chosen)


@pytest.fixture
def catches() -> Play:
    """Play a machine whose subject has a bug; fails unless that is found."""

    def play_broken(machine: type[RuleBasedStateMachine]) -> None:
        with pytest.raises(AssertionError):
            run_state_machine_as_test(machine, settings=CATCH)

    return play_broken
