"""A few starts at once, in order, and none while the breaker is open."""

import asyncio
import time
from typing import Any

import pytest
from dragomand.policy.crash_breaker import CrashState
from dragomand.upstream.claude_code.starts import Kind, Starts
from dragomand.upstream.interface import Failure, UpstreamError

KIND = Kind("some kind", plain=False)


class Fuse:
    """A breaker that is told what to do, and remembers what it was told."""

    def __init__(self) -> None:
        self.wait: float | None = None
        self.told: list[str] = []

    def is_open(self, kind: str) -> bool:
        return self.wait is not None and kind == KIND.key

    def refusal(self, kind: str, now: float, *, plain: bool = True) -> float | None:
        assert now > 0
        return self.wait if self.is_open(kind) and plain == KIND.plain else None

    def started(self, kind: str, now: float) -> None:
        assert kind == KIND.key
        self.told.append("started")

    def crashed(self, kind: str, now: float, *, plain: bool = True) -> None:
        assert (kind, plain) == (KIND.key, KIND.plain)
        self.told.append("crashed")

    def look(self, now: float) -> list[tuple[bool, CrashState]]:
        closed = CrashState("closed", 1, None, None, True)
        return [(True, CrashState("open", 3, now - 5, now + 10, True)), (False, closed)]

    def reset(self) -> int:
        self.wait = None
        return 1


async def nothing() -> None:
    return None


async def test_only_so_many_at_once(world: Any) -> None:
    starts, go, most = Starts(2), asyncio.Event(), 0
    async def start() -> None:
        nonlocal most
        most = max(most, starts.running)
        await go.wait()

    freed: list[int] = []
    starts.on_free = lambda: freed.append(starts.running)
    assert starts.is_free
    tasks = [asyncio.create_task(starts.start(KIND, start)) for _ in range(5)]
    await world.until(lambda: starts.waiting == 3)
    assert not starts.is_free
    go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert most == 2
    assert (starts.running, starts.waiting) == (0, 0)
    assert freed
    assert freed[-1] == 0


async def test_giving_up_the_wait_leaves_no_trace(world: Any) -> None:
    starts, go = Starts(1), asyncio.Event()

    async def start() -> None:
        await go.wait()

    first = asyncio.create_task(starts.start(KIND, start))
    second = asyncio.create_task(starts.start(KIND, nothing))
    await world.until(lambda: starts.waiting == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert starts.waiting == 0
    go.set()
    await first
    assert starts.is_free


@pytest.mark.parametrize(
    ("category", "counts"), [("crash", True), ("protocol", True), ("caller", False), ("missing", False)]
)
async def test_the_breaker_hears_of_crashes_and_successes(category: str, counts: bool) -> None:
    fuse = Fuse()
    starts = Starts(1, fuse)

    async def fail() -> None:
        raise UpstreamError(Failure(category, "no luck"))  # type: ignore[arg-type]

    with pytest.raises(UpstreamError):
        await starts.start(KIND, fail)
    await starts.start(KIND, nothing)
    starts.crashed(KIND)
    assert fuse.told == [*(["crashed"] if counts else []), "started", "crashed"]


async def test_an_open_breaker_refuses_and_says_for_how_long() -> None:
    fuse = Fuse()
    fuse.wait = 2.5
    starts = Starts(1, fuse)
    assert starts.is_free, "for other kinds"
    assert starts.is_sound(Kind("another"))
    assert not starts.is_sound(KIND)
    with pytest.raises(UpstreamError) as caught:
        await starts.start(KIND, nothing)
    assert (caught.value.failure.category, caught.value.failure.retry_after_ms) == ("crash", 2500)
    assert fuse.told == [], "a refusal is no crash"


async def test_what_stops_starts_is_told_in_unix_time_and_can_be_closed() -> None:
    fuse = Fuse()
    fuse.wait = 2.5
    starts = Starts(1, fuse)
    before = time.time()
    stops, counts = starts.breakers()
    assert (stops.of_all, stops.state, stops.failures) == (True, "open", 3)
    assert stops.opened_at is not None
    assert stops.retry_at is not None
    assert -5 <= stops.opened_at - before < 25, "the time that the test takes is in it"
    assert round(stops.retry_at - stops.opened_at) == 15
    assert (counts.of_all, counts.state, counts.opened_at, counts.retry_at) == (False, "closed", None, None)
    assert starts.reset() == 1
    await starts.start(KIND, nothing)


async def test_without_a_breaker_crashes_are_only_crashes() -> None:
    starts = Starts(1)
    assert starts.is_sound(KIND)
    starts.crashed(KIND)
    assert starts.breakers() == []
    assert starts.reset() == 0
    await starts.start(KIND, nothing)
