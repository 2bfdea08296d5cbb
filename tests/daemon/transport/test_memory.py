"""The connection in memory behaves as a socket does."""

import asyncio
from typing import Any

import pytest
from dragomand.transport import memory
from dragomand.transport.interface import SOFT_BYTES


@pytest.fixture
def door(make_door: Any) -> Any:
    return make_door()


async def read(end: memory.MemoryEnd, most: int = -1) -> bytes:
    async with asyncio.timeout(20):
        return await end.read(most)


async def test_bytes_go_both_ways_and_never_inside_the_call(door: Any) -> None:
    end = memory.connect(door, peer_pid=77)
    (recorder,) = door.came
    assert recorder.transport.peer_pid == 77
    end.write(b"hel")
    end.write(b"lo")
    assert recorder.data == b""
    await recorder.until_received(b"hello")
    recorder.transport.write(b"wor")
    recorder.transport.write(b"ld")
    assert recorder.transport.unsent() == end.unread == 5
    assert await read(end, 2) == b"wo"
    assert await read(end) == b"rld"
    assert recorder.transport.unsent() == 0
    reading = asyncio.ensure_future(read(end))
    recorder.transport.write(b"!")
    assert await reading == b"!"


async def test_the_end_of_input(door: Any) -> None:
    end = memory.connect(door)
    (recorder,) = door.came
    end.write(b"last")
    end.end()
    await recorder.until_told("ended")
    assert recorder.data == b"last"
    recorder.transport.write(b"answer")
    recorder.transport.close()
    recorder.transport.write(b"too late")
    assert recorder.events == ["ended"]
    assert not end.closed
    assert await read(end) == b"answer"
    assert end.closed
    await recorder.until_told("lost")
    assert await read(end) == b""
    end.write(b"nobody")
    end.close()
    assert recorder.events == ["ended", "lost"]


async def test_closing_with_nothing_to_read(door: Any) -> None:
    end = memory.connect(door)
    (recorder,) = door.came
    reading = asyncio.ensure_future(read(end))
    recorder.transport.close()
    assert await reading == b""
    await recorder.until_told("lost")


async def test_the_far_end_leaves(door: Any) -> None:
    end = memory.connect(door)
    (recorder,) = door.came
    end.write(b"unheard")
    recorder.transport.write(b"unread")
    end.close()
    await recorder.until_told("lost")
    assert recorder.data == b""
    assert await read(end) == b""
    recorder.transport.write(b"nobody")
    assert recorder.transport.unsent() == 0


async def test_reading_stops_and_goes_on(door: Any) -> None:
    end = memory.connect(door)
    (recorder,) = door.came
    recorder.transport.pause_reading()
    end.write(b"a")
    end.end()
    other = memory.connect(door)
    other.write(b"x")
    await door.came[1].until_received(b"x")
    assert recorder.data == b""
    recorder.transport.resume_reading()
    recorder.transport.resume_reading()
    await recorder.until_told("ended")
    assert recorder.data == b"a"


async def test_a_far_end_that_does_not_read_is_told_of(door: Any) -> None:
    end = memory.connect(door)
    (recorder,) = door.came
    recorder.transport.write(b"x" * SOFT_BYTES)
    assert recorder.events == []
    recorder.transport.write(b"x")
    recorder.transport.write(b"x")
    assert recorder.events == ["stalled"]
    await read(end, SOFT_BYTES // 2)
    assert recorder.events == ["stalled"]
    await read(end, SOFT_BYTES // 2)
    assert recorder.events == ["stalled", "flowing"]


async def test_no_flow_is_told_after_the_end(door: Any) -> None:
    end = memory.connect(door)
    (recorder,) = door.came
    recorder.transport.write(b"x" * (SOFT_BYTES + 1))
    end.close()
    await recorder.until_told("lost")
    await read(end)
    assert recorder.events == ["stalled", "lost"]
