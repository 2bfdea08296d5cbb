"""Words in braces."""

from __future__ import annotations

import json
import re

from dragoman_sim.conversation import Conversation
from dragoman_sim.template import fill, is_template

MESSAGES = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a {prompt}"}]},
    {"role": "system", "content": "Primary working directory: /w"},
]
CONVERSATION = Conversation(json.dumps({"model": "m", "max_tokens": 1, "messages": MESSAGES}).encode())


def test_every_word():
    given = "{prompt} {first_prompt} {model} {cwd} {prompts} {tool_result}"
    assert (
        fill(given, CONVERSATION, None) == "first first m /w 1 a {prompt}"
    )  # what is filled in is not read again


def test_other_braces_stay():
    given = 'x = {"a": {b}, {}: f"{promptly} {10} {0}"}'
    assert fill(given, CONVERSATION, None) == given


def test_groups_of_the_regex():
    match = re.search("(f)(z)?irst", "first")
    assert fill("{0} {1} [{2}] {3}", CONVERSATION, match) == "first f [] {3}"


def test_within_values():
    given = {"a": ["{model}", 5, {"b": "{cwd}"}], "{model}": None}
    assert fill(given, CONVERSATION, None) == {"a": ["m", 5, {"b": "/w"}], "{model}": None}
    assert is_template(given)
    assert not is_template({"a": ["model", 5, {"b": "{what}"}]})


def test_no_result_is_empty():
    bare = Conversation(b'{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}')
    assert fill("[{tool_result}]", bare, None) == "[]"
