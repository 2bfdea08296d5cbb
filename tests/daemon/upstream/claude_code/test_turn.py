"""Accounts and ends of a turn, without a process."""

import json
import uuid
from typing import Any

import msgspec
import pytest
from dragoman_protocol.content import DocumentBlock, TextBlock
from dragomand.upstream.claude_code.turn import Costs, Turn, message_uuid, user_frame
from dragomand.upstream.claude_code.wire import ModelUsage, Result, TokenCounts, decode
from dragomand.upstream.interface import Failure
from dragomand.upstream.limits_heard import LimitsHeard, Window


def take(turn: Turn, **frame: Any) -> None:
    line = json.dumps(frame).encode()
    turn.take(decode(line), line)


def turn(costs: Costs | None = None) -> Turn:
    return Turn("u", lambda _: None, costs or Costs(0.0))


def result(total: float | None, *shares: float | None) -> Result:
    usage = {f"model-{n}": ModelUsage(cost_usd=share) for n, share in enumerate(shares)}
    return Result(total_cost_usd=total, model_usage_since_last_result=usage if shares else None)


def test_a_uuid_is_kept_and_another_id_becomes_one() -> None:
    own = str(uuid.uuid4())
    assert message_uuid(own) == own
    assert message_uuid("mine") == message_uuid("mine") != message_uuid("yours")
    uuid.UUID(message_uuid("mine"))


def test_prompts_become_user_messages() -> None:
    frame = msgspec.json.decode(user_frame("hi", "u"))
    assert frame == {
        "type": "user",
        "message": {"role": "user", "content": "hi"},
        "parent_tool_use_id": None,
        "uuid": "u",
    }
    blocks = [TextBlock(text="see"), DocumentBlock(source={"type": "text", "data": "d"}, title="T")]
    assert msgspec.json.decode(user_frame(blocks, "u"))["message"]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "document", "source": {"type": "text", "data": "d"}, "title": "T"},
    ]


def test_costs_are_shares_of_a_total() -> None:
    costs = Costs(0.0)
    assert costs.settle(result(0.5)) == 0.5
    assert costs.settle(result(0.75)) == 0.25
    assert costs.settle(result(0.25)) == 0.0  # never negative
    assert costs.settle(result(None)) is None
    assert costs.settle(result(0.5)) == 0.25


def test_the_first_share_of_a_resumed_conversation_is_unknown_unless_it_is_told() -> None:
    costs = Costs(None)
    assert costs.settle(result(5.0)) is None
    assert costs.settle(result(6.0)) == 1.0
    assert Costs(None).settle(result(5.0, 0.25, 0.5)) == 0.75
    assert Costs(None).settle(result(5.0, None)) is None
    assert Costs(None).settle(Result(total_cost_usd=5.0, model_usage_since_last_result={})) == 0.0


async def test_usage_counts_every_model_once() -> None:
    since = {"a": ModelUsage(input_tokens=1, output_tokens=2), "b": ModelUsage(cache_read_input_tokens=3)}
    one = turn()
    one._end(Result(model_usage_since_last_result=since, usage=TokenCounts(input_tokens=9)))
    usage = one.outcome.result().usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (1, 2, 3)
    other = turn()
    other._end(Result(usage=TokenCounts(input_tokens=9, output_tokens=None, cache_creation_input_tokens=4)))
    usage = other.outcome.result().usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_creation_tokens) == (9, 0, 4)
    nothing = turn()
    nothing._end(Result())
    assert nothing.outcome.result().usage.input_tokens == 0


async def test_a_limit_window_is_remembered_for_the_failure() -> None:
    one = turn()
    used_up = Failure("quota", "used up", resets_at=1_800_000_000, window="seven_day")
    said = LimitsHeard(1, 1.0, windows=(Window("seven_day", "rejected"),), failure=used_up)
    one.take(decode(b'{"type":"rate_limit_event","rate_limit_info":{}}'), b"{}", said)
    take(one, type="result", is_error=True, api_error_status=429, terminal_reason="api_error")
    failure = one.outcome.result().failure
    assert failure is not None
    assert (failure.category, failure.resets_at) == ("quota", 1_800_000_000)
    assert failure.window == "seven_day"


@pytest.mark.parametrize("state", ["cancelled", "discarded", "refused"])
async def test_a_message_that_was_called_back_before_it_began(state: str) -> None:
    one = turn()
    one.interrupted = True
    take(one, type="command_lifecycle", command_uuid="another", state=state)
    assert not one.outcome.done()
    take(one, type="command_lifecycle", command_uuid="u", state=state)
    assert one.outcome.result().status == "interrupted"
    one.fail(Failure("crash", "too late"))
    assert one.outcome.result().failure is None


async def test_the_lifecycles_end_of_a_message_that_began_is_not_the_turns() -> None:
    one = turn()
    take(one, type="command_lifecycle", command_uuid="u", state="started")
    take(one, type="command_lifecycle", command_uuid="u", state="cancelled")
    assert not one.outcome.done()
    take(one, type="result", result="Over.", user_message_uuids=["other"])
    assert one.outcome.result().text == "Over."


async def test_an_interrupt_that_came_too_late_changes_nothing() -> None:
    one = turn()
    one.interrupted = True
    take(one, type="result", result="Over.")
    assert (one.outcome.result().status, one.outcome.result().text) == ("completed", "Over.")


async def test_an_error_after_an_interrupt_is_the_interrupt() -> None:
    one = turn()
    one.interrupted = True
    take(one, type="result", is_error=True, api_error_status=529)
    assert (one.outcome.result().status, one.outcome.result().failure) == ("interrupted", None)


async def test_a_sink_that_fails_while_a_message_is_refused_does_not_matter() -> None:
    def broken(_: object) -> None:
        raise ValueError

    one = Turn("u", broken, Costs())
    take(one, type="command_lifecycle", command_uuid="u", state="refused", parent_tool_use_id="t")
    assert one.outcome.result().status == "failed"
