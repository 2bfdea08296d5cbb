"""Asking again until the answer fits: how often, what is told, what it costs (00.55)."""

from dataclasses import replace
from typing import Any

import pytest
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import AssistantText, StructuredOutput, UserMessage
from dragomand.engine.attempts import Attempts
from dragomand.engine.structured import OutputSchema
from dragomand.upstream.interface import Failure, TurnOutcome

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def said(text: str, cost: float | None = 0.5) -> TurnOutcome:
    usage = Usage(input_tokens=10, output_tokens=2, cache_read_tokens=1)
    return TurnOutcome(status="completed", text=text, usage=usage, cost_usd=cost)


async def attempt(*outcomes: TurnOutcome, most: int = 3, stopped: bool = False) -> tuple[Any, ...]:
    attempts, events, asked, left = Attempts(OutputSchema(SCHEMA, most)), [], [], list(outcomes)

    async def ask(prompt: Any, message_id: str) -> TurnOutcome:
        asked.append((prompt, message_id))
        return left.pop(0)

    outcome = await attempts.run(ask, "How many?", "m", events.append, lambda: stopped)
    return attempts, outcome, asked, events


async def test_the_first_answer_fits() -> None:
    attempts, outcome, asked, events = await attempt(said('{"n":1}'))
    assert asked == [("How many?", "m")]
    assert attempts.answer.value == {"n": 1}
    assert [each.error for each in attempts.answer.attempts] == [None]
    assert events == [StructuredOutput(value={"n": 1}, attempts=attempts.answer.attempts)]
    assert (outcome.usage.input_tokens, outcome.cost_usd) == (10, 0.5)


async def test_after_an_answer_that_does_not_fit_the_model_is_told_why() -> None:
    attempts, outcome, asked, events = await attempt(said('{"n":"x"}'), said("none"), said('{"n":2}'))
    assert [message_id for _, message_id in asked] == ["m", "m.again", "m.again.again"]
    assert "$.n" in asked[1][0]
    assert "no JSON" in asked[2][0]
    assert [event.content for event in events if isinstance(event, UserMessage)] == [asked[1][0], asked[2][0]]
    assert [each.path for each in attempts.answer.attempts] == ["$.n", "$", None]
    assert outcome.usage == Usage(input_tokens=30, output_tokens=6, cache_read_tokens=3)
    assert outcome.cost_usd == 1.5


async def test_a_bounded_number_of_times() -> None:
    attempts, outcome, asked, events = await attempt(said("a"), said('{"n":"b"}'), most=2)
    assert len(asked) == 2
    assert attempts.answer is None
    assert attempts.error.kind == "schema_mismatch"
    assert attempts.error.data == {"path": "$.n", "attempts": 2, "text": '{"n":"b"}'}
    assert (outcome.status, outcome.usage.input_tokens) == ("completed", 20)
    assert not any(isinstance(event, StructuredOutput) for event in events)


async def test_an_unknown_cost_stays_unknown() -> None:
    _, outcome, _, _ = await attempt(said("a"), said('{"n":1}', cost=None))
    assert outcome.cost_usd is None


@pytest.mark.parametrize("status", ["failed", "interrupted"])
async def test_a_failure_ends_it_with_all_that_was_used(status: Any) -> None:
    failed = TurnOutcome(
        status=status, usage=Usage(input_tokens=5), cost_usd=0.25, failure=Failure("overload", "busy")
    )
    attempts, outcome, asked, _ = await attempt(said("a"), failed)
    assert len(asked) == 2
    assert (attempts.answer, attempts.error) == (None, None)
    assert (outcome.status, outcome.failure) == (status, failed.failure)
    assert (outcome.usage.input_tokens, outcome.cost_usd) == (15, 0.75)


async def test_a_turn_that_was_stopped_asks_no_more() -> None:
    attempts, outcome, asked, _ = await attempt(said("a"), stopped=True)
    assert len(asked) == 1
    assert (attempts.answer, attempts.error, outcome.status) == (None, None, "completed")


async def test_what_was_held_back_is_told_before_the_next_question() -> None:
    held = (AssistantText(item_id="i", text="a"),)
    first = replace(said("a"), last_events=held)
    _, outcome, _, events = await attempt(first, replace(said('{"n":1}'), last_events=held))
    assert [type(event) for event in events] == [AssistantText, UserMessage, AssistantText, StructuredOutput]
    assert outcome.last_events == ()


async def test_a_schema_that_fails_when_it_is_applied() -> None:
    attempts = Attempts(OutputSchema({"$ref": "#/$defs/none"}))

    async def ask(_prompt: Any, _message_id: str) -> TurnOutcome:
        return said("1")

    outcome = await attempts.run(ask, "x", "m", lambda _: None, lambda: False)
    assert (attempts.answer, attempts.error.kind) == (None, "invalid_params")
    assert outcome.usage.input_tokens == 10
