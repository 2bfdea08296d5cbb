"""What an answer's stream becomes."""

from itertools import pairwise
from typing import Any

import msgspec
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import AssistantText, TextDelta, Thinking, ThinkingDelta
from dragomand.upstream.messages_api.answer import Answer
from hypothesis import given
from hypothesis import strategies as st

START = {
    "type": "message_start",
    "message": {"id": "msg", "model": "claude-sonnet-5-5", "usage": {"input_tokens": 10, "output_tokens": 1}},
}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: x\ndata: %b\n\n" % msgspec.json.encode(event) for event in events)


def begin(index: int = 0, kind: str = "text") -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, kind: ""}}


def delta(text: str, index: int = 0, kind: str = "text") -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": f"{kind}_delta", kind: text}}


def stop(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


END = [
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {
            "output_tokens": 9,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_1h_input_tokens": 50},
        },
    },
    {"type": "message_stop"},
]


def an_answer(watched: list[bool]) -> tuple[Answer, list[Any]]:
    events: list[Any] = []
    return Answer(events.append, lambda: watched[0]), events


def test_one_chunk_is_one_delta() -> None:
    answer, events = an_answer([True])
    answer.feed(sse(START, begin(), delta("a"), delta("b"), delta("ü")))
    assert events == [TextDelta(item_id="msg.0", offset=0, text="abü")]
    answer.feed(sse(delta("c")))
    answer.feed(sse(stop(), *END))
    assert events[1:] == [TextDelta(item_id="msg.0", offset=3, text="c")]
    assert answer.held == [AssistantText(item_id="msg.0", text="abüc")]
    assert (answer.complete, answer.text, answer.stop_reason) == (True, "abüc", "end_turn")
    assert answer.usage == Usage(
        input_tokens=10, output_tokens=9, cache_read_tokens=100, cache_creation_tokens=50
    )
    assert answer.cost_usd == (10 * 2 + 9 * 10 + 100 * 0.1 + 50 * 4) / 1e6


def test_nobody_watches_no_delta_and_a_late_watcher_misses_nothing() -> None:
    watched = [False]
    answer, events = an_answer(watched)
    answer.feed(sse(START, begin(), delta("one ")))
    assert events == []
    watched[0] = True
    answer.feed(sse(delta("two ")))
    watched[0] = False
    answer.feed(sse(delta("three ")))
    watched[0] = True
    answer.feed(sse(delta("four"), stop()))
    assert events == [
        TextDelta(item_id="msg.0", offset=0, text="one two "),
        TextDelta(item_id="msg.0", offset=8, text="three four"),
        AssistantText(item_id="msg.0", text="one two three four"),
    ]


def test_thinking_then_text() -> None:
    answer, events = an_answer([True])
    answer.feed(
        sse(
            START,
            begin(0, "thinking"),
            delta("hm", 0, "thinking"),
            stop(0),
            begin(1),
            delta("so", 1),
            stop(1),
        )
    )
    assert events == [
        ThinkingDelta(item_id="msg.0", offset=0, text="hm"),
        Thinking(item_id="msg.0", text="hm"),
        TextDelta(item_id="msg.1", offset=0, text="so"),
        AssistantText(item_id="msg.1", text="so"),
    ]
    assert answer.text == "so"


def test_thinking_that_is_left_out_is_no_item() -> None:
    answer, events = an_answer([True])
    answer.feed(sse(START, begin(0, "thinking"), stop(0), stop(7)))
    assert events == []


def test_pings_are_no_sign_of_life() -> None:
    answer, _ = an_answer([True])
    assert answer.feed(sse(START)) is True
    assert answer.feed(sse({"type": "ping"})) is False
    assert answer.feed(b"") is False
    assert answer.feed(sse({"type": "of_another_version"})) is True


def test_before_the_api_has_begun_the_cost_is_unknown() -> None:
    answer, _ = an_answer([True])
    assert (answer.begun, answer.cost_usd) == (False, None)
    answer.feed(sse({**START, "message": {"id": "m", "model": "claude-of-tomorrow"}}))
    assert (answer.begun, answer.cost_usd) == (True, None)


def test_a_block_that_was_never_begun() -> None:
    answer, _ = an_answer([True])
    answer.feed(sse(START, delta("x", 3)))
    assert answer.failure is not None
    assert answer.failure.category == "protocol"
    assert "block 3" in answer.failure.message


PIECES = st.text(min_size=1, max_size=8).filter(
    lambda text: not any("\ud800" <= char <= "\udfff" for char in text)
)


