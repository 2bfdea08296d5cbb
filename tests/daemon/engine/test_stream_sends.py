"""Messages into streams: which are the same, and who hears that one was refused."""

from typing import Any

from dragoman_protocol.stream import StreamSendParams
from dragomand.engine.errors import EngineError
from dragomand.engine.stream_sends import Accepted, digest


def test_the_session_and_the_prompt_count() -> None:
    one = StreamSendParams(session_id="s", prompt="p", message_id="1")
    assert digest(one) == digest(StreamSendParams(session_id="s", prompt="p", message_id="2"))
    assert digest(one) != digest(StreamSendParams(session_id="s", prompt="q"))
    assert digest(one) != digest(StreamSendParams(session_id="t", prompt="p"))


class Told:
    turn_id = "t"

    def __init__(self, *, begun: bool) -> None:
        self.begun = begun
        self.events: list[Any] = []
        self.channel = self

    def announce(self, event: Any) -> None:
        self.events.append(event)


def test_a_refusal_is_told_once_to_who_waits_or_to_who_watches() -> None:
    error = EngineError("queue_full")
    early, turn = Accepted(), Told(begun=False)
    early.refuse(error, turn)  # type: ignore[arg-type]
    assert (early.error, turn.events) == (error, [])
    late = Accepted()
    late.event.set()
    late.refuse(error, turn)  # type: ignore[arg-type]
    assert late.error is None
    assert [(event.turn_id, event.status) for event in turn.events] == [("t", "failed")]
    begun = Told(begun=True)
    late.refuse(error, begun)  # type: ignore[arg-type]
    assert begun.events == [], "the turn itself says how it ends"
