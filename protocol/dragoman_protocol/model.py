"""Models: one table, from which `model/list` and the presets of the clients come (02.8 to 02.11)."""

import msgspec

from .values import Value


class ModelInfo(Value, frozen=True):  # type: ignore[misc]  # a rule of dataclasses, not of msgspec
    """One model, by the alias that always means the newest of its kind."""

    alias: str
    description: str
    model: str
    """The full name that the bundled Claude Code takes the alias for; the provider may know newer ones."""
    fallback_model: str | None = None
    """The preset's: who answers when this model cannot."""
    max_turns: int | None = None
    """The preset's: most rounds of tool use."""


class ModelListResult(Value):
    """The models that have aliases. `model` of a turn takes an alias or any full name."""

    data: list[ModelInfo] = msgspec.field(default_factory=list)


MODELS: tuple[ModelInfo, ...] = (
    ModelInfo(
        alias="opus",
        description="For complex work: architecture, hard bugs, long tasks.",
        model="claude-opus-5-5",
        fallback_model="sonnet",
        max_turns=10,
    ),
    ModelInfo(
        alias="sonnet",
        description="For everyday work: writing and changing code, explaining.",
        model="claude-sonnet-5-5",
        max_turns=5,
    ),
    ModelInfo(
        alias="haiku",
        description="For quick, cheap answers: classifying, summarising, small edits.",
        model="claude-haiku-5-5",
        max_turns=3,
    ),
    ModelInfo(
        alias="fable",
        description="For the hardest and longest tasks.",
        model="claude-fable-5-2",
    ),
)
"""The table; the order is that of `model/list`."""

BY_ALIAS: dict[str, ModelInfo] = {row.alias: row for row in MODELS}
"""The table by alias."""
