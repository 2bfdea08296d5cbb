"""`limits/*`."""

from dragoman_protocol.limits import CallUsage, LimitsGetResult, LimitsSetParams, LimitsStateResult
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission
from dragomand.engine.calls import Calls
from dragomand.engine.limit_settings import LimitSettings
from dragomand.server.route import Call, Handler


def limits_handlers(
    admission: Admission, calls: Calls, settings: LimitSettings
) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(call: Call, _params: Empty) -> LimitsStateResult:
        figures = admission.settings
        only = None if "admin" in call.client.scopes else call.client.id
        return LimitsStateResult(
            running=admission.turns.running,
            queued=admission.turns.queued,
            max_running=figures.max_running,
            max_queued=figures.max_queued,
            max_queued_per_client=figures.max_queued_per_client,
            calls_running=admission.calls.running,
            calls_queued=admission.calls.queued,
            max_calls=figures.max_calls,
            usage=CallUsage(total=calls.total, clients=calls.clients(only), turns=calls.turns(only)),
            ratelimit=calls.limits.snapshot(),
        )

    def get(_call: Call, _params: Empty) -> LimitsGetResult:
        return settings.get()

    async def set_(_call: Call, params: LimitsSetParams) -> LimitsGetResult:
        return await settings.set(params.settings or {}, params.clients or {})

    return {"limits/state": state, "limits/get": get, "limits/set": set_}
