"""Everything that the API does wrong, through `messages_api`: class, status, code on the wire, how many calls
were made, and how long finding out may take."""

import asyncio
from typing import Any

import pytest
from dragoman_protocol.errors import BY_KIND
from dragoman_sim import Cut, Malformed, Pings, Reply, Rule, Stall, Status, StreamError, When
from dragoman_sim.faults import NAMED
from dragomand.engine.errors import from_failure

SPANS = {"first_byte_timeout_s": 0.5, "idle_timeout_s": 0.4, "pings_timeout_s": 0.6}
"""The deadlines of the rows that need one, instead of minutes."""
BOUND_S = 5.0
"""More than any of them, with room for a busy machine."""

FAULTS: list[tuple[Any, str, int | None, int]] = [
    # fault, class, HTTP status, code on the wire
    ("bad_request", "caller", 400, 1206),
    ("spend_limit_400", "quota", 400, 1204),
    ("unauthorized", "auth", 401, 1101),
    ("payment_required", "quota", 402, 1204),
    ("forbidden", "auth", 403, 1101),
    ("not_found", "caller", 404, 1206),
    ("request_timeout", "overload", 408, 1205),
    ("too_large", "caller", 413, 1206),
    (Status(422), "caller", 422, 1206),
    ("rate_limited", "throttle", 429, 1203),
    ("rate_limited_date", "throttle", 429, 1203),
    ("rate_limited_ms", "throttle", 429, 1203),
    ("rate_limited_bare", "throttle", 429, 1203),
    ("spend_cap", "quota", 429, 1204),
    ("server_error", "overload", 500, 1205),
    ("bad_gateway", "overload", 502, 1205),
    ("unavailable", "overload", 503, 1205),
    ("gateway_timeout", "overload", 504, 1205),
    ("overloaded", "overload", 529, 1205),
    ("no_headers", "overload", None, 1205),
    ("headers_only", "overload", None, 1205),
    ("stall", "overload", None, 1205),
    (Stall("after_block"), "overload", None, 1205),
    ("pings_only", "overload", None, 1205),
    (Pings(every_ms=100), "overload", None, 1205),
    ("cut_before_headers", "overload", None, 1205),
    ("cut_after_headers", "overload", None, 1205),
    ("cut_before_block", "overload", None, 1205),
    ("cut", "overload", None, 1205),
    ("cut_after_block", "overload", None, 1205),
    ("reset", "overload", None, 1205),
    (Cut("before_headers", reset=True), "overload", None, 1205),
    ("overloaded_event", "overload", 529, 1205),
    (StreamError("rate_limit_error", "slow down"), "throttle", 429, 1203),
    (StreamError("authentication_error", "gone"), "auth", 401, 1101),
    (StreamError("billing_error", "no money"), "quota", 402, 1204),
    (StreamError("something_new", ""), "overload", 500, 1205),
    ("bad_json", "protocol", None, 1402),
]

SURVIVED: list[tuple[str, str]] = [
    # fault, what the answer is nevertheless
    ("bad_sse", "this and that"),
    ("bad_utf8", "this bad \ufffd\ufffd\ufffd bytesand that"),
    ("lone_surrogate", "this lone \ufffd surrogateand that"),
    ("long_line", "this " + "x" * 3 * 1024 * 1024 + "and that"),
]


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else type(value).__name__


@pytest.mark.parametrize(("fault", "category", "status", "code"), FAULTS, ids=name_of)
async def test_one_call_one_class_in_time(
    kit: Any, fault: Any, category: str, status: int | None, code: int
) -> None:
    rules = [Rule(When(text="go"), Reply(["this ", "and that"]), fault=fault)]
    async with kit.talk(rules, settings=SPANS) as talk:
        events = kit.Events()
        async with asyncio.timeout(BOUND_S):
            outcome = await talk.run.send("go", "m", events)
        failure = outcome.failure
        assert outcome.status == "failed"
        assert (failure.category, failure.status) == (category, status)
        assert failure.message
        assert BY_KIND[from_failure(failure).kind].code == code
        assert len(talk.sim.messages) == 1
        assert await talk.sim.wait_ended(talk.sim.messages[0]) in ("answered", "abandoned", "broken", "cut")


@pytest.mark.parametrize(("fault", "text"), SURVIVED, ids=name_of)
async def test_what_does_not_lose_the_turn(kit: Any, fault: str, text: str) -> None:
    rules = [Rule(When(text="go"), Reply(["this ", "and that"]), fault=fault)]
    async with kit.talk(rules, settings=SPANS | {"idle_timeout_s": 5.0, "first_byte_timeout_s": 5.0}) as talk:
        outcome = await talk.send("go")
        assert (outcome.status, outcome.failure) == ("completed", None)
        assert outcome.text == text
        assert len(talk.sim.messages) == 1


def test_every_fault_of_the_simulator_has_its_row() -> None:
    rows = {fault for fault, *_ in FAULTS if isinstance(fault, str)} | {fault for fault, _ in SURVIVED}
    assert rows == set(NAMED)
    kinds = {type(fault) for fault in NAMED.values()}
    assert kinds == {Status, Cut, Stall, Pings, StreamError, Malformed}


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        pytest.param({"retry-after": "7"}, 7000, 7000, id="seconds"),
        pytest.param({"retry-after": "0.5"}, 500, 500, id="fraction"),
        pytest.param({"retry-after-ms": "1250", "retry-after": "9"}, 1250, 1250, id="milliseconds"),
    ],
)
async def test_the_pause_that_is_asked_for(kit: Any, headers: dict[str, str], least: int, most: int) -> None:
    rules = [Rule(When(text="go"), fault=Status(429, headers=headers))]
    async with kit.talk(rules) as talk:
        failure = (await talk.send("go")).failure
        assert least <= failure.retry_after_ms <= most


async def test_the_pause_as_a_date(kit: Any) -> None:
    async with kit.talk([Rule(When(text="go"), fault=Status(429, retry_after_date_s=30))]) as talk:
        failure = (await talk.send("go")).failure
        assert 15_000 <= failure.retry_after_ms <= 30_000


async def test_nobody_listens(kit: Any) -> None:
    async with kit.api("http://127.0.0.1:9") as api:
        run = await api.open(kit.spec(), kit.nobody)
        outcome = await run.send("go", "m", kit.Events())
    assert (outcome.status, outcome.failure.category) == ("failed", "overload")
    assert "cannot be reached" in outcome.failure.message


async def test_after_a_failure_the_run_takes_the_next_turn_without_the_lost_one(kit: Any) -> None:
    rules = [Rule(When(text="on"), "On."), Rule(When(text="go"), fault="bad_request")]
    async with kit.talk(rules) as talk:
        assert (await talk.send("go")).status == "failed"
        assert (await talk.send("on")).text == "On."
        assert [message["content"] for message in talk.body()["messages"]] == ["on"]


async def test_a_redirection_takes_the_key_nowhere(kit: Any) -> None:
    async with kit.talk([Rule(When(text="elsewhere"), "never")]) as other:
        fault = Status(307, headers={"location": f"{other.sim.url}/v1/messages"})
        async with kit.talk([Rule(When(text="go"), fault=fault)]) as talk:
            outcome = await talk.send("go")
            assert (outcome.failure.category, outcome.failure.status) == ("caller", 307)
            assert not other.sim.requests
