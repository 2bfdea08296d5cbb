"""What is kept warm, as a value that travels."""

from dragoman_protocol.lifecycle import DaemonPoolResult, SpareProcess

from dragomand.upstream.interface import PoolState


def pool_result(state: PoolState) -> DaemonPoolResult:
    """Return *state* in milliseconds and words."""
    spares = [
        SpareProcess(
            key=spare.key,
            cwd=spare.cwd,
            state="ready" if spare.ready else "starting",
            age_ms=round(spare.age_s * 1000),
            memory_bytes=spare.memory_bytes,
            rehearsed=spare.rehearsed,
        )
        for spare in state.spares
    ]
    return DaemonPoolResult(
        max_spare=state.max_spare,
        spares=spares,
        keys=state.keys,
        warm=state.warm,
        cold=state.cold,
        kept=state.kept,
        ended=state.ended,
        held_back=state.held_back,
    )
