"""`stats/*`."""

from dragoman_protocol.stats import StatsGetParams, StatsGetResult, StatsResetResult
from dragoman_protocol.values import Empty

from dragomand.engine.statistics import Statistics
from dragomand.server.route import Call, Handler

from .caller import caller_of


def stats_handlers(statistics: Statistics) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    async def get(call: Call, params: StatsGetParams) -> StatsGetResult:
        return await statistics.get(caller_of(call.client), params.since)

    async def reset(_call: Call, _params: Empty) -> StatsResetResult:
        return StatsResetResult(since=await statistics.reset())

    return {"stats/get": get, "stats/reset": reset}
