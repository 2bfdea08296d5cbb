"""Families of models, and what is told of waiting."""

import pytest
from dragomand.engine.admission import Told, family_of


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("opus", "opus"),
        ("claude-opus-5-5", "opus"),
        ("us.anthropic.claude-Sonnet-5-5-v1:0", "sonnet"),
        ("claude-haiku-5-5[1m]", "haiku"),
        ("another-model", "another-model"),
        ("x" * 100, "x" * 64),
        ("", "default"),
        (None, "default"),
    ],
)
def test_family(model: str | None, family: str) -> None:
    assert family_of(model) == family


def test_as_an_event() -> None:
    event = Told("rate", "used up", 3, 2.5).event(100.0)
    assert (event.reason, event.text, event.position, event.expected_at) == ("rate", "used up", 3, 102.5)
    assert Told("memory", "short", 0, None).event(100.0).expected_at is None
