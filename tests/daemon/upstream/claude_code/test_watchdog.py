"""Silence is noticed, unless it is excused; the timer is the loop's, so short spans are waited for."""

import asyncio

from dragomand.upstream.claude_code.watchdog import Watchdog


async def test_silence_is_told_once() -> None:
    stalled = asyncio.Event()
    told = []

    def on_stall() -> None:
        told.append(asyncio.get_running_loop().time())
        stalled.set()

    watchdog = Watchdog(0.01, on_stall, lambda: False)
    watchdog.start()
    async with asyncio.timeout(10):
        await stalled.wait()
    assert len(told) == 1
    assert watchdog._timer is None, "it does not go on by itself"


async def test_what_is_heard_puts_it_off() -> None:
    loop = asyncio.get_running_loop()
    stalled: asyncio.Future[float] = loop.create_future()
    watchdog = Watchdog(0.05, lambda: stalled.set_result(loop.time()), lambda: False)
    began = loop.time()
    watchdog.start()
    watchdog.heard(extra_s=0.1)
    async with asyncio.timeout(10):
        assert await stalled >= began + 0.15


async def test_a_good_reason_excuses_it() -> None:
    excused = 3
    stalled = asyncio.Event()

    def may_be_silent() -> bool:
        nonlocal excused
        excused -= 1
        return excused >= 0

    watchdog = Watchdog(0.005, stalled.set, may_be_silent)
    watchdog.start()
    async with asyncio.timeout(10):
        await stalled.wait()
    assert excused == -1


async def test_stopped_it_says_nothing() -> None:
    told: list[str] = []
    watchdog = Watchdog(0.001, lambda: told.append("stall"), lambda: False)
    other = asyncio.Event()
    watchdog.start()
    watchdog.stop()
    watchdog.stop()
    Watchdog(0.02, other.set, lambda: False).start()
    async with asyncio.timeout(10):
        await other.wait()
    assert told == []
