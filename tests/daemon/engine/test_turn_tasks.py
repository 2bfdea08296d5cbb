"""Tasks that a group owns although it did not start them."""

import asyncio

import anyio
import pytest
from dragomand.engine.turn_tasks import Beside, TurnTasks


async def test_the_group_ends_when_they_have() -> None:
    go, done = asyncio.Event(), []

    async def work(number: int) -> None:
        await go.wait()
        done.append(number)

    async with asyncio.timeout(20):
        async with anyio.create_task_group() as group:
            tasks = TurnTasks(group)
            tasks.start(work(1))
            tasks.end()
            tasks.start(work(2))
            asyncio.get_running_loop().call_soon(go.set)
        assert sorted(done) == [1, 2]


async def test_a_group_without_any_does_not_wait() -> None:
    async with asyncio.timeout(20), anyio.create_task_group() as group:
        TurnTasks(group).end()


async def test_when_the_group_is_cancelled_so_are_they_and_it_waits_for_their_end() -> None:
    begun, ended = asyncio.Event(), []

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async with asyncio.timeout(20):
        async with anyio.create_task_group() as group:
            TurnTasks(group).start(work())
            await begun.wait()
            group.cancel_scope.cancel()
    assert ended == [True]


async def test_what_is_started_after_the_keeper_has_gone_gets_another() -> None:
    async def work() -> None:
        done.append(True)

    done: list[bool] = []
    async with asyncio.timeout(20), anyio.create_task_group() as group:
        tasks = TurnTasks(group)
        tasks.start(work())
        tasks.end()
        while tasks._kept:  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0)
        tasks.start(work())
    assert done == [True, True]


async def test_beside_a_turn_things_end_with_it() -> None:
    beside, done = Beside(), []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        done.append(number)

    await beside.end()
    beside.begin(work(1))
    beside.begin(work(2))
    await beside.end()
    assert done == [1, 2]


async def test_what_goes_wrong_beside_is_not_lost() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    beside = Beside()
    beside.begin(work())
    with pytest.raises(ZeroDivisionError):
        await beside.end()


async def test_even_one_who_is_cancelled_waits_for_what_is_beside() -> None:
    go, done = asyncio.Event(), []

    async def work() -> None:
        await go.wait()
        done.append(True)

    beside = Beside()
    beside.begin(work())
    with anyio.CancelScope() as scope:
        scope.cancel()
        asyncio.get_running_loop().call_later(0.01, go.set)
        await beside.end()
    assert done == [True]
