"""pygls's own client, over `dragoman stdio`: initialize, a query with progress, a cancel, shutdown."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from dragoman_sim import Simulator
from pygls.client import JsonRPCClient
from pygls.exceptions import JsonRpcException


async def test_pygls_asks_watches_cancels_and_leaves(
    env: dict[str, str], sim: Simulator, tmp_path: Path
) -> None:
    client = JsonRPCClient()
    events: list[Any] = []
    counting = asyncio.Event()

    @client.feature("$/progress")
    def progress(params: Any) -> None:
        events.append(params)
        if params.token == "count" and params.value.event.type == "textDelta":
            counting.set()

    await client.start_io(sys.executable, "-m", "dragoman.cli.main", "stdio", env=env)
    request = client.protocol.send_request_async
    async with asyncio.timeout(60):
        opened = await request("initialize", {"clientInfo": {"name": "pygls"}})
        assert opened.serverInfo.name == "dragoman"
        work = str(tmp_path / "work")
        answer = await request("query/run", {"prompt": "Say hello", "cwd": work, "partialResultToken": "ask"})
        assert answer.text == "Hello to you."
        asked = [params.value.event for params in events if params.token == "ask"]
        assert "".join(event.text for event in asked if event.type == "textDelta") == "Hello to you."
        assert asked[-1].type == "turnCompleted"
        assert (await sim.wait_for(1)).from_claude_code

        counted = client.protocol.send_request(
            "query/run", {"prompt": "Count", "cwd": work, "partialResultToken": "count"}, msg_id="to-cancel"
        )
        await counting.wait()
        client.protocol.notify("$/cancelRequest", {"id": "to-cancel"})
        with pytest.raises(JsonRpcException) as cancelled:
            await asyncio.wrap_future(counted)
        error: Any = cancelled.value
        assert error.code == -32800
        assert error.data["kind"] == "request_cancelled"
        assert error.data["text"] == "1, 2, 3, "
        await request("shutdown", None)
        client.protocol.notify("exit", None)
        await client.stop()
