"""What Claude Code says of limits: frames as a table, and those of the real CLI as they come."""

import json
import time
from typing import Any

import pytest
from dragoman_protocol.stream import RateLimit, Retrying
from dragoman_sim import Limits, Rule, Script, Simulator, Status, When, Window
from dragomand.upstream.claude_code.limits import Listener, heard
from dragomand.upstream.claude_code.wire import (
    Assistant,
    Message,
    RateLimitEvent,
    RateLimitInfo,
    System,
    decode,
)
from dragomand.upstream.limits_heard import MOST_LIMITS, LimitsHeard
from dragomand.upstream.limits_heard import Window as Told
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0
AT = NOW + 9000
REFUSED = {"status": "rejected", "rateLimitType": "five_hour"}
U = "anthropic-ratelimit-unified-"


def of(frame: RateLimitEvent | System | Assistant) -> LimitsHeard | None:
    return heard(frame, sent_order=7, now=NOW, model="m")


def windows(**info: Any) -> LimitsHeard:
    frame = decode(json.dumps({"type": "rate_limit_event", "rate_limit_info": info}).encode())
    assert isinstance(frame, RateLimitEvent)
    found = of(frame)
    assert found is not None
    return found


# -- frames


def test_the_deciding_window_comes_first_and_the_others_after_it() -> None:
    found = windows(
        status="allowed_warning",
        resetsAt=int(AT),
        rateLimitType="five_hour",
        utilization=0.91,
        overageStatus="rejected",
        isUsingOverage=False,
        unifiedWindows={
            "seven_day": {"utilization": 0.3, "resetsAt": int(AT) + 1, "status": "allowed"},
            "five_hour": {"utilization": 0.9, "resetsAt": 1},
            "seven_day_lunar": {"utilization": 0.1},
        },
    )
    assert found.windows == (
        Told("five_hour", "allowed_warning", AT, 0.91),
        Told("seven_day", "allowed", AT + 1, 0.3),
        Told("seven_day_lunar", None, None, 0.1),
    )
    assert (found.sent_order, found.heard_at, found.model, found.status) == (7, NOW, "m", None)
    assert (found.overage, found.failure) == ("rejected", None)
    assert found.absurd == 1  # the reset of 1970


@pytest.mark.parametrize(
    ("info", "refused", "window", "resets_at"),
    [
        ({"status": "rejected", "resetsAt": AT, "rateLimitType": "seven_day"}, True, "seven_day", AT),
        ({"status": "rejected", "resetsAt": AT, "rateLimitType": "brand_new"}, True, "brand_new", AT),
        ({"status": "rejected", "resetsAt": AT}, True, None, AT),
        ({"status": "rejected"}, True, None, None),
        ({"status": "rejected", "rateLimitType": "five_hour",
          "unifiedWindows": {"five_hour": {"resetsAt": AT}}}, True, "five_hour", AT),
        ({"status": "rejected", "rateLimitType": "five_hour", "isUsingOverage": True}, False, None, None),
        ({"status": "rejected", "rateLimitType": "five_hour", "overageStatus": "allowed"}, False, None, None),
        ({"status": "rejected", "rateLimitType": "five_hour", "overageStatus": "allowed",
          "isUsingOverage": False}, True, "five_hour", None),
        ({"status": "allowed", "unifiedWindows": {"five_hour": {"status": "rejected"}}}, False, None, None),
        ({"status": "rejected", "errorCode": "credits_required"}, False, None, None),
        ({"status": "brand_new"}, False, None, None),
        ({}, False, None, None),
    ],
)  # fmt: skip
def test_when_a_window_refuses(
    info: dict[str, Any], refused: bool, window: str | None, resets_at: float | None
) -> None:
    found = windows(**info)
    assert (found.failure is not None) == refused
    assert found.status == (429 if refused else None)
    if found.failure is not None:
        assert (found.failure.category, found.failure.status) == ("quota", 429)
        assert (found.failure.window, found.failure.resets_at) == (window, resets_at)


@pytest.mark.parametrize(
    "info",
    [
        {"status": 7, "resetsAt": "soon", "rateLimitType": [], "utilization": "half", "overageStatus": {}},
        {"status": "allowed", "unifiedWindows": [1]},
        {"status": "allowed", "unifiedWindows": {"five_hour": 7, "two words": {}}},
        {"resetsAt": 1_800_000_000_000, "utilization": -1},
    ],
)
def test_what_cannot_be_believed_is_left_out(info: dict[str, Any]) -> None:
    found = windows(**info)
    assert all(each.resets_at is None and each.utilization is None for each in found.windows)
    assert found.failure is None


