import itertools
from collections.abc import Sequence

from dragoman.answer import GrowingText
from dragoman_protocol.stream import AssistantText, Event, TextDelta, TurnStarted
from hypothesis import given
from hypothesis import strategies as st


def said(events: Sequence[Event]) -> str:
    growing = GrowingText()
    text = "".join(growing.new_text(event) for event in events)
    assert growing.said == bool(text)
    return text


def delta(offset: int, text: str, item: str = "a") -> TextDelta:
    return TextDelta(item_id=item, offset=offset, text=text)


def test_deltas_and_their_item_are_said_once() -> None:
    events = [
        TurnStarted(turn_id="t"),
        delta(0, "Hel"),
        delta(3, "lo"),
        AssistantText(item_id="a", text="Hello"),
    ]
    assert said(events) == "Hello"


def test_items_are_set_apart() -> None:
    events = [delta(0, "A"), AssistantText(item_id="a", text="A"), AssistantText(item_id="b", text="B")]
    assert said(events) == "A\n\nB"


def test_an_empty_item_says_nothing() -> None:
    assert said([AssistantText(item_id="a", text=""), AssistantText(item_id="b", text="B")]) == "B"


@given(
    text=st.text(max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=8),
    left_out=st.sets(st.integers(0, 9)),
    again=st.sets(st.integers(0, 9)),
)
def test_whatever_is_left_out_or_said_twice_the_text_is_exact(
    text: str, cuts: list[int], left_out: set[int], again: set[int]
) -> None:
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [delta(begin, text[begin:end]) for begin, end in itertools.pairwise(at)]
    events: list[Event] = []
    for number, piece in enumerate(pieces):
        if number not in left_out:
            events.append(piece)
        if number in again:
            events.append(piece)
    assert said([*events, AssistantText(item_id="a", text=text)]) == text
    merged = [delta(0, text), AssistantText(item_id="a", text=text)]
    assert said(merged) == text
