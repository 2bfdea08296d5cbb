"""What a Messages API request says, as far as a script asks about it."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import msgspec

_ADDED = ("<system-reminder>", "[Request interrupted by user")
_CWD = re.compile(r"(?:Primary working directory|Working directory|cwd): ([^\n]+)")
_CHARS_PER_TOKEN = 4


class InvalidRequestError(ValueError):
    """A request is not one of the Messages API; the text is what the API says."""


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


class _Tool(msgspec.Struct):
    name: str = ""


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] = ""
    tools: list[_Tool] = []
    stream: bool = False


_decode = msgspec.json.Decoder(_Body).decode


class Conversation:
    """One request to `/v1/messages` or `count_tokens`.

    What Claude Code adds to a person's words (blocks that begin with `<system-reminder>`, its word on an
    interrupt, messages of role `system`) is no part of a prompt. Everything but `model` and `stream` is
    worked out when first asked for.
    """

    def __init__(self, body: bytes, *, needs_max_tokens: bool = True) -> None:
        """Read *body*. Raises `InvalidRequestError` for what the API would refuse with 400."""
        try:
            self._body = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
            raise InvalidRequestError(str(wrong)) from None
        if not self._body.messages:
            raise InvalidRequestError("messages: at least one message is required")
        if needs_max_tokens and (self._body.max_tokens or 0) < 1:
            raise InvalidRequestError("max_tokens: Field required, at least 1")
        self.model = self._body.model
        self.stream = self._body.stream
        self.size = len(body)

    @cached_property
    def prompts(self) -> list[str]:
        """Each text that a person wrote, oldest first."""
        return [text for message in self._body.messages if (text := _persons_text(message))]

    @property
    def prompt(self) -> str:
        """The last text that a person wrote; empty if there is none."""
        return self.prompts[-1] if self.prompts else ""

    @property
    def first_prompt(self) -> str:
        """The first text that a person wrote; empty if there is none."""
        return self.prompts[0] if self.prompts else ""

    @cached_property
    def tool_results(self) -> list[str]:
        """The texts of the tool results that this request brings: those after the last assistant message."""
        results: list[str] = []
        for message in reversed(self._body.messages):
            if message.role == "assistant":
                break
            if isinstance(message.content, list):
                results[:0] = [
                    _text_of(block.get("content"))
                    for block in message.content
                    if block.get("type") == "tool_result"
                ]
        return results

    @cached_property
    def round(self) -> int:
        """How often the model asked for tools since the last prompt: 0 for a prompt itself."""
        rounds = 0
        after = ""
        for message in reversed(self._body.messages):
            if message.role == "user" and _persons_text(message):
                break
            if message.role == "assistant" and after != "assistant":
                rounds += bool(_ids(message, "tool_use", "id"))
            after = message.role
        return rounds

    def check_tools(self) -> None:
        """Raise `InvalidRequestError` where the use of a tool and its result do not stand side by side."""
        asked: set[str] = set()
        for at, message in enumerate(self._body.messages):
            if message.role == "assistant":
                asked |= _ids(message, "tool_use", "id")
            elif message.role == "user":
                answered = _ids(message, "tool_result", "tool_use_id")
                if asked - answered:
                    raise InvalidRequestError(
                        f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately "
                        f"after: {', '.join(sorted(asked - answered))}."
                    )
                if answered - asked:
                    raise InvalidRequestError(
                        f"messages.{at}: unexpected `tool_use_id` found in `tool_result` blocks: "
                        f"{', '.join(sorted(answered - asked))}."
                    )
                asked = set()

    @cached_property
    def system(self) -> str:
        """The system prompt, the system messages within the conversation included."""
        texts = [_text_of(self._body.system)]
        texts += [_text_of(message.content) for message in self._body.messages if message.role == "system"]
        return "\n".join(texts)

    @cached_property
    def tools(self) -> frozenset[str]:
        """The names of the tools that are offered."""
        return frozenset(tool.name for tool in self._body.tools)

    @cached_property
    def cwd(self) -> str:
        """The working directory that Claude Code names; empty if it names none."""
        found = _CWD.search(self.system)
        return found.group(1).strip() if found else ""

    @property
    def input_tokens(self) -> int:
        """An estimate: four bytes of the request a token."""
        return max(1, self.size // _CHARS_PER_TOKEN)


def tokens_of(text: str) -> int:
    """Return the estimated tokens of *text*: four characters a token, at least one unless it is empty."""
    return -(-len(text) // _CHARS_PER_TOKEN)


def _persons_text(message: _Message) -> str:
    if message.role != "user":
        return ""
    if isinstance(message.content, str):
        return message.content
    texts = (block.get("text", "") for block in message.content if block.get("type") == "text")
    return "\n".join(text for text in texts if not text.lstrip().startswith(_ADDED))


def _ids(message: _Message, kind: str, name: str) -> set[str]:
    if isinstance(message.content, str):
        return set()
    return {str(block.get(name)) for block in message.content if block.get("type") == kind}


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
