"""Agents: who answers, with which instructions, tools and model (plan 02)."""

from typing import Any, Literal

import msgspec

from .values import Params, Value

Effort = Literal["low", "medium", "high", "xhigh", "max"]
"""How much work goes into an answer."""

PermissionMode = Literal["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions"]
"""Claude Code's permission modes. `bypassPermissions` needs the `admin` scope."""

AgentSource = Literal["preset", "user"]
"""`preset`: shipped with the daemon; `user`: a file in the user's configuration folder."""


class AgentDefinition(Params):
    """An agent. The names are those of Claude Code's own definitions."""

    description: str
    """When it is to be used; another agent reads this to decide whom to ask."""
    prompt: str
    """Its system prompt."""
    tools: list[str] | None = None
    """The tools it has, of those that the turn has; absent: all of them. Without the scope `tools`: none."""
    disallowed_tools: list[str] | None = None
    model: str | None = None
    """An alias, a full name, or `inherit`; a turn's own `model` wins."""
    skills: list[str] | None = None
    max_turns: int | None = None
    """Most rounds of tool use; a turn's own `maxTurns` wins."""
    effort: Effort | None = None
    permission_mode: PermissionMode | None = None
    """For when it answers itself, not for another one; a turn's own `permissionMode` wins."""
    background: bool | None = None
    """As a sub-agent it works beside the one that asked."""
    examples: list[str] | None = None
    """Requests that are meant for it; they become part of the description."""


class AgentInfo(Value):
    """One agent of the library."""

    name: str
    description: str
    source: AgentSource
    group: str | None = None
    """Presets come in groups: `security`, `code_quality`, `testing`, `documentation`, …"""
    model: str | None = None
    tools: list[str] | None = None
    path: str | None = None
    """The file of a `user` agent."""


class AgentProblem(Value):
    """A file in the user's folder that is no agent."""

    path: str
    reason: str


class AgentListParams(Params):
    """Which agents to list."""

    group: str | None = None


class AgentListResult(Value):
    """The library: presets, then the user's own, each by name; a user's agent hides a preset of its name."""

    data: list[AgentInfo]
    problems: list[AgentProblem] = msgspec.field(default_factory=list)
    """Files that could not be used, and why."""
    folder: str | None = None
    """Where the user's own agents are looked for."""


class AgentGetParams(Params):
    """Which agent to look at."""

    name: str


class AgentGetResult(Value):
    """One agent whole."""

    agent: AgentInfo
    definition: AgentDefinition


def described(definition: AgentDefinition) -> str:
    """Return the description with the examples, as another agent is to read it."""
    if not definition.examples:
        return definition.description
    lines = "\n".join(f"- {example}" for example in definition.examples)
    return f"{definition.description}\n\nExamples:\n{lines}"


def to_claude_code(definition: AgentDefinition) -> dict[str, Any]:
    """Return *definition* in the form that Claude Code takes: its own names, nothing that is not set."""
    fields: dict[str, Any] = msgspec.to_builtins(definition)
    fields.pop("examples", None)
    return {**fields, "description": described(definition)}
