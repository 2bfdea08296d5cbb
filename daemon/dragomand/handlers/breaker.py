"""`breaker/*`."""

from dragoman_protocol.breaker import BreakerResetParams, BreakerResetResult, BreakerStateResult
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission
from dragomand.server.route import Call, Handler


def breaker_handlers(admission: Admission) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(_call: Call, _params: Empty) -> BreakerStateResult:
        return BreakerStateResult(breakers=admission.breakers())

    def reset(_call: Call, params: BreakerResetParams) -> BreakerResetResult:
        return BreakerResetResult(reset=admission.reset_breakers(params.host, params.models))

    return {"breaker/state": state, "breaker/reset": reset}
