"""`stream/*` for a client: events as notifications, a reader that is too slow, a connection that closes."""

import asyncio
from typing import Any

import pytest


async def opened(at: Any, client: Any, **params: Any) -> Any:
    folder = {} if "sessionId" in params else {"cwd": str(at.engine.cwd)}
    return await at.call(client, "stream/open", **folder, **params)


async def test_open_send_and_see(house: Any) -> None:
    async with house() as at:
        client = at.client()
        stream = await opened(at, client)
        assert stream.cursor.endswith(":0")
        sent = await at.call(client, "stream/send", sessionId=stream.session_id, prompt="hi")
        await client.hears("turnCompleted")
        assert client.kinds("stream/event") == [
            "turnStarted",
            "userMessage",
            "textDelta",
            "assistantText",
            "usage",
            "turnCompleted",
        ]
        first = client.of("stream/event")[0]
        assert (first["sessionId"], first["seq"], first["event"]["turnId"]) == (
            stream.session_id,
            1,
            sent.turn_id,
        )
        await at.call(client, "stream/close", sessionId=stream.session_id)
        again = await at.refused(
            "stream_not_open", at.call(client, "stream/close", sessionId=stream.session_id)
        )
        assert again.data.session_id == stream.session_id
        assert at.engine.attachments.open == 1, "whoever is attached stays attached to the session"
        client.close()
        at.engine.check_idle()


async def test_a_stored_session_is_opened_from_where_it_stands(house: Any) -> None:
    async with house() as at:
        client = at.client()
        session_id = (await at.query(client)).session_id
        stream = await opened(at, client, sessionId=session_id)
        assert stream.cursor.endswith(":5")
        assert client.told == []


async def test_attach_and_detach(house: Any) -> None:
    async with house() as at:
        client, watcher = at.client(), at.client()
        stream = await opened(at, client)
        attached = await at.call(watcher, "stream/attach", sessionId=stream.session_id)
        assert (attached.status, attached.cursor, attached.turn_id) == ("replayed", stream.cursor, None)
        await at.call(client, "stream/send", sessionId=stream.session_id, prompt="hi")
        await watcher.hears("turnCompleted")
        await at.call(watcher, "stream/detach", sessionId=stream.session_id)
        await at.call(watcher, "stream/detach", sessionId=stream.session_id)
        before = len(watcher.told)
        await client.hears("turnCompleted")
        await at.call(client, "stream/send", sessionId=stream.session_id, prompt="more")
        await at.kit.until(lambda: client.kinds("stream/event").count("turnCompleted") == 2)
        assert len(watcher.told) == before
        await at.refused("invalid_params", at.call(watcher, "stream/attach", sessionId="x", cursor="x"))


@pytest.mark.parametrize("cursor", [None, "old:3"])
async def test_a_slow_reader_is_told_where_to_continue_even_from_the_very_beginning(
    house: Any, cursor: Any
) -> None:
    async with house() as at:
        client = at.client()
        session_id = (await at.query(client)).session_id
        client.takes_durable = False
        await at.call(client, "stream/attach", sessionId=session_id, **({"cursor": cursor} if cursor else {}))
        (dropped,) = client.of("stream/dropped")
        assert dropped["sessionId"] == session_id
        assert dropped["cursor"].endswith(":0")
        client.takes_durable = True
        attached = await at.call(client, "stream/attach", sessionId=session_id, cursor=dropped["cursor"])
        assert attached.status == "replayed"
        assert [event["seq"] for event in client.of("stream/event")] == [1, 2, 3, 4, 5]


async def test_a_reader_that_becomes_slow_loses_nothing(house: Any) -> None:
    async with house() as at:
        client, gate = at.client(), at.kit.Gated()
        at.engine.upstream.scripts.append(gate)
        stream = await opened(at, client)
        await at.call(client, "stream/send", sessionId=stream.session_id, prompt="hi")
        await at.kit.soon(gate.reached)
        await client.hears("textDelta")
        client.takes_durable = client.takes_ephemeral = False
        gate.go.set()
        await at.kit.until(lambda: bool(client.of("stream/dropped")))
        await at.kit.until(lambda: not at.engine.streams.busy)
        (dropped,) = client.of("stream/dropped")
        assert dropped["cursor"] == client.of("stream/event")[1]["cursor"]
        client.takes_durable = client.takes_ephemeral = True
        await at.call(client, "stream/attach", sessionId=stream.session_id, cursor=dropped["cursor"])
        assert [event["seq"] for event in client.of("stream/event") if "seq" in event] == [1, 2, 3, 4, 5]
        assert len(client.of("stream/dropped")) == 1


async def test_a_client_too_slow_for_deltas_stays_attached(house: Any) -> None:
    async with house() as at:
        client = at.client()
        client.takes_ephemeral = False
        stream = await opened(at, client)
        await at.call(client, "stream/send", sessionId=stream.session_id, prompt="hi")
        await client.hears("turnCompleted")
        assert "textDelta" not in client.kinds("stream/event")
        assert client.of("stream/dropped") == []