def test_the_number_of_windows_is_bounded() -> None:
    found = windows(status="allowed", unifiedWindows={f"w{n}": {"utilization": 0.5} for n in range(1000)})
    assert len(found.windows) == MOST_LIMITS
    assert found.absurd == 1000 - MOST_LIMITS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["status", "resetsAt", "rateLimitType", "utilization", "unifiedWindows", "overageStatus",
          "isUsingOverage"]  # fmt: skip


@given(info=st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_whatever_stands_in_a_frame_never_raises(info: dict[str, Any]) -> None:
    frame = decode(json.dumps({"type": "rate_limit_event", "rate_limit_info": info}).encode())
    assert isinstance(frame, RateLimitEvent)
    assert of(frame) is not None


@pytest.mark.parametrize(
    ("delay", "pause", "absurd"),
    [(1144, 1.144, 0), (0, 0.0, 0), (None, None, 0), (-5, None, 1), (1e300, None, 1)],
)
def test_a_retry(delay: float | None, pause: float | None, absurd: int) -> None:
    found = of(System(subtype="api_retry", retry_delay_ms=delay, error="rate_limit", error_status=429))
    assert found is not None
    assert (found.retry_after_s, found.absurd, found.status) == (pause, absurd, 429)
    assert found.failure is not None
    assert found.failure.category == "throttle"
    assert found.says_something


@pytest.mark.parametrize(
    ("error", "code", "params", "told"),
    [
        ("usage_limit_reached", None, {"rate_limit_info": REFUSED}, True),
        ("usage_limit_reached", "credits_required", {"rate_limit_info": REFUSED}, False),
        ("usage_limit_reached", None, {"rate_limit_info": 7}, False),
        ("usage_limit_reached", None, None, False),
        ("model_requires_usage_credits", None, {"rate_limit_info": REFUSED}, False),
        (None, None, None, False),
    ],
)
def test_an_error_for_which_a_window_is_used_up(
    error: str | None, code: str | None, params: Any, told: bool
) -> None:
    frame = Assistant(
        message=Message(),
        error="rate_limit",
        api_error=error,
        api_error_code=code,
        api_error_params=params,
    )
    found = of(frame)
    assert (found is not None) == told
    if found is not None:
        assert found.failure is not None
        assert found.failure.window == "five_hour"


def test_other_frames_say_nothing() -> None:
    said: list[LimitsHeard] = []
    listener = Listener(said.append)
    assert listener.hear(None, "m") is None
    assert listener.hear(System(subtype="init"), "m") is None
    assert said == []
    found = listener.hear(RateLimitEvent(rate_limit_info=RateLimitInfo(status="allowed")), "m")
    assert said == [found]
    assert found is not None
    assert abs(found.heard_at - time.time()) < 60
    retry = System(subtype="api_retry", error="overloaded", error_status=529)
    assert listener.hear(retry, "m", first_hand=False) is not None
    assert said == [found]


# -- the real CLI, with a subscription's token that is made up


@pytest.fixture
def subscribed(world: Any) -> Any:
    """Return a function that runs one turn of the real CLI and tells what was heard, and what happened."""

    async def run(sim: Simulator, prompt: str = "go", **api: Any) -> tuple[Any, list[LimitsHeard], Any]:
        said: list[LimitsHeard] = []
        settings = {"api": world.api(base_url=sim.url, **api)}
        upstream = world.upstream(sim, api_key=lambda: None, **settings)
        upstream.on_limits = said.append
        spec = world.spec(env={"CLAUDE_CODE_OAUTH_TOKEN": "made-up"})
        events = world.events()
        run = await upstream.open(spec, world.deny)
        try:
            outcome = await run.send(prompt, "0" * 8, events)
        finally:
            await run.close()
        return outcome, said, events

    return run


async def test_a_subscriptions_windows_are_heard(subscribed: Any) -> None:
    """The simulator's windows come through the real CLI, whole, before the answer ends."""
    week = Window("7d", max_tokens=10**9)
    limits = Limits(windows=[Window("5h", max_requests=10, warn_at=0.1, seconds=9000), week])
    async with Simulator(Script([Rule(When(text="go"), "Gone.")], limits=limits)) as sim:
        outcome, said, events = await subscribed(sim)
        assert sim.messages[0].credential == "authorization"
    assert outcome.status == "completed"
    (found,) = said
    five, seven = found.windows
    assert (five.name, five.status, five.utilization) == ("five_hour", "allowed_warning", 0.1)
    assert five.resets_at is not None
    assert abs(five.resets_at - time.time() - 9000) < 60
    assert (seven.name, seven.status) == ("seven_day", "allowed")
    assert (found.overage, found.failure, found.absurd) == ("rejected", None, 0)
    assert [each.window for each in events.of(RateLimit)] == ["five_hour", "seven_day"]


async def test_a_window_that_is_used_up_costs_one_request(subscribed: Any) -> None:
    """00.22: the quota's reset reaches the failure of the turn, and is heard beside it."""
    limits = Limits(windows=[Window("7d_opus", max_requests=1, seconds=9000)])
    async with Simulator(Script([Rule(When(text="go"), "Gone.")], limits=limits)) as sim:
        first, _, _ = await subscribed(sim)
        outcome, said, _ = await subscribed(sim)
        assert sim.limit_counts()["total"]["quota"] == 1
    assert (first.status, outcome.status) == ("completed", "failed")
    failure = outcome.failure
    assert (failure.category, failure.status, failure.window) == ("quota", 429, "seven_day_opus")
    assert abs(failure.resets_at - time.time() - 9000) < 60
    *_, refused = [each for each in said if each.failure is not None]
    assert (refused.failure.category, refused.failure.resets_at) == ("quota", failure.resets_at)


async def test_what_is_paid_for_beyond_a_window_is_no_refusal(subscribed: Any) -> None:
    limits = Limits(windows=[Window("5h", max_requests=1)], overage=True)
    async with Simulator(Script([Rule(When(text="go"), "Gone.")], limits=limits)) as sim:
        outcome, said, _ = await subscribed(sim)
    assert outcome.status == "completed"
    assert (said[-1].windows[0].status, said[-1].overage) == ("rejected", "allowed")
    assert all(each.failure is None for each in said)


async def test_what_is_not_in_the_plan_is_that_requests_own_failure(subscribed: Any) -> None:
    headers = {U + "overage-status": "rejected", U + "overage-disabled-reason": "out_of_credits"}
    fault = Status(429, error_code="credits_required", message="Needs credits.", headers=headers)
    async with Simulator([Rule(When(text="go"), fault=fault)]) as sim:
        outcome, said, _ = await subscribed(sim)
    assert outcome.failure.category == "caller"
    assert [each.failure for each in said if each.failure is not None] == []


async def test_a_window_of_a_name_that_nobody_knows(subscribed: Any) -> None:
    headers = {U + "status": "rejected", U + "representative-claim": "lunar_month",
               U + "reset": str(int(time.time()) + 5000)}  # fmt: skip
    async with Simulator([Rule(When(text="go"), fault=Status(429, headers=headers))]) as sim:
        outcome, said, _ = await subscribed(sim)
    assert (outcome.failure.category, outcome.failure.window) == ("quota", "lunar_month")
    assert said[-1].windows[0].name == "lunar_month"


@pytest.mark.parametrize("form", ["rate_limited", "rate_limited_date", "rate_limited_ms"])
async def test_a_retry_is_heard_with_the_servers_pause(subscribed: Any, form: str) -> None:
    """Each form of `retry-after`, as the real CLI makes a frame of it."""
    rules = [Rule(When(text="go"), fault=form, times=1), Rule(When(text="go"), "Gone.")]
    async with Simulator(rules) as sim:
        outcome, said, events = await subscribed(sim, max_retries=2)
    assert outcome.status == "completed"
    (retry,) = [each for each in said if each.failure is not None]
    assert (retry.failure.category, retry.status) == ("throttle", 429)
    assert 0.5 <= retry.retry_after_s <= 30
    (told,) = events.of(Retrying)
    assert told.retry_after_ms == retry.failure.retry_after_ms


async def test_a_window_that_stays_used_up_is_told_in_every_turn(world: Any) -> None:
    """Claude Code tells of a window when it moves; of the second refusal only the error itself tells."""
    limits = Limits(windows=[Window("5h", max_requests=1, seconds=9000)])
    async with Simulator(Script([Rule(When(text="go"), "Gone.")], limits=limits)) as sim:
        said: list[LimitsHeard] = []
        upstream = world.upstream(sim, api_key=lambda: None, api=world.api(base_url=sim.url))
        upstream.on_limits = said.append
        spec = world.spec(env={"CLAUDE_CODE_OAUTH_TOKEN": "made-up"})
        run = await upstream.open(spec, world.deny)
        outcomes = [await run.send("go", str(n) * 8, world.events()) for n in range(3)]
        await run.close()
    assert [each.status for each in outcomes] == ["completed", "failed", "failed"]
    for outcome in outcomes[1:]:
        assert (outcome.failure.category, outcome.failure.window) == ("quota", "five_hour")
        assert abs(outcome.failure.resets_at - time.time() - 9000) < 60
    assert len([each for each in said if each.failure is not None]) >= 2


async def test_a_spend_cap_is_known_by_its_code_whatever_its_words(subscribed: Any) -> None:
    fault = Status(429, error_code="enforced_spend_limit_reached", message="Not now.")
    async with Simulator([Rule(When(text="go"), fault=fault)]) as sim:
        outcome, _, _ = await subscribed(sim)
        assert len(sim.messages) == 1
    assert outcome.failure.category == "quota"
    assert 0 < outcome.failure.resets_at - time.time() <= 31 * 86_400
