"""The few words in braces that a reply may borrow from the request.

`{prompt}` `{first_prompt}` `{model}` `{cwd}` `{tool_result}` (the last one) `{prompts}` (how many so far)
`{0}` … `{9}` (groups of the rule's regex). Any other braces stay as they are.
"""

from __future__ import annotations

import re
from typing import Any

from dragoman_sim.conversation import Conversation

_WORD = re.compile(r"\{(prompt|first_prompt|model|cwd|tool_result|prompts|[0-9])\}")


def is_template(value: Any) -> bool:
    """Return whether anything in *value* (strings, lists, dicts) would be filled in."""
    if isinstance(value, str):
        return _WORD.search(value) is not None
    if isinstance(value, dict):
        return any(is_template(item) for item in value.values())
    return isinstance(value, list) and any(is_template(item) for item in value)


def fill(value: Any, conversation: Conversation, match: re.Match[str] | None) -> Any:
    """Return *value* with every word filled in; dicts and lists are copied, others come as they are."""
    if isinstance(value, str):
        return _WORD.sub(lambda word: _look_up(word, conversation, match), value)
    if isinstance(value, dict):
        return {key: fill(item, conversation, match) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, conversation, match) for item in value]
    return value


def _look_up(word: re.Match[str], conversation: Conversation, match: re.Match[str] | None) -> str:
    name = word.group(1)
    if name.isdigit():
        if match is None or int(name) > (match.re.groups or 0):
            return word.group()
        return match.group(int(name)) or ""
    if name == "tool_result":
        return conversation.tool_results[-1] if conversation.tool_results else ""
    if name == "prompts":
        return str(len(conversation.prompts))
    return str(getattr(conversation, name))
