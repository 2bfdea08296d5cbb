"""What leaves in which write, and what is refused when nothing leaves."""

from collections.abc import Callable

import pytest
from dragomand.server.outbox import Outbox

MIB = 1024 * 1024


class Wire:
    """A transport that is emptied by hand."""

    peer_pid = None

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.left = 0

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def unsent(self) -> int:
        return sum(map(len, self.writes)) - self.left

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Desk:
    def __init__(self) -> None:
        self.wire = Wire()
        self.scheduled: list[Callable[[], None]] = []
        self.now = 100.0
        self.outbox = Outbox(self.wire, schedule=self.scheduled.append, clock=lambda: self.now)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_what_is_said_in_one_turn_leaves_in_one_write(desk: Desk) -> None:
    for part in (b"a", b"b", b"c"):
        desk.outbox.add(part)
    assert desk.wire.writes == []
    (write,) = desk.scheduled
    write()
    assert desk.wire.writes == [b"abc"]
    desk.outbox.add(b"d")
    assert len(desk.scheduled) == 2
    desk.scheduled[1]()
    assert desk.wire.writes == [b"abc", b"d"]
    desk.outbox.write()
    assert desk.wire.writes == [b"abc", b"d"]


def test_while_gathering_nothing_is_scheduled(desk: Desk) -> None:
    desk.outbox.gathering = True
    desk.outbox.add(b"a")
    desk.outbox.add(b"b")
    assert desk.scheduled == []
    desk.outbox.write()
    assert desk.wire.writes == [b"ab"]


def test_much_is_not_held_back(desk: Desk) -> None:
    desk.outbox.gathering = True
    desk.outbox.add(b"x" * 200_000)
    assert desk.wire.writes == []
    desk.outbox.add(b"x" * 200_000)
    assert [len(data) for data in desk.wire.writes] == [400_000]


def test_unsent_counts_both_sides(desk: Desk) -> None:
    desk.outbox.add(b"abc")
    assert desk.outbox.unsent() == 3
    desk.outbox.write()
    desk.outbox.add(b"de")
    assert desk.outbox.unsent() == 5
    desk.wire.left = 3
    assert desk.outbox.unsent() == 2


def test_events_are_refused_by_bytes(desk: Desk) -> None:
    assert not desk.outbox.refuses(ephemeral=True)
    desk.outbox.add(b"x" * 4 * MIB)
    assert not desk.outbox.refuses(ephemeral=True)
    desk.outbox.add(b"x")
    assert desk.outbox.refuses(ephemeral=True)
    assert not desk.outbox.refuses(ephemeral=False)
    desk.outbox.add(b"x" * (12 * MIB - 1))
    assert not desk.outbox.refuses(ephemeral=False)
    desk.outbox.add(b"x")
    assert desk.outbox.refuses(ephemeral=False)
    desk.wire.left = 13 * MIB
    assert not desk.outbox.refuses(ephemeral=True)


def test_durable_events_are_refused_when_nothing_leaves_for_30_s(desk: Desk) -> None:
    desk.outbox.add(b"abc")
    desk.outbox.write()
    assert not desk.outbox.refuses(ephemeral=False)
    desk.now += 29.9
    assert not desk.outbox.refuses(ephemeral=False)
    desk.now += 0.1
    assert desk.outbox.refuses(ephemeral=False)
    assert not desk.outbox.refuses(ephemeral=True)
    desk.wire.left = 1
    assert not desk.outbox.refuses(ephemeral=False)
    desk.now += 30
    assert desk.outbox.refuses(ephemeral=False)


def test_time_without_anything_to_send_is_no_standstill(desk: Desk) -> None:
    desk.outbox.add(b"abc")
    desk.outbox.write()
    assert not desk.outbox.refuses(ephemeral=False)
    desk.wire.left = 3
    desk.now += 1000
    assert not desk.outbox.refuses(ephemeral=False)
    desk.outbox.add(b"defg")
    desk.outbox.write()
    assert not desk.outbox.refuses(ephemeral=False)
    desk.now += 29
    assert not desk.outbox.refuses(ephemeral=False)
