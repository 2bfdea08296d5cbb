"""`query/run` for a client: its result, its progress, its errors; and a client that is slow, or gone."""

import asyncio
from typing import Any

from dragoman_protocol.errors import RpcError


async def test_a_result_and_no_progress_without_a_token(house: Any) -> None:
    async with house() as at:
        client = at.client()
        result = await at.query(client)
        assert (result.text, result.upstream) == ("hello", "claudeCode")
        assert client.told == []


async def test_progress_comes_with_the_clients_token(house: Any) -> None:
    async with house() as at:
        client = at.client()
        result = await at.query(client, partialResultToken="tok")
        assert {params["token"] for params in client.of("$/progress")} == {"tok"}
        assert client.kinds("$/progress") == [
            "turnStarted",
            "userMessage",
            "textDelta",
            "assistantText",
            "usage",
            "turnCompleted",
        ]
        values = [params["value"] for params in client.of("$/progress")]
        assert {value["sessionId"] for value in values} == {result.session_id}
        assert [value.get("seq") for value in values] == [1, 2, None, 3, 4, 5]
        assert values[2]["event"] == {"type": "textDelta", "itemId": "text-1", "offset": 0, "text": "hello"}


async def test_a_client_too_slow_for_deltas_misses_only_those(house: Any) -> None:
    async with house() as at:
        client = at.client()
        client.takes_ephemeral = False
        assert (await at.query(client, partialResultToken=0)).text == "hello"
        assert client.kinds("$/progress") == [
            "turnStarted",
            "userMessage",
            "assistantText",
            "usage",
            "turnCompleted",
        ]


async def test_a_client_too_slow_for_events_gets_no_more_and_still_its_answer(house: Any) -> None:
    async with house() as at:
        client, gate = at.client(), at.kit.Gated()
        at.engine.upstream.scripts.append(gate)
        query = at.start(client, "query/run", prompt="hi", cwd=str(at.engine.cwd), partialResultToken=1)
        await at.kit.soon(gate.reached)
        client.takes_durable = False
        gate.turn.said("lost", item="other")
        await at.kit.until(lambda: at.engine.admission.running == 1)
        gate.go.set()
        result = await query
        client.takes_durable = True
        assert result.text == "half and half"
        # Deltas came as long as no durable event had been refused; nothing afterwards, so there is no hole.
        assert client.kinds("$/progress")[:3] == ["turnStarted", "userMessage", "textDelta"]
        assert set(client.kinds("$/progress")[3:]) <= {"textDelta"}
        whole = at.client()
        await at.call(whole, "stream/attach", sessionId=result.session_id)
        assert "turnCompleted" in whole.kinds("stream/event")


async def test_errors_travel_with_their_data(house: Any) -> None:
    async with house() as at:
        at.engine.upstream.scripts.append(
            at.kit.failing("throttle", "slow down", retry_after_ms=1500, status=429)
        )
        error = await at.refused("throttled", at.query(at.client()))
        assert (error.code, error.message, error.retryable) == (1203, "slow down", True)
        assert (error.data.retry_after_ms, error.data.status) == (1500, 429)
        assert error.data.session_id


async def test_a_connection_that_closes_takes_its_query_with_it(house: Any) -> None:
    """The server cancels the handler's task; nothing of the client is left over."""
    async with house() as at:
        client, gate = at.client(), at.kit.Gated()
        at.engine.upstream.scripts.append(gate)
        query = at.start(client, "query/run", prompt="hi", cwd=str(at.engine.cwd), partialResultToken=1)
        await at.kit.soon(gate.reached)
        client.close()
        query.cancel()
        error = (await asyncio.gather(query, return_exceptions=True))[0]
        assert isinstance(error, RpcError)
        assert (error.kind, error.data.text) == ("request_cancelled", "half")
        assert set(at.engine.sessions.seen_by(client.id)) == set()
        at.engine.check_idle()


async def test_a_permission_is_requested_of_the_client(house: Any) -> None:
    async with house() as at:
        client = at.client(permissions=True)
        client.answer = lambda: {"decision": "allow"}
        answers: list[Any] = []

        async def script(turn: Any) -> Any:
            answers.append(await turn.may("Write", path="x"))
            return await at.kit.answering("ok")(turn)

        at.engine.upstream.scripts.append(script)
        result = await at.query(client)
        ((method, question),) = client.questions
        assert method == "permission/request"
        assert (question.tool_name, question.session_id) == ("Write", result.session_id)
        assert answers[0].allow


async def test_who_wants_to_know_of_limits_is_told_that_its_turn_waits(house: Any) -> None:
    async with house(max_running=1) as at:
        client, other, deaf = at.client(), at.client(), at.client()
        client.capabilities["limits"] = True
        gate = at.kit.Gated()
        at.engine.upstream.scripts.append(gate)
        first = at.start(other, "query/run", prompt="hi", cwd=str(at.engine.cwd))
        await at.kit.soon(gate.reached)
        waits = [at.start(each, "query/run", prompt="hi", cwd=str(at.engine.cwd)) for each in (client, deaf)]
        await at.kit.until(lambda: at.engine.admission.queued == 2)
        gate.go.set()
        results = [await each for each in waits]
        (told,) = client.of("limits/waiting")
        assert (told["sessionId"], told["turnId"]) == (results[0].session_id, results[0].turn_id)
        assert (told["reason"], told["position"]) == ("concurrency", 0)
        assert "limits.maxRunning" in told["text"]
        assert deaf.told == []
        await first
