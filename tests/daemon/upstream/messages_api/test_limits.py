"""What the API says of its limits to the daemon's own calls, by the simulator's own limits."""

from typing import Any

import pytest
from dragoman_sim import Limits, Script
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.limits_heard import LimitsHeard


async def turns(kit: Any, limits: Limits, count: int = 2) -> tuple[list[LimitsHeard], list[Any], Any]:
    """Return what was heard in *count* turns, how they ended, and what the simulator counted."""
    said: list[LimitsHeard] = []
    async with kit.talk(Script(limits=limits)) as talk:
        talk.api.on_limits = said.append
        run = await talk.api.open(kit.spec(model="haiku"), kit.nobody)
        outcomes = [await run.send("go", "m", kit.Events()) for _ in range(count)]
        return said, outcomes, talk.sim.limit_counts()["total"]


async def test_a_success_says_how_much_is_left(kit: Any) -> None:
    limits = Limits(requests_per_minute=50, input_tokens_per_minute=1000, output_tokens_per_minute=500)
    said, outcomes, _ = await turns(kit, limits)
    assert [each.status for each in outcomes] == ["completed"] * 2
    one, two = said
    assert one.requests is not None
    assert (one.requests.limit, one.requests.remaining, one.status, one.failure) == (50, 49, 200, None)
    assert one.input_tokens is not None
    assert one.output_tokens is not None
    assert (one.input_tokens.limit, one.output_tokens.limit) == (1000, 500)
    assert one.requests.resets_at is not None
    assert 0 < one.requests.resets_at - one.heard_at < 60
    assert one.sent_order < two.sent_order
    assert one.message_id == "m"
    assert one.model is not None
    assert one.model.startswith("claude-haiku")
    assert one.absurd == 0


@pytest.mark.parametrize(
    ("form", "least", "most"), [("seconds", 1, 60), ("date", 0, 62), ("ms", 0, 60), ("none", None, None)]
)
async def test_a_throttle_in_every_form(kit: Any, form: Any, least: float | None, most: float | None) -> None:
    said, outcomes, counts = await turns(kit, Limits(requests_per_minute=1, retry_after=form))
    failure, heard = outcomes[1].failure, said[1]
    assert heard.failure == failure
    assert (failure.category, failure.status, counts["throttled"]) == ("throttle", 429, 1)
    if least is None or most is None:
        assert (failure.retry_after_ms, heard.retry_after_s) == (None, None)
    else:
        assert least * 1000 <= failure.retry_after_ms <= most * 1000
        assert abs(heard.retry_after_s * 1000 - failure.retry_after_ms) <= 1


@pytest.mark.parametrize(
    ("answer", "status", "dated"), [("cap", 429, True), ("limit", 400, True), ("balance", 402, False)]
)
async def test_a_spend_cap_in_every_form(kit: Any, answer: Any, status: int, dated: bool) -> None:
    said, outcomes, counts = await turns(kit, Limits(spend_tokens=1, spend_answer=answer))
    failure = outcomes[1].failure
    assert said[-1].failure == failure
    assert (failure.category, failure.status, counts["quota"]) == ("quota", status, 1)
    assert (failure.resets_at is not None) == dated
    assert failure.retry_after_ms is None


async def test_the_limits_of_counting_are_not_told_of(kit: Any) -> None:
    said: list[LimitsHeard] = []
    async with kit.talk(Script(limits=Limits(requests_per_minute=5), keys=["another"])) as talk:
        talk.api.on_limits = said.append
        with pytest.raises(UpstreamError) as raised:
            await talk.api.count_tokens(kit.spec(), "go")
    assert raised.value.failure.category == "auth"
    assert said == []
