"""`daemon/*`."""

from collections.abc import Callable

from dragoman_protocol.lifecycle import (
    DaemonPoolResult,
    DaemonStatusResult,
    DaemonStopParams,
    DaemonStopResult,
    SpareProcess,
)
from dragoman_protocol.values import Empty

from dragomand.server.route import Call, Handler
from dragomand.upstream.interface import PoolState


def daemon_handlers(
    status: Callable[[], DaemonStatusResult],
    stop: Callable[[int | None], int],
    pool: Callable[[], PoolState],
) -> dict[str, Handler]:
    """Return the group's handlers by method; *stop* takes the grace in ms and returns how many turns run."""

    def status_(_call: Call, _params: Empty) -> DaemonStatusResult:
        return status()

    def stop_(_call: Call, params: DaemonStopParams) -> DaemonStopResult:
        return DaemonStopResult(stopping=True, running=stop(params.grace_ms))

    def pool_(_call: Call, _params: Empty) -> DaemonPoolResult:
        return _told(pool())

    return {"daemon/status": status_, "daemon/stop": stop_, "daemon/pool": pool_}


def _told(state: PoolState) -> DaemonPoolResult:
    return DaemonPoolResult(
        max_spare=state.max_spare,
        spares=[
            SpareProcess(
                key=spare.key,
                cwd=spare.cwd,
                state="ready" if spare.ready else "starting",
                age_ms=round(spare.age_s * 1000),
                memory_bytes=spare.memory_bytes,
            )
            for spare in state.spares
        ],
        keys=state.keys,
        warm=state.warm,
        cold=state.cold,
        ended=state.ended,
    )
