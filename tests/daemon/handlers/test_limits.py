"""`limits/state`."""

from typing import Any


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
