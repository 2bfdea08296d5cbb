"""Agents of one's own, built step by step (02.14 to 02.16).

    name, reviewer = (
        AgentBuilder("reviewer")
        .with_description("Reviews Python for mistakes")
        .with_system_prompt("You are a careful reviewer.")
        .with_tools(["Read", "Grep"])
        .build()
    )
    claude.query("Review src/", agents={name: reviewer}, agent=name)
"""

from collections.abc import Iterable
from typing import Any, Self

from dragoman_protocol.agent import AgentDefinition, Effort

__all__ = ["AgentBuilder", "AgentDefinition"]

PROMPT = "You are a helpful assistant."
"""The system prompt of an agent that was given none."""


class AgentBuilder:
    """Collects what an agent is; every step returns a new builder, so a half-built one can be shared."""

    def __init__(self, name: str) -> None:
        """Begin an agent called *name*: letters, digits, `-` and `_`."""
        self.name = name
        self._fields: dict[str, Any] = {"description": f"Custom agent: {name}", "prompt": PROMPT}

    def with_description(self, text: str) -> Self:
        """Say when it is to be used; another agent reads this. Default: `Custom agent: NAME`."""
        return self._with(description=text)

    def with_system_prompt(self, text: str) -> Self:
        """Say who it is and how it works. Default: `You are a helpful assistant.`"""
        return self._with(prompt=text)

    def with_tools(self, names: Iterable[str]) -> Self:
        """Name the tools it has. Default: those of the turn."""
        return self._with(tools=list(names))

    def with_examples(self, requests: Iterable[str]) -> Self:
        """Give requests that are meant for it; they become part of the description."""
        return self._with(examples=list(requests))

    def with_model(self, name: str) -> Self:
        """Name its model. Default: that of the turn."""
        return self._with(model=name)

    def with_max_turns(self, rounds: int) -> Self:
        """Bound its rounds of tool use."""
        return self._with(max_turns=rounds)

    def with_effort(self, effort: Effort) -> Self:
        """Say how much work goes into its answers."""
        return self._with(effort=effort)

    def build(self) -> tuple[str, AgentDefinition]:
        """Return the name and the definition, as `with_agent` takes them."""
        return self.name, self.build_definition()

    def build_definition(self) -> AgentDefinition:
        """Return the definition alone."""
        return AgentDefinition(**self._fields)

    def _with(self, **fields: Any) -> Self:
        other = type(self)(self.name)
        other._fields = {**self._fields, **fields}
        return other
