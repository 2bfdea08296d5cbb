"""Definitions of agents: strict on the wire, and in the form that Claude Code takes."""

import msgspec
import pytest
from dragoman_protocol.agent import AgentDefinition, described, to_claude_code


def test_only_what_is_set_is_passed_on() -> None:
    least = AgentDefinition(description="d", prompt="p")
    assert to_claude_code(least) == {"description": "d", "prompt": "p"}
    more = AgentDefinition(
        description="d", prompt="p", tools=[], disallowed_tools=["Write"], max_turns=2, permission_mode="plan"
    )
    assert to_claude_code(more) == {
        "description": "d",
        "prompt": "p",
        "tools": [],
        "disallowedTools": ["Write"],
        "maxTurns": 2,
        "permissionMode": "plan",
    }


def test_examples_become_part_of_the_description() -> None:
    """02.14: Claude Code has no field for them; whoever asks reads the description."""
    agent = AgentDefinition(description="Reviews", prompt="p", examples=["Look at a.py", "Is this safe?"])
    assert described(agent) == "Reviews\n\nExamples:\n- Look at a.py\n- Is this safe?"
    assert to_claude_code(agent) == {"description": described(agent), "prompt": "p"}


@pytest.mark.parametrize("text", [b'{"description":"d"}', b'{"description":"d","prompt":"p","promt":"q"}'])
def test_a_definition_is_strict(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=AgentDefinition)
