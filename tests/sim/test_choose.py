"""Which rule answers."""

from __future__ import annotations

import pytest
from dragoman_sim import Reply, Rule, Script, ScriptError, Simulator, ToolUse, When
from dragoman_sim.choose import Chooser


async def told(http, rules, *prompts, **more):
    async with Simulator(rules) as sim:
        return [(await http.message(sim.url, prompt, **more)).text() for prompt in prompts]


async def test_the_first_that_fits(http):
    rules = [Rule(When(text="b"), "B"), Rule(When(text="a"), "A")]
    assert await told(http, rules, "a", "ab", "c") == ["A", "B", "You said: c"]


async def test_times_and_nth(http):
    rules = [Rule(When(text="x", nth=2), "second"), Rule(When(text="x"), "twice", times=2)]
    assert await told(http, rules, "x", "x", "y", "x", "x") == [
        "twice", "second", "You said: y", "twice", "You said: x",
    ]  # fmt: skip


async def test_a_regex_lends_its_groups(http):
    rules = [Rule(When(regex=r"^name is (\w+)$"), "Hello {1}.")]
    assert await told(http, rules, "name is Ada", "my name is Ada") == [
        "Hello Ada.",
        "You said: my name is Ada",
    ]


CONTINUED = [
    {"role": "user", "content": "the first"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "the second"},
]


@pytest.mark.parametrize(
    ("when", "fits"),
    [
        (When(first_text="first"), True),
        (When(first_text="second"), False),
        (When(text="first"), False),
        (When(model="opus"), True),
        (When(model="haiku"), False),
        (When(system="terse"), True),
        (When(system="verbose"), False),
        (When(tool="Bash"), True),
        (When(tool="Edit"), False),
        (When(stream=True), True),
        (When(stream=False), False),
        (When(tool_result=False), True),
        (When(tool_result=True), False),
        (When(text="second", model="opus", tool="Bash"), True),
        (When(text="second", model="opus", tool="Edit"), False),
        (When(path="/v1/messages/count_tokens"), False),
    ],
)
async def test_conditions(http, when, fits):
    rule = Rule(when, "fits") if when.path == "/v1/messages" else Rule(when, fault="overloaded")
    answers = await told(http, [rule], CONTINUED, system="be terse", tools=[{"name": "Bash"}])
    assert (answers == ["fits"]) is fits


async def test_a_list_of_replies_follows_the_rounds_of_a_turn(http):
    rules = [Rule(When(text="go"), [Reply([ToolUse("A")]), Reply([ToolUse("B")]), "got {tool_result}"])]
    async with Simulator(rules) as sim:
        messages = [{"role": "user", "content": "go"}]
        stops = []
        for _ in range(4):
            answer = (await http.message(sim.url, messages, stream=False)).json()
            stops.append((answer["stop_reason"], answer["content"][0].get("name")))
            if answer["stop_reason"] != "tool_use":
                messages = [*messages[:-2], *messages]
                break
            results = [
                {"type": "tool_result", "tool_use_id": block["id"], "content": f"of {block['name']}"}
                for block in answer["content"]
            ]
            messages += [
                {"role": "assistant", "content": answer["content"]},
                {"role": "user", "content": results},
            ]
        assert stops == [("tool_use", "A"), ("tool_use", "B"), ("end_turn", None)]
        assert answer["content"][0]["text"] == "got of B"


async def test_a_constant_reply_is_the_same_each_time_but_for_its_id(http):
    async with Simulator([Rule(reply=["always this"])]) as sim:
        one, two = [await http.message(sim.url, prompt) for prompt in ("a", "bbbbbbbbbb")]
    assert one.text() == two.text() == "always this"
    first, second = [answer.events()[0][1]["message"] for answer in (one, two)]
    assert first["id"] != second["id"]
    assert first["usage"]["input_tokens"] < second["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(When(regex="(")), r"Rule 0: '\(' is no regular expression"),
        (Rule(fault="odd"), "no fault 'odd'; there are: .*overloaded"),
        (Rule(reply=[]), "needs at least one"),
        (Rule(When(path="/v1/models"), "text"), "carries a fault"),
        (Rule(When(path="/v1/models")), "carries a fault"),
    ],
)
def test_rules_that_cannot_work(rule, words):
    with pytest.raises(ScriptError, match=words):
        Chooser(Script(rules=[rule]))


async def test_a_regex_never_fits_where_there_is_no_conversation(http, key):
    async with Simulator([Rule(When(path="/v1/models", regex="."), fault="overloaded")]) as sim:
        assert (await http.ask(sim.url, "GET", "/v1/models", x_api_key=key)).status == 200