@given(
    pieces=st.lists(PIECES, max_size=12),
    size=st.integers(1, 400),
    padded=st.booleans(),
    watched=st.booleans(),
)
def test_any_text_in_any_chunks_is_read_as_it_was_written(
    pieces: list[str], size: int, padded: bool, watched: bool
) -> None:
    written = b"".join(
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":%b}%b}\n\n' % (msgspec.json.encode(piece), b"  " * padded)
        for piece in pieces
    )
    stream = sse(START, begin()) + written + sse(stop(), *END)
    answer, events = an_answer([watched])
    for at in range(0, len(stream), size):
        answer.feed(stream[at : at + size])
    assert answer.complete
    assert answer.text == "".join(pieces)
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert "".join(delta.text for delta in deltas) == (answer.text if watched else "")
    assert [delta.offset for delta in deltas] == [
        sum(len(delta.text) for delta in deltas[:at]) for at in range(len(deltas))
    ]


def test_only_the_items_of_the_last_chunk_are_held_back() -> None:
    answer, events = an_answer([False])
    answer.feed(sse(START, begin(0), delta("a", 0), stop(0)))
    assert events == [AssistantText(item_id="msg.0", text="a")]
    answer.feed(sse(begin(1), delta("b", 1), stop(1), begin(2), delta("c", 2), stop(2), *END))
    assert events[1:] == [AssistantText(item_id="msg.1", text="b")]
    assert answer.held == [AssistantText(item_id="msg.2", text="c")]


def test_pieces_of_two_blocks_side_by_side() -> None:
    answer, events = an_answer([False])
    piece = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
        b'"delta":{"type":"text_delta","text":"%b"}}\n\n'
    )
    answer.feed(sse(START, begin(0), begin(1)) + piece % (0, b"a") + piece % (1, b"b") + piece % (0, b"c"))
    answer.feed(sse(stop(0), stop(1)))
    assert [event.text for event in events] == ["ac", "b"]


def test_what_was_said_when_it_broke_off() -> None:
    answer, events = an_answer([False])
    answer.feed(sse(START, begin(), delta("one"), stop(), begin(1), delta("tw", 1)))
    assert (answer.text, answer.said) == ("one", "tw")
    answer.feed(sse(delta("o", 1)) + b"data: {broken\n\n")
    assert (answer.failure.category, answer.said) == ("protocol", "two")
    assert [type(event) for event in events] == [AssistantText], "nobody watched the rest"


def test_what_a_watcher_was_told_stays_when_the_stream_cannot_be_read() -> None:
    answer, events = an_answer([True])
    assert answer.feed(sse(START, begin(), delta("one")) + b"data: {broken\n\n")
    assert events == [TextDelta(item_id="msg.0", offset=0, text="one")]
    assert answer.failure is not None


def as_the_api_writes(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))


@given(st.lists(st.text(max_size=8), max_size=8), st.lists(st.integers(0, 900), max_size=6), st.booleans())
def test_piece_by_piece_is_the_same_as_at_once(texts: list[str], cuts: list[int], watched: bool) -> None:
    """The quick way of a chunk that is one piece, the way of many in one, and the decoder's agree."""
    written = [as_the_api_writes(event) for event in (START, begin(), *map(delta, texts), stop(), *END)]
    whole = b"".join(written)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    ways = [written, [whole], [whole[at:to] for at, to in pairwise(edges)]]
    for way in ways:
        answer, events = an_answer([watched])
        for chunk in way:
            answer.feed(chunk)
        assert (answer.complete, answer.failure, answer.text) == (True, None, "".join(texts))
        deltas = [event for event in events if isinstance(event, TextDelta)]
        assert "".join(event.text for event in deltas) == ("".join(texts) if watched else "")
        assert [event.offset for event in deltas] == [
            sum(len(before.text) for before in deltas[:at]) for at in range(len(deltas))
        ]


def test_a_piece_lets_out_what_was_held() -> None:
    answer, events = an_answer([True])
    answer.feed(sse(START, begin(0), delta("a", 0), begin(1)))
    answer.feed(sse(stop(0)) + b"event: y\n\n")
    answer.held.append(AssistantText(item_id="msg.9", text="held"))
    assert answer.feed(as_the_api_writes(delta("b", 1)))
    assert [event.text for event in events] == ["a", "a", "held", "b"]


def test_a_piece_of_a_block_that_was_never_begun_is_not_understood() -> None:
    answer, _ = an_answer([True])
    answer.feed(sse(START))
    answer.feed(as_the_api_writes(delta("a")))
    assert answer.failure is not None
    assert answer.failure.category == "protocol"
