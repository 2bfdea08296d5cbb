"""Calls through the gateway, by an ordinary HTTP client, with the simulator as the provider."""

import asyncio
import contextlib
import json
import time
from typing import Any

import aiohttp
import pytest
from dragoman_sim import (
    Cut,
    Gate,
    Limits,
    Pause,
    Ping,
    Pings,
    Reply,
    Rule,
    Script,
    Simulator,
    Status,
    Tokens,
    When,
)
from dragomand.engine.admission import Asked
from dragomand.engine.call import Payer
from dragomand.engine.errors import EngineError
from dragomand.engine.retries import Retries
from dragomand.gateway import asking
from dragomand.policy.retry_budget import RetryBudget


async def test_a_call_has_the_key_and_is_counted(at: Any) -> None:
    sim, client = await at.caller()
    async with client.post("/v1/messages?beta=true", json=at.ask, headers={"cookie": "a=b"}) as answer:
        said = await answer.json()
    assert answer.status == 200
    record = sim.messages[0]
    assert record.used_key(at.key)
    assert record.query == "beta=true"
    assert "cookie" not in record.headers
    assert "authorization" not in record.headers
    assert answer.headers["Server"] == "dragoman"
    assert answer.headers["request-id"]
    counts = at.calls.total
    assert (counts.calls, counts.failed) == (1, 0)
    assert counts.usage.input_tokens == said["usage"]["input_tokens"]
    assert counts.usage.output_tokens == said["usage"]["output_tokens"] > 0


async def test_a_stream_is_passed_on_as_it_comes(at: Any) -> None:
    sim, client = await at.caller([Rule(When(), Reply(["one ", Gate("middle"), "two"]))])
    async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        seen = b""
        while b"one" not in seen:
            seen += await answer.content.readany()
        assert b"two" not in seen  # the rest has not even been sent
        assert at.admission.calls_running == 1
        await sim.gate("middle").open()
        seen += await answer.content.read()
    assert b"message_stop" in seen
    await at.until(lambda: at.admission.calls_running == 0)
    assert at.calls.total.failed == 0
    assert at.calls.total.usage.output_tokens > 0


@pytest.mark.parametrize(
    ("status", "retry_after"), [(429, 7), (529, None), (400, None), (401, None), (500, None)]
)
async def test_errors_are_passed_on_as_they_are(at: Any, status: int, retry_after: int | None) -> None:
    fault = Status(status, message="so it is", retry_after=retry_after)
    _, client = await at.caller([Rule(When(), fault=fault)])
    async with client.post("/v1/messages", json=at.ask) as answer:
        said = await answer.json()
    assert answer.status == status
    assert said["error"]["message"] == "so it is"
    assert answer.headers.get("retry-after") == (None if retry_after is None else str(retry_after))
    assert (at.calls.total.calls, at.calls.total.failed) == (1, 1)
    newest = at.calls.limits.snapshot()
    assert newest.status == status
    assert newest.retry_after_ms == (None if retry_after is None else retry_after * 1000)


async def test_what_the_provider_says_of_its_limits_is_remembered(at: Any) -> None:
    _, client = await at.caller(Script(limits=Limits(requests_per_minute=50)))
    async with client.post("/v1/messages", json=at.ask) as answer:
        await answer.read()
    newest = at.calls.limits.snapshot()
    window = newest.windows["requests"]
    assert (window.limit, window.remaining) == (50, 49)
    assert abs(window.reset_at - newest.seen_at) < 10


