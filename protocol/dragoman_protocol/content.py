"""What a message is made of."""

from typing import Any

from .values import Value


class TextBlock(Value, tag="text", tag_field="type"):
    """Plain text (UTF-8, no lone surrogates)."""

    text: str


class ImageBlock(Value, tag="image", tag_field="type"):
    """An image, passed to Claude as it is. `source` is the Messages API's image source object."""

    source: dict[str, Any]


class DocumentBlock(Value, tag="document", tag_field="type"):
    """A document, passed to Claude as it is. `source` is the Messages API's document source object."""

    source: dict[str, Any]
    title: str | None = None


ContentBlock = TextBlock | ImageBlock | DocumentBlock
"""One part of a user message."""

Prompt = str | list[ContentBlock]
"""A user message: a string is one text block."""


def prompt_text(prompt: Prompt) -> str:
    """Return the text of *prompt*, its text blocks joined by newlines; images and documents are left out."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(block.text for block in prompt if isinstance(block, TextBlock))
