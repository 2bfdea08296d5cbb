"""`daemon/*`."""

from collections.abc import Callable

from dragoman_protocol.lifecycle import (
    DaemonPoolResult,
    DaemonStatusResult,
    DaemonStopParams,
    DaemonStopResult,
)
from dragoman_protocol.values import Empty

from dragomand.server.route import Call, Handler


def daemon_handlers(
    status: Callable[[], DaemonStatusResult],
    stop: Callable[[int | None], int],
    pool: Callable[[], DaemonPoolResult],
) -> dict[str, Handler]:
    """Return the group's handlers by method; *stop* takes the grace in ms and returns how many turns run."""

    def status_(_call: Call, _params: Empty) -> DaemonStatusResult:
        return status()

    def stop_(_call: Call, params: DaemonStopParams) -> DaemonStopResult:
        return DaemonStopResult(stopping=True, running=stop(params.grace_ms))

    def pool_(_call: Call, _params: Empty) -> DaemonPoolResult:
        return pool()

    return {"daemon/status": status_, "daemon/stop": stop_, "daemon/pool": pool_}

