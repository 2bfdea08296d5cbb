"""Text, tool calls, code and Markdown out of items and events (RV.11)."""

from typing import Any

import pytest
from dragoman.content import (
    CodeBlock,
    ToolCall,
    extract_code_blocks,
    extract_text,
    extract_tool_uses,
    to_event,
    to_markdown,
)
from dragoman_protocol.content import DocumentBlock, ImageBlock, TextBlock
from dragoman_protocol.session import Item
from dragoman_protocol.stream import (
    AssistantText,
    Event,
    TextDelta,
    Thinking,
    ToolResult,
    ToolUse,
    TurnCompleted,
    TurnStarted,
    UserMessage,
)

EVENTS: list[Event] = [
    TurnStarted(turn_id="t"),
    UserMessage(item_id="u", content="Fix it "),
    TextDelta(item_id="a", offset=0, text="I "),
    Thinking(item_id="th", text="Hm.\n\nYes."),
    AssistantText(item_id="a", text="I look.\n"),
    ToolUse(item_id="t1", name="Read", input={"file_path": "/a"}),
    ToolResult(item_id="r1", tool_use_id="t1", content=[{"type": "text", "text": "one\n```\ntwo"}]),
    ToolUse(item_id="t2", name="Bash", input={}),
    ToolResult(item_id="r2", tool_use_id="t2", content="no such file", is_error=True),
    ToolUse(item_id="t3", name="Wait", input={}),
    ToolResult(item_id="r0", tool_use_id="of another turn", content="?"),
    AssistantText(item_id="b", text="Done:\n\n```python\nx = 1\n```"),
    TurnCompleted(turn_id="t", status="completed"),
]


def item(kind: str, **body: Any) -> Item:
    return Item(item_id="i", turn_id="t", seq=1, kind=kind, created_at=1.0, body=body)


def test_text_is_the_answers() -> None:
    assert extract_text(EVENTS) == "I look.\n\n\nDone:\n\n```python\nx = 1\n```"
    assert extract_text([]) == ""


def test_tool_uses_have_their_results() -> None:
    assert extract_tool_uses(EVENTS) == [
        ToolCall("t1", "Read", {"file_path": "/a"}, [{"type": "text", "text": "one\n```\ntwo"}], False),
        ToolCall("t2", "Bash", {}, "no such file", True),
        ToolCall("t3", "Wait", {}),
    ]


def test_stored_items_are_read_like_events() -> None:
    items = [
        item("userMessage", itemId="u", content=[{"type": "text", "text": "Hi"}]),
        item("assistantText", itemId="a", text="Hello"),
        item("toolUse", itemId="t", name="Read", input={"a": 1}),
        item("toolResult", itemId="r", toolUseId="t", content="x"),
        item("ofTheFuture", what=1),
        item("assistantText", text=5),
    ]
    assert to_event(items[1]) == AssistantText(item_id="a", text="Hello")
    assert to_event(items[4]) is None
    assert extract_text(items) == "Hello"
    assert extract_tool_uses(items) == [ToolCall("t", "Read", {"a": 1}, "x")]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("no code, `x` inline", []),
        ("```py title=x\na\n\nb\n```\ntext\n~~~\nc\n~~~", [("py", "a\n\nb"), ("", "c")]),
        ("````md\n```\ninner\n```\n````", [("md", "```\ninner\n```")]),
        ("```\nnever closed", [("", "never closed")]),
        ("```\n~~~\n```", [("", "~~~")]),
        ("  ```js\n  a\n    b\n c\n  ```", [("js", "a\n  b\nc")]),
        ("```not `a` fence```\ntext", []),
        ("```\n``` no end\n```", [("", "``` no end")]),
        ("    ```\n    indented code\n    ```", []),
        ("```\n```", [("", "")]),
    ],
)
def test_code_blocks(text: str, blocks: list[tuple[str, str]]) -> None:
    assert extract_code_blocks(text) == [CodeBlock(*block) for block in blocks]


def test_code_blocks_of_a_language_and_of_a_conversation() -> None:
    assert extract_code_blocks(EVENTS) == [CodeBlock("python", "x = 1")]
    assert extract_code_blocks(EVENTS, "Python") == [CodeBlock("python", "x = 1")]
    assert extract_code_blocks(EVENTS, "js") == []


def test_the_whole_as_markdown() -> None:
    assert to_markdown(EVENTS) == (
        "## User\n\nFix it\n\n## Claude\n\nI look.\n\n"
        '**Read**\n\n```json\n{\n  "file_path": "/a"\n}\n```\n\nResult:\n\n````\none\n```\ntwo\n````\n\n'
        "**Bash**\n\n```json\n{}\n```\n\nError:\n\n```\nno such file\n```\n\n"
        "**Wait**\n\n```json\n{}\n```\n\nResult:\n\n```\n?\n```\n\n"
        "Done:\n\n```python\nx = 1\n```\n"
    )


def test_markdown_without_tools_and_with_thinking() -> None:
    assert to_markdown(EVENTS, tools=False, thinking=True) == (
        "## User\n\nFix it\n\n## Claude\n\n> Hm.\n>\n> Yes.\n\nI look.\n\nDone:\n\n```python\nx = 1\n```\n"
    )


def test_markdown_of_what_is_no_text() -> None:
    prompt = [TextBlock(text="See"), ImageBlock(source={}), DocumentBlock(source={})]
    events: list[Event] = [
        UserMessage(item_id="u", content=prompt),
        ToolResult(item_id="r", tool_use_id="t", content=[{"type": "image"}]),
        ToolResult(item_id="r", tool_use_id="t", content={"a": 1}),
        ToolResult(item_id="r", tool_use_id="t", content=None),
        TurnCompleted(turn_id="t", status="cancelled"),
    ]
    assert to_markdown(events) == (
        "## User\n\nSee\n\n*(image)*\n\n*(document)*\n\n## Claude\n\n"
        'Result:\n\n```\n{\n  "type": "image"\n}\n```\n\nResult:\n\n```\n{\n  "a": 1\n}\n```\n\n'
        "Result:\n\n```\n\n```\n\n*The turn was cancelled.*\n"
    )
