"""`breaker/*`."""

from dragoman_protocol.breaker import BreakerResetParams, BreakerResetResult, BreakerStateResult
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission
from dragomand.engine.start_breakers import StartBreakers
from dragomand.server.route import Call, Handler


def breaker_handlers(admission: Admission, starts: StartBreakers) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(_call: Call, _params: Empty) -> BreakerStateResult:
        return BreakerStateResult(breakers=admission.breakers() + starts.told())

    def reset(_call: Call, params: BreakerResetParams) -> BreakerResetResult:
        closed = admission.reset_breakers(params.host, params.models)
        return BreakerResetResult(reset=closed + starts.reset(params.host, params.models))

    return {"breaker/state": state, "breaker/reset": reset}
