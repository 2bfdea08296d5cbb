"""Numbers without a gap, published only after their commit, in order; text so far; a store that fails."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from dragoman_protocol.stream import (
    AssistantText,
    Event,
    Retrying,
    TextDelta,
    Thinking,
    ThinkingDelta,
    TurnCompleted,
    TurnStarted,
)
from dragomand.engine import channel as module
from dragomand.engine.channel import Channel, Published, cursor_of, read_cursor
from dragomand.store.errors import StorageError, StorageFullError
from dragomand.store.rows import ItemRow


class Disk:
    """Takes rows when it is told to."""

    def __init__(self, *, slow: bool = False) -> None:
        self.rows: list[ItemRow] = []
        self.commits = 0
        self.writing = asyncio.Event()
        self.go = asyncio.Event()
        self.error: Exception | None = None
        if not slow:
            self.go.set()

    async def write(self, rows: Sequence[ItemRow]) -> None:
        kept = list(rows)
        self.writing.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.commits += 1
        self.rows += kept


class Seen:
    """A subscriber that notes what was stored at the time."""

    def __init__(self, channel: Channel, disk: Disk) -> None:
        self.events: list[Published] = []
        self.disk = disk
        self.channel = channel
        self.leave = channel.subscribe(self)

    def __call__(self, event: Published) -> None:
        if event.params.seq is not None:
            stored = any(row.seq == event.params.seq for row in self.disk.rows)
            assert stored, "published before it was stored"
            assert self.channel.last_seq >= event.params.seq, "who asks where the session stands is told less"
        self.events.append(event)

    @property
    def list(self) -> list[Any]:
        return [(event.params.seq, event.params.event) for event in self.events]


def channel_on(disk: Disk, last_seq: int = 0) -> Channel:
    return Channel(session_id="s", epoch="e", last_seq=last_seq, append=disk.write, clock=lambda: 5.0)


def text(number: int) -> AssistantText:
    return AssistantText(item_id=f"i{number}", text=str(number))


def delta(item: str, offset: int, said: str) -> TextDelta:
    return TextDelta(item_id=item, offset=offset, text=said)


async def pumped(channel: Channel, *events: Event) -> None:
    """One whole turn with these events."""
    channel.begin("t")
    pump = asyncio.create_task(channel.pump())
    for event in events:
        channel.publish(event)
    channel.finish()
    await asyncio.wait_for(pump, 30)


async def test_durable_events_are_numbered_on_from_where_the_session_stood() -> None:
    disk = Disk()
    channel = channel_on(disk, last_seq=41)
    seen = Seen(channel, disk)
    await pumped(channel, text(1), text(2), text(3))
    assert seen.list == [(42, text(1)), (43, text(2)), (44, text(3))]
    assert [(row.seq, row.turn_id, row.created_at) for row in disk.rows] == [
        (42, "t", 5.0),
        (43, "t", 5.0),
        (44, "t", 5.0),
    ]
    assert [event.params.cursor for event in seen.events] == ["e:42", "e:43", "e:44"]
    assert (channel.cursor, channel.last_seq) == ("e:44", 44)


async def test_ephemeral_events_go_out_at_once_and_have_no_number() -> None:
    disk = Disk()
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    channel.publish(delta("i", 0, "a"))
    assert seen.list == [(None, delta("i", 0, "a"))]
    assert seen.events[0].ephemeral
    assert seen.events[0].params.cursor is None
    assert disk.commits == 0


async def test_what_comes_after_a_durable_event_waits_behind_it() -> None:
    disk = Disk(slow=True)
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    pump = asyncio.create_task(channel.pump())
    channel.publish(text(1))
    channel.publish(delta("i", 0, "a"))
    await disk.writing.wait()
    channel.publish(delta("i", 1, "b"))
    channel.publish(text(2))
    assert seen.list == []
    disk.go.set()
    channel.finish()
    await pump
    assert seen.list == [(1, text(1)), (None, delta("i", 0, "a")), (None, delta("i", 1, "b")), (2, text(2))]
    assert disk.commits == 2, "what came meanwhile shares a commit"


async def test_only_ephemeral_events_behind_a_commit_still_come_out() -> None:
    disk = Disk(slow=True)
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    opening = asyncio.create_task(channel.commit([text(1)], disk.write))
    await disk.writing.wait()
    channel.publish(delta("i", 0, "a"))
    pump = asyncio.create_task(channel.pump())
    disk.go.set()
    await opening
    channel.finish()
    await pump
    assert seen.list == [(1, text(1)), (None, delta("i", 0, "a"))]


async def test_cancelling_in_the_middle_of_a_commit_loses_no_number() -> None:
    import anyio

    disk = Disk(slow=True)
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    async with anyio.create_task_group() as group:
        group.start_soon(channel.pump)
        channel.publish(text(1))
        await disk.writing.wait()
        group.cancel_scope.cancel()
        disk.go.set()
    assert seen.list == [(1, text(1))]
    channel.end()
    await pumped(channel, text(2))
    assert seen.list == [(1, text(1)), (2, text(2))]


async def test_a_write_that_fails_numbers_nothing() -> None:
    disk = Disk()
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    disk.error = StorageFullError("/db", "no space")
    with pytest.raises(StorageFullError):
        await channel.commit([text(1)], disk.write)
    assert (channel.last_seq, seen.list) == (0, [])
    disk.error = None
    await channel.commit([text(2)], disk.write)
    assert seen.list == [(1, text(2))]


@pytest.mark.parametrize("error", [StorageError("/db", "broken"), ValueError("a bug")])
async def test_after_a_failure_the_turns_durable_events_are_dropped_and_the_next_turn_is_whole(
    error: Exception,
) -> None:
    disk = Disk()
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    pump = asyncio.create_task(channel.pump())
    disk.error = error
    channel.publish(text(1))
    await asyncio.wait_for(pump, 30)  # by itself, without `finish`
    assert channel.failure is error
    channel.publish(text(2))
    channel.publish(delta("i", 0, "live"))
    assert seen.list == [(None, delta("i", 0, "live"))]
    channel.end()
    disk.error = None
    await pumped(channel, text(3))
    assert channel.failure is None
    assert seen.list[1:] == [(1, text(3))]
    assert [row.seq for row in disk.rows] == [1]


async def test_what_was_never_written_does_not_leak_into_the_next_turn() -> None:
    disk = Disk()
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    channel.publish(text(1))  # nobody pumps
    channel.end()
    channel.publish(delta("i", 0, "at once"))
    await pumped(channel, text(2))
    assert seen.list == [(None, delta("i", 0, "at once")), (1, text(2))]


async def test_an_announcement_has_no_number() -> None:
    disk = Disk()
    channel = channel_on(disk, 3)
    seen = Seen(channel, disk)
    end = TurnCompleted(turn_id="t", status="failed")
    channel.announce(end)
    assert seen.list == [(None, end)]
    assert channel.last_seq == 3


# -- bounds


async def test_deltas_are_joined_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 3)
    disk = Disk(slow=True)
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    pump = asyncio.create_task(channel.pump())
    channel.publish(text(1))
    await disk.writing.wait()
    for at, letter in enumerate("abcdef"):
        channel.publish(delta("i", at, letter))
    channel.publish(Retrying(attempt=1, category="overload"))
    channel.publish(ThinkingDelta(item_id="i", offset=6, text="?"))
    channel.publish(delta("j", 0, "other item"))
    channel.publish(delta("i", 9, "not next"))
    channel.publish(delta("i", 6, "g"))
    disk.go.set()
    channel.finish()
    await pump
    assert seen.list[1:] == [
        (None, delta("i", 0, "a")),
        (None, delta("i", 1, "b")),
        (None, delta("i", 2, "cdefg")),
    ]
    assert channel.left_out == 4


async def test_too_many_durable_events_end_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PENDING", 3)
    disk = Disk(slow=True)
    channel = channel_on(disk)
    seen = Seen(channel, disk)
    channel.begin("t")
    pump = asyncio.create_task(channel.pump())
    channel.publish(text(0))
    await disk.writing.wait()
    for number in range(1, 5):
        channel.publish(text(number))
    assert isinstance(channel.failure, StorageError)
    assert "3 events wait to be written" in str(channel.failure)
    disk.go.set()
    await pump
    await channel.commit([text(9)], disk.write)
    assert seen.list == [(1, text(0)), (2, text(9))]


# -- text so far


def running(channel: Channel) -> list[Any]:
    return [published.params.event for published in channel.running_texts()]


async def test_the_text_so_far_is_what_was_published() -> None:
    disk = Disk(slow=True)
    channel = channel_on(disk)
    channel.begin("t")
    channel.publish(delta("i", 0, "ö😀"))
    channel.publish(delta("i", 2, "b"))
    channel.publish(ThinkingDelta(item_id="j", offset=0, text="hm"))
    assert running(channel) == [delta("i", 0, "ö😀b"), ThinkingDelta(item_id="j", offset=0, text="hm")]
    pump = asyncio.create_task(channel.pump())
    channel.publish(AssistantText(item_id="i", text="ö😀b"))
    channel.publish(delta("k", 0, "next"))
    await disk.writing.wait()
    # Neither the end of `i` nor the beginning of `k` has been published yet.
    assert [event.item_id for event in running(channel)] == ["i", "j"]
    disk.go.set()
    channel.publish(Thinking(item_id="j", text="hm"))
    channel.finish()
    await pump
    assert running(channel) == [delta("k", 0, "next")]
    channel.end()
    assert running(channel) == []


async def test_a_text_with_a_hole_is_not_told() -> None:
    channel = channel_on(Disk())
    channel.publish(delta("i", 0, "a"))
    channel.publish(delta("i", 5, "f"))
    channel.publish(delta("late", 3, "d"))
    channel.publish(delta("whole", 0, "x"))
    assert running(channel) == [delta("whole", 0, "x")]


# -- subscribers


async def test_everybody_sees_the_same_encoded_once() -> None:
    disk = Disk()
    channel = channel_on(disk)
    first, second = Seen(channel, disk), Seen(channel, disk)
    await pumped(channel, text(1))
    assert first.events[0] is second.events[0]
    assert first.events[0].raw is second.events[0].raw
    assert bytes(first.events[0].raw) == (
        b'{"sessionId":"s","event":{"type":"assistantText","itemId":"i1","text":"1"},"seq":1,"cursor":"e:1"}'
    )


async def test_who_leaves_sees_no_more_and_the_last_one_is_noted() -> None:
    disk = Disk()
    channel = channel_on(disk)
    unwatched: list[bool] = []
    channel.on_unwatched = lambda: unwatched.append(channel.watched)
    assert not channel.watched
    first, second = Seen(channel, disk), Seen(channel, disk)
    first.leave()
    first.leave()
    assert channel.watched
    assert unwatched == []
    await pumped(channel, text(1))
    assert (len(first.events), len(second.events)) == (0, 1)
    assert channel.watched_at == 0.0
    second.leave()
    second.leave()
    assert unwatched == [False]
    assert channel.watched_at > 0
    channel.on_unwatched = None
    Seen(channel, disk).leave()


async def test_nobody_watching_changes_no_number() -> None:
    disk = Disk()
    channel = channel_on(disk)
    await pumped(channel, TurnStarted(turn_id="t"), delta("i", 0, "x"), text(1))
    assert [row.seq for row in disk.rows] == [1, 2]
    assert channel.cursor == "e:2"


# -- cursors


@pytest.mark.parametrize(("epoch", "seq"), [("e", 0), ("a:b", 12), ("", 3)])
def test_cursors(epoch: str, seq: int) -> None:
    assert read_cursor(cursor_of(epoch, seq)) == (epoch, seq)


@pytest.mark.parametrize("wrong", ["", "e", "e:", "e:-1", "e: 1", "e:1.0", "e:x", "e:١", "e:" + "9" * 5000])
def test_what_is_no_cursor(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor; pass one exactly as it was received"):
        read_cursor(wrong)


async def test_one_can_leave_in_a_callback_of_the_loop(kit: Any) -> None:
    """A connection that is lost is told of by the loop itself, where there is no task."""
    async with kit.engine(idle_s=0.01) as engine:
        session_id, channel = await engine.streams.open(engine.opening(), kit.caller())
        leave = channel.subscribe(kit.Watcher())
        asyncio.get_running_loop().call_soon(leave)
        await kit.until(lambda: engine.streams.count == 0)
        assert session_id
