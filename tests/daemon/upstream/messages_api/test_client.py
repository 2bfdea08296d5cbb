"""The pool, the key, counting."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from dragoman_protocol.stream import TextDelta
from dragoman_sim import Gate, Reply, Rule, Simulator, Stall, When
from dragomand.upstream.interface import HistoryMessage, UpstreamError
from dragomand.upstream.messages_api import DirectSettings, MessagesApi

COUNT = "/v1/messages/count_tokens"


async def test_without_a_key_nothing_is_opened(kit: Any) -> None:
    async with kit.api("http://127.0.0.1:9", key=None) as api:
        with pytest.raises(UpstreamError) as caught:
            await api.open(kit.spec(), kit.nobody)
    assert caught.value.failure.category == "auth"


async def test_the_key_is_asked_for_at_every_call(kit: Any) -> None:
    keys: list[str | None] = ["one", "one", "two", None]
    async with Simulator() as sim:
        api = MessagesApi(api_key=lambda: keys.pop(0), settings=DirectSettings(base_url=sim.url))
        run = await api.open(kit.spec(), kit.nobody)
        assert (await run.send("a", "m", kit.Events())).status == "completed"
        assert (await run.send("b", "m", kit.Events())).status == "completed"
        outcome = await run.send("c", "m", kit.Events())
        assert outcome.failure is not None
        assert outcome.failure.category == "auth"
        assert [record.used_key("two") for record in sim.messages] == [False, True]
        await api.close()


async def test_closing_breaks_off_what_runs_and_opens_no_more(kit: Any) -> None:
    async with kit.talk([Rule(When(text="slowly"), Reply(["half", Gate("g")]))]) as talk:
        events = kit.Events()
        turn = asyncio.create_task(talk.send("slowly", events))
        await events.wait_for(TextDelta)
        await talk.api.close()
        assert (await turn).status == "interrupted"
        with pytest.raises(UpstreamError, match="stopping"):
            await talk.api.open(kit.spec(), kit.nobody)


async def test_tokens_are_counted_by_the_api(kit: Any) -> None:
    async with kit.talk() as talk:
        few, model = await talk.api.count_tokens(kit.spec(model="haiku"), "short")
        history = (HistoryMessage("user", "x" * 4000), HistoryMessage("assistant", "y"))
        many, _ = await talk.api.count_tokens(kit.spec(history=history), "short")
        assert model == "claude-haiku-5-5"
        assert many > few + 900
        assert [record.path for record in talk.sim.requests] == [COUNT, COUNT]


@pytest.mark.parametrize(
    ("fault", "category"),
    [("rate_limited", "throttle"), ("bad_request", "caller"), ("cut_before_headers", "overload")],
)
async def test_counting_fails_as_a_turn_does(kit: Any, fault: str, category: str) -> None:
    async with kit.talk([Rule(When(path=COUNT), fault=fault)]) as talk:
        with pytest.raises(UpstreamError) as caught:
            await talk.api.count_tokens(kit.spec(), "x")
    assert caught.value.failure.category == category


async def test_counting_does_not_wait_for_ever(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragomand.upstream.messages_api.client.COUNT_TIMEOUT_S", 0.2)
    async with kit.talk([Rule(When(path=COUNT), fault=Stall("before_headers"))]) as talk:
        with pytest.raises(UpstreamError, match=r"0\.2 s"):
            await talk.api.count_tokens(kit.spec(), "x")


def test_the_http_client_is_loaded_only_when_it_is_needed() -> None:
    code = (
        "import sys; import dragomand.app; "
        "print([name for name in ('aiohttp', 'jsonschema', 'anthropic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
