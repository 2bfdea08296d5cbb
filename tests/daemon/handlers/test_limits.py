"""`limits/state`."""

from typing import Any

from dragoman_protocol.session import Usage
from dragomand.engine.call import Payer


async def test_state(house: Any) -> None:
    async with house(max_running=1, max_queued=9, max_queued_per_client=3) as at:
        client, gate = at.client(), at.kit.Gated()
        state = at.call(client, "limits/state")
        assert (state.running, state.queued) == (0, 0)
        assert (state.max_running, state.max_queued, state.max_queued_per_client) == (1, 9, 3)
        at.engine.upstream.scripts.append(gate)
        queries = [at.start(client, "query/run", prompt="hi", cwd=str(at.engine.cwd)) for _ in range(2)]
        await at.kit.soon(gate.reached)
        await at.kit.until(lambda: at.engine.admission.queued == 1)
        state = at.call(client, "limits/state")
        assert (state.running, state.queued) == (1, 1)
        gate.go.set()
        for query in queries:
            await query


async def test_calls(house: Any) -> None:
    async with house() as at:
        calls = at.engine.calls
        mine, other = at.client(), at.client()
        for client in (mine, other):
            grant, _ = calls.grant()
            payer = Payer(client.id, client.name, f"of {client.id}")
            calls.charge(grant.grant_id, lambda payer=payer: payer)
            async with calls.call(grant) as call:
                call.status, call.finished = 200, True
                call.usage = Usage(input_tokens=3, output_tokens=4)
                assert at.call(mine, "limits/state").calls_running == 1
        state = at.call(mine, "limits/state")
        assert (state.calls_running, state.calls_queued, state.max_calls) == (0, 0, 16)
        assert (state.usage.total.calls, state.usage.total.usage.output_tokens) == (2, 8)
        assert [each.client for each in state.usage.clients] == [mine.id]
        assert [each.turn_id for each in state.usage.turns] == [f"of {mine.id}"]
        assert state.ratelimit is None
        everything = at.call(at.client("admin"), "limits/state").usage
        assert [each.client for each in everything.clients] == [mine.id, other.id]
        assert len(everything.turns) == 2
