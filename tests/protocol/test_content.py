"""What a message is made of."""

import pytest
from dragoman_protocol.content import DocumentBlock, ImageBlock, Prompt, TextBlock, prompt_text


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("hello", "hello"),
        ([], ""),
        ([TextBlock(text="a"), ImageBlock(source={}), TextBlock(text="b"), DocumentBlock(source={})], "a\nb"),
    ],
)
def test_text_of_a_prompt(prompt: Prompt, text: str) -> None:
    assert prompt_text(prompt) == text