async def test_every_refusal_is_told_with_its_class_and_its_model(at: Any) -> None:
    """The same facts as of the daemon's own calls, in the order of sending."""
    rules = [Rule(When(nth=1), fault="spend_limit_400"), Rule(When(nth=1), fault="rate_limited_date")]
    _, client = await at.caller(rules)
    said: list[Any] = []
    at.calls.limits.on_heard = said.append
    for _ in range(3):
        async with client.post("/v1/messages", json=at.ask) as answer:
            await answer.read()
        await at.until(lambda: at.admission.calls_running == 0)
        at.admission.credential_changed("apiKey")  # else what comes next would be parked
    spent, slow = said  # the third answer says nothing of limits
    assert (spent.failure.category, spent.status, spent.model) == ("quota", 400, "claude-x")
    assert 0 < spent.failure.resets_at - time.time() < 32 * 86_400
    assert (slow.failure.category, slow.status) == ("throttle", 429)
    assert 0 <= slow.failure.retry_after_ms <= 2000
    assert spent.sent_order < slow.sent_order


async def test_the_limits_of_counting_are_not_those_of_messages(at: Any) -> None:
    limits = Limits(requests_per_minute=50)
    _, client = await at.caller(Script(limits=limits))
    async with client.post("/v1/messages/count_tokens", json=at.ask) as answer:
        assert answer.status == 200
    assert at.calls.limits.snapshot() is None


async def test_an_answer_that_is_cut_is_cut(at: Any) -> None:
    _, client = await at.caller([Rule(When(), Reply(["one two three"]), fault=Cut("inside_block"))])
    with pytest.raises(aiohttp.ClientError):
        async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
            await answer.read()
    await at.until(lambda: at.admission.calls_running == 0)
    assert at.calls.total.failed == 1


async def test_a_caller_that_goes_ends_the_providers_work(at: Any) -> None:
    sim, client = await at.caller([Rule(When(), Reply(["one ", Gate("middle"), "two"]))])
    async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
        await answer.content.readany()
        answer.close()
    record = await sim.wait_for(1)
    assert await sim.wait_ended(record) == "abandoned"
    await at.until(lambda: at.admission.calls_running == 0)
    assert at.calls.total.failed == 1


async def test_counting_tokens_and_models(at: Any) -> None:
    _, client = await at.caller()
    async with client.post("/v1/messages/count_tokens", json=at.ask) as answer:
        assert (await answer.json())["input_tokens"] > 0
    async with client.get("/v1/models?limit=5") as answer:
        assert (await answer.json())["data"]
    assert (at.calls.total.calls, at.calls.total.failed) == (2, 0)


async def test_calls_wait_for_each_other(at: Any) -> None:
    sim, client = await at.caller([Rule(When(), Reply([Gate("middle"), "two"]))], max_calls=1)

    async def call() -> int:
        async with client.post("/v1/messages", json=at.ask) as answer:
            return answer.status

    calls = [asyncio.create_task(call()) for _ in range(2)]
    await at.until(lambda: at.admission.calls_queued == 1)
    assert at.admission.calls_running == 1
    assert len(sim.messages) <= 1  # the other one has not been sent
    await sim.gate("middle").open()
    assert await asyncio.gather(*calls) == [200, 200]


async def test_a_call_that_is_not_admitted_in_time_may_be_repeated(at: Any) -> None:
    sim, client = await at.caller(
        [Rule(When(), Reply([Gate("middle"), "two"]))], max_calls=1, queue_timeout_s=0.01
    )

    async def first() -> int:
        async with client.post("/v1/messages", json=at.ask) as answer:
            return answer.status

    running = asyncio.create_task(first())
    await at.until(lambda: at.admission.calls_running == 1)
    async with client.post("/v1/messages", json=at.ask) as answer:
        said = await answer.json()
    assert (answer.status, said["error"]["type"]) == (529, "overloaded_error")
    assert "1 API calls are running" in said["error"]["message"]
    assert answer.headers["retry-after"] == "1"
    await sim.gate("middle").open()
    assert await running == 200


