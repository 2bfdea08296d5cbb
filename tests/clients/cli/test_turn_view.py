import io
import sys
from collections.abc import Sequence

import pytest
from dragoman.cli.turn_view import TurnView, summary
from dragoman_protocol.query import QueryRunResult
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import (
    AssistantText,
    Event,
    Retrying,
    TextDelta,
    ToolResult,
    ToolUse,
    TurnStarted,
    Waiting,
)

RESULT = QueryRunResult(session_id="s1", turn_id="t", text="Hello", upstream="claudeCode")


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(
    monkeypatch: pytest.MonkeyPatch,
    events: Sequence[Event],
    *,
    terminal: bool,
    result: QueryRunResult = RESULT,
) -> tuple[str, str]:
    out, err = (Tty(), Tty()) if terminal else (io.StringIO(), io.StringIO())
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("NO_COLOR", "1")
    view = TurnView()
    for event in events:
        view.show(event)
    view.finish(result)
    return out.getvalue(), err.getvalue()


def test_the_answer_goes_to_stdout_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [TextDelta(item_id="i", offset=0, text="Hel\x1b"), AssistantText(item_id="i", text="Hel\x1blo")]
    assert shown(monkeypatch, events, terminal=False) == ("Hel\x1blo\n", "")
    assert shown(monkeypatch, events, terminal=True)[0] == "Hello\n"


def test_an_answer_that_ends_its_line_gets_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, [AssistantText(item_id="i", text="Hello\n")], terminal=False)[0] == "Hello\n"


def test_an_answer_of_which_no_event_came(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, [TurnStarted(turn_id="t")], terminal=False)[0] == "Hello\n"
    silent = QueryRunResult(session_id="s1", turn_id="t", text="", upstream="claudeCode")
    assert shown(monkeypatch, [], terminal=False, result=silent)[0] == ""


@pytest.mark.parametrize(
    ("event", "note"),
    [
        (ToolUse(item_id="i", name="Bash", input={"command": "ls\n -l"}), "● Bash ls -l\n"),
        (ToolUse(item_id="i", name="Edit", input={"file_path": "/a"}), "● Edit /a\n"),
        (ToolUse(item_id="i", name="Odd", input={"a": 1, "b": 2}), "● Odd a=1, b=2\n"),
        (ToolUse(item_id="i", name="Bash", input={"command": "x" * 500}), "x…\n"),
        (ToolResult(item_id="i", tool_use_id="u", content="no\nway", is_error=True), "  ✗ no way\n"),
        (Waiting(reason="all slots are taken", position=2), "Waiting, number 2: all slots are taken\n"),
        (Retrying(attempt=2, category="overloaded"), "Trying again (overloaded, attempt 2)\n"),
    ],
)
def test_what_happens_goes_to_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, event: Event, note: str
) -> None:
    begun = TextDelta(item_id="i", offset=0, text="Hel")
    out, err = shown(monkeypatch, [begun, event], terminal=True)
    assert out == "Hel\n"
    assert note in err
    assert shown(monkeypatch, [begun, event], terminal=False)[1] == ""


def test_what_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = ToolResult(item_id="i", tool_use_id="u", content="fine")
    assert shown(monkeypatch, [quiet], terminal=True)[1] == summary(RESULT) + "\n"


def test_the_summary() -> None:
    assert summary(RESULT) == "claudeCode · 0.0 s · 0 in, 0 out · session s1"
    usage = Usage(input_tokens=12, output_tokens=3)
    paid = QueryRunResult(
        session_id="s1", turn_id="t", text="", upstream="claudeCode", model="haiku", usage=usage,
        cost_usd=0.01234, duration_ms=1500,
    )  # fmt: skip
    assert summary(paid) == "haiku · 1.5 s · 12 in, 3 out · about $0.0123 · session s1"
