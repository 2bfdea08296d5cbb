"""`limits/*`."""

from dragoman_protocol.limits import CallUsage, LimitsStateResult
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission
from dragomand.engine.calls import Calls
from dragomand.server.route import Call, Handler


def limits_handlers(admission: Admission, calls: Calls) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(call: Call, _params: Empty) -> LimitsStateResult:
        settings = admission.settings
        only = None if "admin" in call.client.scopes else call.client.id
        return LimitsStateResult(
            running=admission.turns.running,
            queued=admission.turns.queued,
            max_running=settings.max_running,
            max_queued=settings.max_queued,
            max_queued_per_client=settings.max_queued_per_client,
            calls_running=admission.calls.running,
            calls_queued=admission.calls.queued,
            max_calls=settings.max_calls,
            usage=CallUsage(total=calls.total, clients=calls.clients(only), turns=calls.turns(only)),
            ratelimit=calls.limits.snapshot(),
        )

    return {"limits/state": state}