async def test_a_request_that_is_too_large(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_BODY", 1000)
    sim, client = await at.caller()

    async def parts() -> Any:
        for _ in range(20):
            yield b" " * 100

    async with client.post("/v1/messages", data=parts()) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["type"] == "request_too_large"
    assert sim.requests == []


async def test_a_request_whose_body_does_not_come(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "BODY_S", 0.05)
    sim, client = await at.caller()
    never = asyncio.Event()

    async def parts() -> Any:
        yield b"{"
        await never.wait()

    async with client.post("/v1/messages", data=parts()) as answer:
        assert answer.status == 408
    never.set()
    assert sim.requests == []
    await at.until(lambda: at.admission.calls_running == 0)


async def test_what_is_not_http_harms_nobody(at: Any) -> None:
    _, client = await at.caller()
    reader, writer = await asyncio.open_unix_connection(str(next(at.folder.iterdir())))
    writer.write(b"\x00\x01 not a request\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.0 400")
    writer.close()
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 200


async def test_a_provider_that_is_not_there(at: Any) -> None:
    at.make(base_url="http://127.0.0.1:9")
    client = await at.client(await at.gateway.issue("x", False))
    async with client.post("/v1/messages", json=at.ask) as answer:
        said = await answer.json()
    assert answer.status == 502
    assert said["error"]["type"] == "api_error"


async def test_a_provider_that_does_not_answer(at: Any) -> None:
    _, client = await at.caller([Rule(When(), fault=Status(500, delay_ms=60_000))], first_byte_s=0.05)
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 504


async def test_a_stream_that_falls_silent(at: Any) -> None:
    _, client = await at.caller([Rule(When(), Reply(["one ", Gate("never"), "two"]))], idle_s=0.05)
    with pytest.raises(aiohttp.ClientError):
        async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
            await answer.read()
    await at.until(lambda: at.admission.calls_running == 0)
    assert at.calls.total.failed == 1


async def test_a_key_that_is_gone(at: Any) -> None:
    _, client = await at.caller()
    at.key = None
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 401
        assert "no API key" in (await answer.json())["error"]["message"]


async def test_a_web_page_is_refused(at: Any) -> None:
    sim, client = await at.caller()
    async with client.post("/v1/messages", json=at.ask, headers={"Origin": "http://127.0.0.1"}) as answer:
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
    assert sim.requests == []


async def test_a_revoked_token_is_worth_nothing(at: Any) -> None:
    sim, client = await at.caller([Rule(When(), Reply(["one ", Gate("middle"), "two"]))])
    token_id = at.gateway.tokens().data[0].token_id
    async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
        await answer.content.readany()
        assert at.gateway.revoke(token_id).revoked
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()  # cut off in the middle
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 401
    assert await sim.wait_ended(sim.messages[0]) == "abandoned"


async def test_the_port_takes_only_what_is_meant_for_it(at: Any) -> None:
    sim = await at.stack.enter_async_context(Simulator())
    at.make(base_url=sim.url)
    over_port = await at.gateway.issue("x", True)
    client = await at.client(over_port)
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 200
    async with client.post("/v1/messages", json=at.ask, headers={"Host": "evil.example"}) as answer:
        assert answer.status == 403
    private = await at.gateway.issue("y", False)
    headers = {"authorization": f"Bearer {private.token}"}
    async with client.post("/v1/messages", json=at.ask, headers=headers) as answer:
        assert answer.status == 401
    assert json.loads(sim.messages[0].body)["model"] == "claude-x"


# -- once more


async def at_once(_seconds: float) -> None:
    """Do not wait between attempts."""


def impatient(at: Any) -> None:
    at.calls.retries = Retries(RetryBudget(), chance=lambda: 0.5, sleep=at_once)


async def test_a_call_that_failed_is_made_once_more_and_its_caller_notices_nothing(at: Any) -> None:
    rules = [Rule(When(), fault=Status(529), times=2), Rule(When(), "Hello")]
    sim, client = await at.caller(rules, attempts=3)
    impatient(at)
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 200
        assert "Hello" in await answer.text()
    assert len(sim.messages) == 3
    assert len({record.body for record in sim.messages}) == 1
    await at.until(lambda: at.admission.calls_running == 0)
    assert (at.calls.total.calls, at.calls.total.failed) == (3, 2)


async def test_what_fails_three_times_is_told_in_the_providers_words(at: Any) -> None:
    sim, client = await at.caller([Rule(When(), fault=Status(503, message="so it is"))], attempts=3)
    impatient(at)
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["message"] == "so it is"
    assert len(sim.messages) == 3


async def test_nothing_is_repeated_once_something_was_passed_on(at: Any) -> None:
    sim, client = await at.caller([Rule(When(), fault="cut")], attempts=3)
    impatient(at)
    with pytest.raises(aiohttp.ClientError):
        async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
            await answer.read()
    await at.until(lambda: at.admission.calls_running == 0)
    assert len(sim.messages) == 1


@pytest.mark.parametrize(
    ("fault", "status"), [("unauthorized", 401), ("payment_required", 402), ("spend_cap", 429)]
)
async def test_what_repeating_cannot_mend_costs_one_request_whoever_asks(
    at: Any, fault: str, status: int
) -> None:
    """TS.23: a hundred callers, one request; each is told at once, in the same class."""
    sim, client = await at.caller([Rule(When(), fault=fault)], attempts=3)
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == status
    for _ in range(100):
        async with client.post("/v1/messages", json=at.ask) as answer:
            assert answer.status in (status, 429)
    assert len(sim.messages) == 1


# -- of a run, whose calls are somebody's turn


class Run:
    """A run's access, and whose turn it is."""

    def __init__(self, at: Any, client: Any, access: Any) -> None:
        self.at, self.client, self.access = at, client, access
        self.payer = Payer("me", turn_id="t-1")
        at.calls.charge(access.grant_id, lambda: self.payer)

    async def ask(self, **more: Any) -> tuple[int, dict[str, Any]]:
        async with self.client.post("/v1/messages", json={**self.at.ask, **more}) as answer:
            return answer.status, await answer.json()


@pytest.fixture
def run_of(at: Any) -> Any:
    async def run_of(script: Any) -> tuple[Simulator, Run]:
        sim = await at.stack.enter_async_context(Simulator(script))
        at.make(base_url=sim.url)
        access = await at.gateway.open_access(unix=True)
        return sim, Run(at, await at.client(access), access)

    return run_of


async def test_a_turn_does_not_ask_again_what_was_refused_for_good(at: Any, run_of: Any) -> None:
    sim, run = await run_of([Rule(When(), fault="unauthorized")])
    first, again = await run.ask(), await run.ask(system="in another form")
    assert first == again
    assert first[0] == 401
    assert len(sim.messages) == 1
    assert (at.calls.total.calls, at.calls.total.failed) == (1, 1), "only what was asked is counted"
    run.payer = Payer("me", turn_id="t-2")
    status, said = await run.ask()
    assert (status, len(sim.messages)) == (401, 1), "the credential is let alone, whoever asks"
    assert "invalid x-api-key" in said["error"]["message"]
    at.key = "another"
    at.admission.credential_changed("apiKey")
    await run.ask()
    assert len(sim.messages) == 2, "another key is another question"


async def test_a_call_of_no_turn_is_asked(at: Any, run_of: Any) -> None:
    sim, run = await run_of([Rule(When(), fault=Status(400, message="so it is"))])
    run.payer = Payer("me")
    for _ in range(2):
        assert (await run.ask())[0] == 400
    assert len(sim.messages) == 2


async def test_a_programs_own_calls_are_its_own_affair(at: Any) -> None:
    sim, client = await at.caller([Rule(When(), fault=Status(400, message="so it is"))])
    for _ in range(2):
        async with client.post("/v1/messages", json=at.ask) as answer:
            assert answer.status == 400
    assert len(sim.messages) == 2


async def test_what_was_refused_is_told_in_the_providers_words(at: Any, run_of: Any) -> None:
    _, run = await run_of([Rule(When(), fault=Status(429, retry_after=7, message="slower"))])
    assert run.access.last_failure() is None
    await run.ask()
    failure = run.access.last_failure()
    assert (failure.category, failure.status, failure.retry_after_ms) == ("throttle", 429, 7000)
    assert failure.message == "slower"
    assert failure.detail.startswith("req_")


@pytest.mark.parametrize("fault", ["cut", "overloaded_event"])
async def test_an_answer_that_broke_off_says_so(at: Any, run_of: Any, fault: str) -> None:
    _, run = await run_of([Rule(When(), Reply(["one two three"]), fault=fault)])
    with contextlib.suppress(aiohttp.ClientError):
        async with run.client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
            await answer.read()
    await at.until(lambda: at.admission.calls_running == 0)
    failure = run.access.last_failure()
    assert (failure.category, failure.status) == ("overload", None)


@pytest.mark.parametrize(
    ("headers", "told"), [({"retry-after-ms": "1500"}, "2"), ({"retry-after": "soon"}, "soon")]
)
async def test_a_pause_is_told_in_seconds_too(at: Any, headers: dict[str, str], told: str) -> None:
    _, client = await at.caller([Rule(When(), fault=Status(429, headers=headers))])
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.headers["retry-after"] == told


async def test_a_turns_budget(at: Any, run_of: Any) -> None:
    """The bearer of a run is worth no more than its turn may cost."""
    tokens = Tokens(input_tokens=100_000, output_tokens=10_000)  # 0.6 USD
    sim, run = await run_of([Rule(When(), Reply(["one"], usage=tokens))])
    run.payer = Payer("me", turn_id="t-1", max_cost_usd=1.0)
    for _ in range(2):
        assert (await run.ask(model="claude-opus-5-5"))[0] == 200
    status, said = await run.ask(model="claude-opus-5-5")
    assert status == 400
    assert "may cost 1 USD (maxBudgetUsd) and has cost 1.2 USD" in said["error"]["message"]
    assert len(sim.messages) == 2
    assert at.calls.total.calls == 2
    assert run.access.last_failure().category == "caller"
    run.payer = Payer("me", turn_id="t-2", max_cost_usd=1.0)
    assert (await run.ask(model="claude-opus-5-5"))[0] == 200, "another turn has its own"


@pytest.mark.parametrize("inside", [False, True])
async def test_pings_alone_are_no_answer(at: Any, inside: bool) -> None:
    fault = Pings("inside_block" if inside else "before_block", every_ms=20)
    sim, client = await at.caller([Rule(When(), Reply(["one two"]), fault=fault)], pings_s=0.3)
    with pytest.raises(aiohttp.ClientError):
        async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
            await answer.read()
    assert await sim.wait_ended(sim.messages[0]) == "abandoned"
    await at.until(lambda: at.admission.calls_running == 0)


async def test_words_between_pings_are_one(at: Any) -> None:
    words: list[Any] = [part for word in "abcdefgh" for part in (word, Ping(), Pause(100))]
    _, client = await at.caller([Rule(When(), Reply(words))], pings_s=0.5)
    async with client.post("/v1/messages", json={**at.ask, "stream": True}) as answer:
        assert b"message_stop" in await answer.read()


async def test_no_subscription_goes_through(at: Any) -> None:
    """A subscription's token is Claude Code's alone, whatever variable it was put into."""
    at.key = "sk-ant-oat01-of-a-subscription"
    sim = await at.stack.enter_async_context(Simulator())
    gateway = at.make(base_url=sim.url)
    assert await gateway.open_access(unix=True) is None
    with pytest.raises(EngineError) as refused:
        await gateway.issue("x", True)
    assert "own login is for itself alone" in str(refused.value)
    assert list(at.folder.iterdir()) == []


async def test_a_callers_own_credential_goes_nowhere(at: Any) -> None:
    sim, client = await at.caller()
    token = client.headers["authorization"].partition(" ")[2]
    headers = {"x-api-key": token, "authorization": "Basic c3ViOnNjcmlwdGlvbg=="}
    async with client.post("/v1/messages", json=at.ask, headers=headers) as answer:
        assert answer.status == 200
    assert sim.messages[0].used_key(at.key)
    assert "authorization" not in sim.messages[0].headers
    async with client.post(
        "/v1/messages", json=at.ask, headers={"authorization": "Bearer sk-ant-oat01-mine"}
    ) as answer:
        assert answer.status == 401
    assert len(sim.messages) == 1


async def test_a_rehearsal_is_answered_here_and_nothing_else_is_passed_on(
    at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = await at.stack.enter_async_context(Simulator())
    access = await at.make(base_url=sim.url).open_access(unix=True)
    client = await at.client(access)
    access.rehearse("the mark")
    marked = {**at.ask, "messages": [{"role": "user", "content": "with the mark"}], "stream": True}
    async with client.post("/v1/messages", json=marked) as answer:
        assert answer.status == 200
        said = await answer.text()
    assert '"text":"the mark"' in said
    assert "message_stop" in said
    async with client.post("/v1/messages", json=at.ask) as answer:
        assert answer.status == 404
    monkeypatch.setattr(asking, "MOST_BODY", 10)
    async with client.post("/v1/messages", json=marked) as answer:
        assert answer.status == 413
    monkeypatch.undo()
    assert (len(sim.requests), at.calls.total.calls) == (0, 0)
    access.rehearse(None)
    async with client.post("/v1/messages", json=marked) as answer:
        assert "You said" in await answer.text()
    assert (len(sim.requests), at.calls.total.calls) == (1, 1)
    access.revoke()
    access.rehearse("nobody's any more")


async def test_nested_agents_never_wait_for_themselves(at: Any) -> None:
    """One place for turns and one for calls: turns within turns, each with its own run's access, all call.

    Every turn but the deepest holds its call open (its tool asks the daemon meanwhile) until all below it are
    over. Somebody else's turn and call wait.
    """
    rules = [Rule(When(text="deepest"), "done"), Rule(When(), Reply(["begun ", Gate("open"), "over"]))]
    sim = await at.stack.enter_async_context(Simulator(rules))
    at.make(base_url=sim.url, max_calls=1)
    order: list[str] = []

    async def call(turn_id: str, text: str, below: Any) -> None:
        access = await at.gateway.open_access(unix=True)
        at.calls.charge(access.grant_id, lambda: Payer(turn_id, turn_id=turn_id))
        client = await at.client(access)
        asked = {**at.ask, "messages": [{"role": "user", "content": text}], "stream": True}
        async with client.post("/v1/messages", json=asked) as answer:
            await answer.content.readany()
            if below is not None:
                await below
            await answer.read()
        order.append(turn_id)

    async def turn(depth: int) -> None:
        parent = f"t{depth - 1}" if depth else None
        async with at.admission.admit(Asked(client=f"c{depth}", turn_id=f"t{depth}", parent=parent)):
            if depth == 4:
                await call(f"t{depth}", "deepest", None)
            else:
                await call(f"t{depth}", f"at {depth}", turn(depth + 1))

    async with asyncio.timeout(30):
        outermost = asyncio.create_task(turn(0))
        await at.until(lambda: at.admission.calls_running >= 1)
        stranger = asyncio.create_task(turn_of_a_stranger(at, order))
        await at.until(lambda: "t4" in order)
        assert order == ["t4"]
        assert not stranger.done()
        await sim.gate("open").open()
        await asyncio.gather(outermost, stranger)
    assert order == ["t4", "t3", "t2", "t1", "t0", "stranger"]


async def turn_of_a_stranger(at: Any, order: list[str]) -> None:
    async with at.admission.admit(Asked(client="stranger")):
        order.append("stranger")


async def test_a_program_whose_budget_is_spent_is_not_asked_to_come_again(at: Any) -> None:
    sim, client = await at.caller()

    def broke() -> Any:
        raise EngineError("budget_exhausted", "The budget is spent.", retry_after_ms=3_600_000)

    at.calls._reserve = lambda _payer: broke
    async with client.post("/v1/messages", json=at.ask) as answer:
        said = await answer.json()
        assert (answer.status, said["error"]["type"]) == (400, "invalid_request_error")
        assert "The budget is spent." in said["error"]["message"]
    assert sim.requests == []
