"""`limits/*`."""

from dragoman_protocol.limits import CallUsage, LimitsStateResult
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission
from dragomand.engine.calls import Calls
from dragomand.server.route import Call, Handler


def limits_handlers(admission: Admission, calls: Calls) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(call: Call, _params: Empty) -> LimitsStateResult:
        max_running, max_queued, max_queued_per_client = admission.bounds
        only = None if "admin" in call.client.scopes else call.client.id
        return LimitsStateResult(
            running=admission.running,
            queued=admission.queued,
            max_running=max_running,
            max_queued=max_queued,
            max_queued_per_client=max_queued_per_client,
            calls_running=admission.calls_running,
            calls_queued=admission.calls_queued,
            max_calls=admission.max_calls,
            usage=CallUsage(total=calls.total, clients=calls.clients(only), turns=calls.turns(only)),
            ratelimit=calls.limits.snapshot(),
        )

    return {"limits/state": state}
