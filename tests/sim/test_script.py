"""Scripts as JSON."""

from __future__ import annotations

import msgspec
import pytest
from dragoman_sim import (
    Cut,
    Gate,
    Limits,
    Malformed,
    Pause,
    Ping,
    Pings,
    Reply,
    Rule,
    Script,
    ScriptError,
    Stall,
    Status,
    StreamError,
    Thinking,
    Tokens,
    ToolUse,
    When,
    load_script,
    read_script,
)  # fmt: skip

FULL = Script(
    rules=[
        Rule(When(text="a", regex="b", nth=2, tool_result=False), "word", times=3),
        Rule(reply=["one", Reply([Thinking("t"), "x", Gate("g"), Pause(1.5), ToolUse("B", {"c": "d"})])]),
        Rule(reply=Reply([Ping()])),
        *[Rule(fault=fault) for fault in ("stall", Status(500), Cut(), Stall(), Pings())],
        *[Rule(fault=fault) for fault in (StreamError(), Malformed())],
        Rule(reply=Reply(["x"], usage=Tokens(1, 2, 3, 4), delay_ms=2)),
    ],
    limits=Limits(requests_per_minute=5),
    keys=["k"],
)  # fmt: skip


def test_everything_that_python_can_say_json_can_say():
    assert read_script(msgspec.json.encode(FULL)) == FULL


def test_the_list_of_rules_alone_is_a_script():
    text = '\n [{"when": {"text": "hi"}, "reply": {"content": ["a", {"type": "gate", "name": "g"}, "b"]}}]'
    assert read_script(text) == Script(rules=[Rule(When(text="hi"), Reply(["a", Gate("g"), "b"]))])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "truncated"),
        ('[{"whn": {}}]', "whn"),
        ('{"rules": [{"when": {"text": 5}}]}', r"\$\.rules\[0\]\.when\.text"),
        ('[{"fault": {"type": "earthquake"}}]', "earthquake"),
    ],
)
def test_a_mistake_is_named_with_its_place(text, words):
    with pytest.raises(ScriptError, match=words):
        read_script(text)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ScriptError, match=r"none\.json cannot be read: No such file"):
        load_script(tmp_path / "none.json")
    (tmp_path / "some.json").write_text("[]")
    assert load_script(str(tmp_path / "some.json")) == Script()