async def test_a_connection_that_closes_leaves_nothing_attached(house: Any) -> None:
    async with house() as at:
        client = at.client()
        first = (await at.query(client)).session_id
        second = (await at.query(client)).session_id
        for session_id in (first, second, first):
            await at.call(client, "stream/attach", sessionId=session_id)
        assert at.engine.attachments.open == 2
        assert len(client._on_close) == 2, "one for its sessions, one for its attachments"
        client.close()
        at.engine.check_idle()


@pytest.mark.parametrize("method", ["stream/attach", "stream/open"])
async def test_a_connection_that_had_closed_before_it_was_attached(house: Any, method: str) -> None:
    async with house(idle_s=0.01) as at:
        session_id = (await at.query(at.client())).session_id
        client = at.client()
        client.close()
        await at.call(client, method, sessionId=session_id)
        assert at.engine.attachments.open == 0
        assert list(at.engine.sessions.seen_by(client.id)) == []
        await at.kit.until(lambda: at.engine.streams.count == 0)
        at.engine.check_idle()


async def test_interrupting(house: Any) -> None:
    async with house() as at:
        client, gate = at.client(), at.kit.Gated()
        stream = await opened(at, client)
        session_id = stream.session_id
        assert not (await at.call(client, "stream/interrupt", sessionId=session_id)).interrupted
        at.engine.upstream.scripts.append(gate)
        sent = await at.call(client, "stream/send", sessionId=session_id, prompt="hi")
        await at.kit.soon(gate.reached)
        other = await at.call(client, "stream/interrupt", sessionId=session_id, turnId="another")
        assert not other.interrupted
        this = await at.call(client, "stream/interrupt", sessionId=session_id, turnId=sent.turn_id)
        assert this.interrupted
        await client.hears("turnCompleted")
        assert client.of("stream/event")[-1]["event"]["status"] == "cancelled"


async def test_interrupting_a_query_of_somebody_else(house: Any) -> None:
    async with house() as at:
        client, other, gate = at.client(), at.client(), at.kit.Gated()
        at.engine.upstream.scripts.append(gate)
        query = at.start(client, "query/run", prompt="hi", cwd=str(at.engine.cwd))
        await at.kit.soon(gate.reached)
        (session_id,) = at.engine.sessions.seen_by(client.id)
        assert (await at.call(other, "stream/interrupt", sessionId=session_id)).interrupted
        error = await at.refused("request_cancelled", query)
        assert error.data.text == "half"


async def test_interrupting_a_query_that_still_waits(house: Any) -> None:
    async with house() as at:
        client, other = at.client(), at.client()
        session_id = (await at.query(client)).session_id
        most, gates = at.engine.admission.settings.max_running, []
        running = []
        for _ in range(most):
            gates.append(at.kit.Gated())
            at.engine.upstream.scripts.append(gates[-1])
            running.append(at.start(client, "query/run", prompt="hi", cwd=str(at.engine.cwd)))
            await at.kit.soon(gates[-1].reached)
        waits = at.start(client, "query/run", prompt="more", sessionId=session_id)
        await at.kit.until(lambda: at.engine.admission.queued == 1)
        named = await at.call(other, "stream/interrupt", sessionId=session_id, turnId="some turn")
        assert not named.interrupted, "what waits is no turn yet"
        assert (await at.call(other, "stream/interrupt", sessionId=session_id)).interrupted
        error = await at.refused("request_cancelled", waits)
        assert error.data.session_id == session_id
        assert at.engine.admission.queued == 0
        for gate in gates:
            gate.go.set()
        for each in running:
            await each
        assert "more" not in at.engine.upstream.prompts
        assert (await at.query(client, sessionId=session_id)).text == "hello", "it is free again"


async def test_interrupting_where_nothing_runs(house: Any) -> None:
    async with house() as at:
        client = at.client()
        session_id = (await at.query(client)).session_id
        assert not (await at.call(client, "stream/interrupt", sessionId=session_id)).interrupted
        await at.refused("session_not_found", at.call(client, "stream/interrupt", sessionId="nothing"))
        at.engine.check_idle()


async def test_one_cancelled_in_the_middle_of_a_replay_is_not_attached(house: Any) -> None:
    async with house() as at:
        session_id = (await at.query(at.client())).session_id
        client = at.client()
        attaching = at.start(client, "stream/attach", sessionId=session_id)
        await at.kit.until(lambda: at.engine.attachments.open == 1)
        attaching.cancel()
        await asyncio.wait([attaching])
        assert attaching.cancelled()
        at.engine.check_idle()


async def test_rewinding_files(house: Any) -> None:
    async with house() as at:
        client = at.client()
        stream = await opened(at, client, fileCheckpointing=True)
        sent = await at.call(client, "stream/send", sessionId=stream.session_id, prompt="hi")
        await client.hears("turnCompleted")
        named = {"sessionId": stream.session_id, "turnId": sent.turn_id}
        await at.engine.streams._open[stream.session_id].turn_over.wait()
        asked = await at.call(client, "stream/rewindFiles", **named, dryRun=True)
        assert (asked.files, asked.rewound) == (["/a/file"], False)
        assert (await at.call(client, "stream/rewindFiles", **named)).rewound
        await at.call(client, "stream/close", sessionId=stream.session_id)
