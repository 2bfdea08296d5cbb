"""Answers of turns that ended before: the same as the first time."""

from typing import Any

import msgspec
import pytest
from dragomand.engine import answers
from dragomand.engine.errors import EngineError
from dragomand.store.rows import TurnRow


def turn(**facts: Any) -> TurnRow:
    return TurnRow(**{"turn_id": "t", "session_id": "s", "status": "completed", "started_at": 1, **facts})


def test_a_result_says_what_the_row_says() -> None:
    row = turn(
        model="m",
        stop_reason="end_turn",
        input_tokens=1,
        output_tokens=2,
        cost_usd=0.5,
        queued_ms=3,
        duration_ms=4,
    )
    assert msgspec.to_builtins(answers.result_of(row, "text", "c")) == {
        "sessionId": "s",
        "turnId": "t",
        "text": "text",
        "upstream": "claudeCode",
        "model": "m",
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 2},
        "costUsd": 0.5,
        "durationMs": 4,
        "queuedMs": 3,
        "claudeSessionId": "c",
    }


def test_a_cost_that_is_not_known_is_not_zero() -> None:
    assert answers.result_of(turn(), "", None).cost_usd is None


@pytest.mark.parametrize(
    ("row", "kind", "data"),
    [
        (turn(status="cancelled"), "request_cancelled", {}),
        (turn(status="interrupted", message_id="m"), "turn_interrupted", {"message_id": "m"}),
        (turn(status="running", message_id="m"), "turn_interrupted", {"message_id": "m"}),
        (turn(status="failed"), "turn_interrupted", {"message_id": None}),
        (
            turn(status="failed", error=b'{"kind":"throttled","message":"x","status":429}'),
            "throttled",
            {"status": 429},
        ),
    ],
)
async def test_an_error_is_raised_again(kit: Any, row: TurnRow, kind: str, data: dict[str, Any]) -> None:
    async with kit.engine() as engine:
        with pytest.raises(EngineError) as caught:
            await answers.replay(engine.store, row)
        assert caught.value.kind == kind
        assert caught.value.data == {"session_id": "s", "turn_id": "t", **data}


async def test_an_answer_whose_session_was_deleted_meanwhile(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await answers.replay(engine.store, turn())
        assert (result.text, result.claude_session_id, result.replayed) == ("", None, True)


async def test_the_last_text_is_the_answer(kit: Any) -> None:
    async with kit.engine() as engine:

        async def script(on: Any) -> Any:
            on.said("first", item="a")
            on.said("last", item="b")
            return await kit.answering("last")(on)

        engine.upstream.scripts.append(script)
        params = engine.params(message_id="m")
        await engine.queries.run(params, kit.caller())
        row = await answers.stored_turn(
            engine.store, "m", (await engine.store.turn_by_message("m")).request_digest
        )
        assert (await answers.replay(engine.store, row)).text == "last"


async def test_who_asks_for_something_else_gets_nothing(kit: Any) -> None:
    async with kit.engine() as engine:
        await engine.queries.run(engine.params(message_id="m"), kit.caller())
        await kit.refused("message_conflict", answers.stored_turn(engine.store, "m", "another"))
        assert await answers.stored_turn(engine.store, "n", "any") is None
