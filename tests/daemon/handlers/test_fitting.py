import msgspec
from dragoman_protocol.codec import MAX_MESSAGE
from dragoman_protocol.stream import Raw, StreamEventParams, ToolResult
from dragomand.engine.channel import Published
from dragomand.handlers.fitting import fitting


def result(text: str) -> Published:
    event = ToolResult(item_id="i", tool_use_id="u", content=text)
    return Published(StreamEventParams(session_id="s", event=event, seq=7, cursor="e:7"))


def test_what_fits_is_sent_as_it_is() -> None:
    event = result("x")
    assert fitting(event) is event.raw
    assert fitting(event, len(bytes(event.raw))) is event.raw


def test_what_does_not_fit_leaves_its_number_and_a_note() -> None:
    event = result("x" * MAX_MESSAGE)
    size = len(bytes(event.raw))
    told = msgspec.json.decode(fitting(event), type=StreamEventParams)
    assert (told.session_id, told.seq, told.cursor) == ("s", 7, "e:7")
    assert isinstance(told.event, Raw)
    note = msgspec.json.decode(told.event.frame)
    assert note == {"type": "omitted", "kind": "toolResult", "bytes": size}
    assert size > MAX_MESSAGE
