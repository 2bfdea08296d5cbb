"""The answer to a process that warms up is a whole one of the Messages API, and free."""

from dragomand.gateway.rehearsed import rehearsed
from dragomand.gateway.usage import UsageReader


def test_it_is_whole_and_has_taken_nothing() -> None:
    reader = UsageReader("text/event-stream")
    reader.feed(rehearsed('a "mark"'))
    reader.end()
    assert reader.complete
    assert not reader.failed
    assert reader.usage is not None
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (0, 0)
    assert b'a \\"mark\\"' in rehearsed('a "mark"')
