"""Whether and when a call is made once more."""

from typing import Any

import pytest
from dragomand.engine.retries import Retries
from dragomand.policy.retry_budget import RetryBudget
from dragomand.upstream.interface import Failure


class Slept(list[float]):
    """Sleeps in no time, and remembers for how long."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def failure(category: Any = "overload", **facts: Any) -> Failure:
    return Failure(category, "it failed", **facts)


def retries(tenths: int = 100, **more: Any) -> tuple[Retries, Slept]:
    slept = Slept()
    return Retries(RetryBudget(tenths), chance=lambda: 0.5, sleep=slept, **more), slept


@pytest.mark.parametrize(
    ("said", "failed", "slept"),
    [
        (failure(status=503), 1, [1.5]),
        (failure(status=529), 2, [3.0]),
        (failure(), 1, [0.75]),  # not reached: full jitter
        (failure(status=529, retry_after_ms=7000), 1, [7.35]),  # the server's hint wins
        (failure("throttle", status=429, retry_after_ms=7000), 1, []),  # the door is closed for that long
    ],
)
async def test_what_is_repeated(said: Failure, failed: int, slept: list[float]) -> None:
    """03.13, 03.14: at most three attempts, with a pause that grows."""
    one, waited = retries()
    assert await one.again(said, failed)
    assert [round(each, 2) for each in waited] == slept
    assert one.budget.tenths == 90


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        (failure(status=503), 3),
        (failure("auth", status=401), 1),
        (failure("quota", status=402), 1),
        (failure("caller", status=400), 1),
        (failure("crash"), 1),
        (failure(status=503, retry_after_ms=120_000), 1),  # longer than anybody waits
    ],
)
async def test_what_is_not(said: Failure, failed: int) -> None:
    one, waited = retries()
    assert not await one.again(said, failed)
    assert (waited, one.budget.tenths) == ([], 100)


async def test_all_share_one_budget() -> None:
    one, _ = retries(25)
    assert [await one.again(failure(status=503), 1) for _ in range(4)] == [True, True, False, False]


async def test_attempts_can_be_one() -> None:
    one, _ = retries(attempts=1)
    assert not await one.again(failure(status=503), 1)
