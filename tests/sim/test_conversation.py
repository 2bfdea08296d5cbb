"""What a request says of its conversation: shapes as the real CLI sends them."""

from __future__ import annotations

import json

import pytest
from dragoman_sim.conversation import Conversation, InvalidRequestError, tokens_of


def text(words):
    return {"type": "text", "text": words}


def use(tool_id, name="Bash"):
    return {"type": "tool_use", "id": tool_id, "name": name, "input": {}}


def result(tool_id, content="done"):
    return {"type": "tool_result", "tool_use_id": tool_id, "content": content}


FIRST = [
    {"role": "user", "content": [text("<system-reminder>\nYou are\n</system-reminder>"), text("fix it")]},
    {
        "role": "system",
        "content": [text("# Environment\n - Primary working directory: /home/me/a project\n - x")],
    },
]
ONE_ROUND = [
    *FIRST,
    {"role": "assistant", "content": [text("Looking."), use("t1"), use("t2")]},
    {
        "role": "user",
        "content": [result("t1", [text("a"), text("b")]), result("t2", "c"), text("<system-reminder>x")],
    },
]
TWO_ROUNDS = [
    *ONE_ROUND,
    {"role": "assistant", "content": [use("t3")]},
    {"role": "assistant", "content": [use("t4")]},
    {"role": "user", "content": [result("t3", None), result("t4", "d")]},
    {"role": "system", "content": "reminded"},
]
NEXT = [*TWO_ROUNDS, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "and now"}]


def conversation(messages, **more):
    return Conversation(json.dumps({"model": "m", "max_tokens": 9, "messages": messages, **more}).encode())


def test_a_prompt_is_what_the_person_wrote():
    assert conversation(FIRST).prompt == "fix it"
    assert conversation(TWO_ROUNDS).prompt == "fix it"
    assert conversation(NEXT).prompts == ["fix it", "and now"]
    assert conversation(NEXT).first_prompt == "fix it"
    assert (conversation(FIRST[1:]).prompt, conversation(FIRST[1:]).first_prompt) == ("", "")


def test_an_interrupt_is_no_prompt():
    stopped = [
        *FIRST,
        {"role": "assistant", "content": "I beg"},
        {"role": "user", "content": [text("[Request interrupted by user]"), text("go on")]},
    ]
    assert conversation(stopped).prompts == ["fix it", "go on"]


def test_rounds_are_counted_from_the_last_prompt():
    assert [conversation(messages).round for messages in (FIRST, ONE_ROUND, TWO_ROUNDS, NEXT)] == [0, 1, 2, 0]


def test_rounds_without_a_prompt():
    assert conversation([*FIRST[1:], *ONE_ROUND[2:]]).round == 1


def test_only_the_latest_results_count():
    assert conversation(FIRST).tool_results == []
    assert conversation(ONE_ROUND).tool_results == ["a\nb", "c"]
    assert conversation(TWO_ROUNDS).tool_results == ["", "d"]
    assert conversation(NEXT).tool_results == []


def test_system_tools_and_folder():
    one = conversation(FIRST, system=[text("You are a Claude agent")], tools=[{"name": "Bash", "x": 1}, {}])
    assert "Claude agent" in one.system
    assert "Environment" in one.system
    assert one.cwd == "/home/me/a project"
    assert one.tools == {"Bash", ""}
    bare = conversation([{"role": "user", "content": "x"}], system="plain", stream=True)
    assert (bare.system, bare.cwd, bare.tools, bare.stream) == ("plain", "", frozenset(), True)


@pytest.mark.parametrize("messages", [FIRST, ONE_ROUND, TWO_ROUNDS, NEXT])
def test_tools_in_order_are_taken(messages):
    conversation(messages).check_tools()


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([*ONE_ROUND[:3], {"role": "user", "content": [result("t1")]}], "without `tool_result` blocks.*: t2"),
        (
            [*ONE_ROUND[:3], {"role": "user", "content": "never mind"}],
            "without `tool_result` blocks.*: t1, t2",
        ),
        ([{"role": "user", "content": [result("t9")]}], r"messages\.0: unexpected `tool_use_id`.*: t9"),
    ],
)
def test_tools_out_of_order_are_refused(messages, words):
    with pytest.raises(InvalidRequestError, match=words):
        conversation(messages).check_tools()


def test_tokens_are_estimated():
    assert [tokens_of(words) for words in ("", "a", "four", "fiver")] == [0, 1, 1, 2]
    assert conversation([{"role": "user", "content": "x" * 4000}]).input_tokens > 1000
