"""What is sent with a token, and what is not."""

from typing import Any

import pytest
from dragoman_protocol.orchestrate import OrchestrateOutcome
from dragoman_protocol.stream import AssistantText, StreamEventParams, TextDelta
from dragomand.engine.channel import Published
from dragomand.handlers.progress import event_progress, outcome_progress

DELTA = Published(StreamEventParams(session_id="s", event=TextDelta(item_id="i", offset=0, text="x")))
FINAL = Published(
    StreamEventParams(session_id="s", event=AssistantText(item_id="i", text="x"), seq=1, cursor="e:1")
)


async def test_no_token_no_progress(house: Any) -> None:
    async with house() as at:
        client = at.client()
        assert event_progress(client, None) is None
        outcome_progress(client, None)(OrchestrateOutcome(index=0))
        assert client.told == []


@pytest.mark.parametrize("token", [0, "", "t", 7])
async def test_the_token_comes_back_as_it_was(house: Any, token: Any) -> None:
    async with house() as at:
        client = at.client()
        send = event_progress(client, token)
        assert send is not None
        send(DELTA)
        outcome_progress(client, token)(OrchestrateOutcome(index=3))
        assert [told["token"] for told in client.of("$/progress")] == [token, token]
        assert client.of("$/progress")[1]["value"] == {"index": 3}


async def test_after_a_durable_event_was_refused_nothing_comes(house: Any) -> None:
    async with house() as at:
        client = at.client()
        send = event_progress(client, 1)
        assert send is not None
        client.takes_ephemeral = False
        send(DELTA)
        client.takes_ephemeral = True
        send(FINAL)
        assert len(client.told) == 1, "a delta that was left out ends nothing"
        client.takes_durable = False
        send(FINAL)
        client.takes_durable = True
        send(DELTA)
        send(FINAL)
        assert len(client.told) == 1
