"""Which waiting request begins next, also against a naive model."""

from typing import Any

from dragoman_protocol.peer import Request
from dragoman_protocol.wire import NO_RAW
from dragomand.server.lanes import Incoming, Lanes
from hypothesis import given
from hypothesis import strategies as st


def waiting(id: int, session: str | None = None) -> Incoming:
    return Incoming(Request(id, "m", NO_RAW), None, session, 0.0)  # type: ignore[arg-type]


def ids(lanes: Lanes) -> list[Any]:
    taken = []
    while (incoming := lanes.next()) is not None:
        taken.append(incoming.request.id)
    return taken


def test_without_sessions_by_arrival() -> None:
    lanes = Lanes()
    assert lanes.is_open(None)
    for n in range(5):
        lanes.put(waiting(n))
    assert not lanes.is_open(None)
    assert ids(lanes) == [0, 1, 2, 3, 4]
    assert lanes.next() is None
    assert lanes.is_open(None)


def test_a_session_that_is_taken_waits() -> None:
    lanes = Lanes()
    lanes.take("s")
    assert not lanes.is_open("s")
    assert lanes.is_open("t")
    lanes.put(waiting(1, "s"))
    lanes.put(waiting(2, "s"))
    lanes.put(waiting(3))
    assert ids(lanes) == [3]
    lanes.ended("s")
    assert ids(lanes) == [1]
    lanes.ended("s")
    assert ids(lanes) == [2]
    lanes.ended("s")
    assert lanes.is_open("s")


def test_taking_out_the_head_of_a_session_moves_the_next_up() -> None:
    lanes = Lanes()
    head, middle, last = waiting(1, "s"), waiting(2, "s"), waiting(3, "s")
    for incoming in (head, middle, last):
        lanes.put(incoming)
    lanes.remove(middle)
    lanes.remove(head)
    assert ids(lanes) == [3]
    lanes.ended("s")
    assert lanes.is_open("s")


STEP = st.tuples(st.sampled_from(["come", "begin", "end", "remove"]), st.integers(0, 9))


@given(st.lists(STEP, max_size=80))
def test_like_a_list_that_is_searched(steps: list[tuple[str, int]]) -> None:
    """The model keeps one list of what may begin, and one list for each session of what is behind."""
    lanes = Lanes()
    all_: dict[int, Incoming] = {}
    line: list[int] = []
    running: list[int] = []
    behind: dict[str, list[int]] = {}
    sessions: dict[int, str | None] = {}

    def over(session: str | None) -> None:
        if session is not None:
            if behind[session]:
                line.append(behind[session].pop(0))
            else:
                del behind[session]

    for n, (what, choice) in enumerate(steps):
        if what == "come":
            session = None if choice > 6 else "abc"[choice % 3]
            sessions[n] = session
            all_[n] = waiting(n, session)
            assert lanes.is_open(session) == (not line and session not in behind)
            lanes.put(all_[n])
            if session is not None and session in behind:
                behind[session].append(n)
            else:
                line.append(n)
                if session is not None:
                    behind[session] = []
        elif what == "begin":
            begun = lanes.next()
            assert (begun.request.id if begun else None) == (line[0] if line else None)
            if begun:
                running.append(line.pop(0))
        elif what == "end" and running:
            ended = running.pop(choice % len(running))
            lanes.ended(sessions[ended])
            over(sessions[ended])
        elif what == "remove":
            waits = sorted([*line, *(id for ids in behind.values() for id in ids)])
            if waits:
                gone = waits[choice % len(waits)]
                lanes.remove(all_[gone])
                session = sessions[gone]
                if gone in line:
                    line.remove(gone)
                    over(session)
                else:
                    assert session is not None
                    behind[session].remove(gone)
    assert ids(lanes) == line
