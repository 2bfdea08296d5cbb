"""Single events: known, of another kind, mended, unreadable."""

import pytest
from dragomand.upstream.messages_api.wire import BlockDelta, MessageStop, Ping, UnreadableError, decode


def test_known_events() -> None:
    assert isinstance(decode(b'{"type":"ping"}'), Ping)
    assert isinstance(decode(b'{"type":"message_stop","more":1}'), MessageStop)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb"a\ud83d\ude00b", "a😀b"),
        (rb"a\ud83db", "a\ufffdb"),
        (rb"a\\ud83db", "a\\ud83db"),
        (rb"\ude00\ud83d\ude00", "\ufffd😀"),
        (b"a\xffb", "a\ufffdb"),
    ],
)
def test_half_a_character_becomes_a_replacement(text: bytes, read: str) -> None:
    event = decode(
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}' % text
    )
    assert isinstance(event, BlockDelta)
    assert event.delta.text == read


def test_an_event_of_another_kind_is_passed_over() -> None:
    assert decode(b'{"type":"model_sang","song":[1]}') is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"type":5}',
        b'{"no":1}',
        b'{"type":"content_block_start","index":"x"}',
        b"[" * 9999,
    ],
)
def test_what_cannot_be_read(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        decode(data)
