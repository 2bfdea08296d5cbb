"""`orchestrate/*`."""

from dragoman_protocol.orchestrate import OrchestrateParallelParams, OrchestrateParallelResult

from dragomand.engine.orchestrations import Orchestrations
from dragomand.engine.sessions import Sessions
from dragomand.server.route import Call, Handler

from .caller import caller_of
from .progress import outcome_progress
from .sessions_seen import noting


def orchestrate_handlers(orchestrations: Orchestrations, sessions: Sessions) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    async def parallel(call: Call, params: OrchestrateParallelParams) -> OrchestrateParallelResult:
        return await orchestrations.parallel(
            params,
            caller_of(call.client),
            started=noting(call.client, sessions),
            outcome=outcome_progress(call.client, params.partial_result_token),
        )

    return {"orchestrate/parallel": parallel}
