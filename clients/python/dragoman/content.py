"""What a conversation contains: its text, tool calls and code, and the whole as Markdown (RV.11).

Everything takes stored items (`session_messages(…).data`) or events (`stream`, `events`), mixed as they come;
what is not final (deltas, news) is passed over.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from dragoman_protocol.content import Prompt, TextBlock
from dragoman_protocol.session import Item
from dragoman_protocol.stream import (
    AssistantText,
    Event,
    Thinking,
    ToolResult,
    ToolUse,
    TurnCompleted,
    UserMessage,
)

Contents = Iterable[Item | Event]
"""Items or events, in order."""

_FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})[ \t]*([^\n]*)$")


class ToolCall(NamedTuple):
    """A tool that was called, and what it answered."""

    id: str
    name: str
    input: dict[str, Any]
    result: Any = None
    """What it answered; None if it has not."""
    is_error: bool = False


class CodeBlock(NamedTuple):
    """A fenced block of a Markdown text."""

    language: str
    """The first word after the fence; empty if there is none."""
    code: str


def extract_text(contents: Contents) -> str:
    """Return the answer's text, its blocks joined by blank lines; prompts and thinking are left out."""
    return "\n\n".join(event.text for event in _events(contents) if isinstance(event, AssistantText))


def extract_tool_uses(contents: Contents) -> list[ToolCall]:
    """Return the tool calls in order, each with its result where there is one."""
    calls: dict[str, ToolCall] = {}
    for event in _events(contents):
        if isinstance(event, ToolUse):
            calls[event.item_id] = ToolCall(event.item_id, event.name, event.input)
        elif isinstance(event, ToolResult) and event.tool_use_id in calls:
            call = calls[event.tool_use_id]
            calls[event.tool_use_id] = call._replace(result=event.content, is_error=event.is_error)
    return list(calls.values())


def extract_code_blocks(contents: str | Contents, language: str | None = None) -> list[CodeBlock]:
    """Return the fenced code blocks of a text, or of the answers in it; with *language* only those.

    As CommonMark has it: a fence ends with one of the same kind that is as long or longer, or with the text.
    """
    text = contents if isinstance(contents, str) else extract_text(contents)
    found: list[CodeBlock] = []
    lines: list[str] = []
    opened: tuple[int, str, str] | None = None
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if opened is None:
            # A fence of backticks has none in its info: that would be code within a line.
            if fence and not (fence[2][0] == "`" and "`" in fence[3]):
                opened, lines = (len(fence[1]), fence[2], fence[3].strip()), []
        elif fence and not fence[3].strip() and fence[2].startswith(opened[1]):
            found.append(_block(opened[2], lines))
            opened = None
        else:
            lines.append(_dedented(line, opened[0]))
    if opened is not None:
        found.append(_block(opened[2], lines))
    return [block for block in found if language is None or block.language.lower() == language.lower()]


def to_markdown(contents: Contents, *, tools: bool = True, thinking: bool = False) -> str:
    """Return the conversation as a Markdown document: questions as headings' sections, answers as they are.

    *tools*: with tool calls and results; *thinking*: with what the model thought. Ends with one newline.
    """
    parts: list[str] = []
    for event in _events(contents):
        match event:
            case UserMessage():
                parts += ["## User", _prompt(event.content), "## Claude"]
            case AssistantText():
                parts.append(event.text.strip())
            case Thinking() if thinking:
                parts.append("\n".join(f"> {line}".rstrip() for line in event.text.strip().splitlines()))
            case ToolUse() if tools:
                parts += [f"**{event.name}**", _fenced(_pretty(event.input), "json")]
            case ToolResult() if tools:
                said = "Error" if event.is_error else "Result"
                parts += [f"{said}:", _fenced(_result(event.content))]
            case TurnCompleted() if event.status != "completed":
                parts.append(f"*The turn was {event.status}.*")
    return "\n\n".join(part for part in parts if part) + "\n"


def to_event(item: Item) -> Event | None:
    """Return a stored item as the event that it was; None for a kind that this version does not know."""
    try:
        event: Event = msgspec.convert({**item.body, "type": item.kind}, Event)
    except msgspec.ValidationError:
        return None
    return event


def _events(contents: Contents) -> Iterable[Event]:
    for each in contents:
        event = to_event(each) if isinstance(each, Item) else each
        if event is not None:
            yield event


def _block(info: str, lines: list[str]) -> CodeBlock:
    return CodeBlock(info.split()[0] if info else "", "\n".join(lines))


def _dedented(line: str, most: int) -> str:
    return line[min(most, len(line) - len(line.lstrip(" "))) :]


def _prompt(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt.strip()
    return "\n\n".join(block.text.strip() if isinstance(block, TextBlock) else f"*({_kind(block)})*"
                       for block in prompt)  # fmt: skip


def _kind(block: object) -> str:
    return type(block).__name__.removesuffix("Block").lower()


def _result(content: Any) -> str:
    """The text of a tool's result: as it is, of text blocks their text, of anything else its JSON."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str)
                         else _pretty(part) for part in content)  # fmt: skip
    return "" if content is None else _pretty(content)


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _fenced(text: str, language: str = "") -> str:
    """Put *text* between fences longer than any in it, so that it cannot end its own block."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
