"""`daemon/*`."""

from typing import Any

import pytest
from dragoman_protocol.lifecycle import DaemonPoolResult, DaemonStatusResult


async def test_status(house: Any) -> None:
    async with house() as at:
        at.status = DaemonStatusResult(
            pid=1, version="v", socket="s", started_at=0, uptime_ms=1, state="running",
            connections=1, running=0, queued=0, sessions_open=0,
        )  # fmt: skip
        assert at.call(at.client(), "daemon/status") is at.status


async def test_pool(house: Any) -> None:
    async with house() as at:
        at.pool = DaemonPoolResult(max_spare=2, warm=1)
        assert at.call(at.client("admin"), "daemon/pool") is at.pool


@pytest.mark.parametrize(("params", "grace"), [({}, None), ({"graceMs": 0}, 0), ({"graceMs": 250}, 250)])
async def test_stop(house: Any, params: dict[str, int], grace: int | None) -> None:
    async with house() as at:
        result = at.call(at.client("admin"), "daemon/stop", **params)
        assert (result.stopping, result.running) == (True, 7)
        assert at.stops == [grace]
