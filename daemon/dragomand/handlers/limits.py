"""`limits/*`."""

from dragoman_protocol.limits import LimitsStateResult
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission
from dragomand.server.route import Call, Handler


def limits_handlers(admission: Admission) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(_call: Call, _params: Empty) -> LimitsStateResult:
        max_running, max_queued, max_queued_per_client = admission.bounds
        return LimitsStateResult(
            running=admission.running,
            queued=admission.queued,
            max_running=max_running,
            max_queued=max_queued,
            max_queued_per_client=max_queued_per_client,
        )

    return {"limits/state": state}
