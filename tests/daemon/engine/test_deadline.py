"""A deadline that stands still while a person is asked. The clock is the test's; nothing waits."""

import math
from typing import Any

import anyio
import pytest
from dragomand.engine.deadline import Deadline


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_it_ends_its_scope() -> None:
    deadline = Deadline(0.001)
    with deadline.scope:
        await anyio.sleep_forever()
    assert deadline.expired


async def test_what_ends_in_time_is_left_alone() -> None:
    deadline = Deadline(1000)
    with deadline.scope:
        await anyio.lowlevel.checkpoint()
    assert not deadline.expired


async def test_never() -> None:
    assert Deadline(None).scope.deadline == math.inf


@pytest.mark.parametrize(("asked_for", "left"), [(10.0, 70.0), (500.0, 70.0), (0.0, 70.0)])
async def test_time_spent_asking_does_not_count(asked_for: float, left: float) -> None:
    clock = Clock()
    deadline = Deadline(100, clock)
    clock.now += 30
    with deadline.paused():
        assert deadline.scope.deadline == math.inf
        clock.now += asked_for
    assert deadline.scope.deadline == clock.now + left


async def test_questions_that_overlap_count_once() -> None:
    clock = Clock()
    deadline = Deadline(100, clock)
    first: Any = deadline.paused()
    first.__enter__()
    clock.now += 5
    with deadline.paused():
        clock.now += 7
        first.__exit__(None, None, None)
        assert deadline.scope.deadline == math.inf
        clock.now += 11
    assert deadline.scope.deadline == clock.now + 100


async def test_a_pause_of_never_stays_never() -> None:
    deadline = Deadline(None)
    with deadline.paused():
        pass
    assert deadline.scope.deadline == math.inf


async def test_a_deadline_that_passed_before_the_question_ends_it_afterwards() -> None:
    clock = Clock()
    deadline = Deadline(1, clock)
    clock.now += 2
    with deadline.paused():
        clock.now += 50
    assert deadline.scope.deadline == clock.now - 1
