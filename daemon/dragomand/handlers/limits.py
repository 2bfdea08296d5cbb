"""`limits/*`."""

import msgspec
from dragoman_protocol.limits import (
    CallUsage,
    LimitsExplainParams,
    LimitsExplainResult,
    LimitsGetResult,
    LimitsSetParams,
    LimitsStateResult,
)
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission, explained, state_of
from dragomand.engine.budgets import Budgets
from dragomand.engine.calls import Calls
from dragomand.engine.limit_settings import LimitSettings
from dragomand.server.route import Call, Handler


def limits_handlers(
    admission: Admission, calls: Calls, settings: LimitSettings, budgets: Budgets
) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(call: Call, _params: Empty) -> LimitsStateResult:
        only = None if "admin" in call.client.scopes else call.client.id
        return msgspec.structs.replace(
            state_of(admission),
            budget=budgets.capped(),
            usage=CallUsage(total=calls.total, clients=calls.clients(only), turns=calls.turns(only)),
            ratelimit=calls.limits.snapshot(),
        )

    def explain(call: Call, params: LimitsExplainParams) -> LimitsExplainResult:
        only = None if "admin" in call.client.scopes else call.client.id
        return explained(admission, only, session_id=params.session_id, turn_id=params.turn_id)

    def get(_call: Call, _params: Empty) -> LimitsGetResult:
        return settings.get()

    async def set_(_call: Call, params: LimitsSetParams) -> LimitsGetResult:
        return await settings.set(params.settings or {}, params.clients or {})

    return {"limits/state": state, "limits/explain": explain, "limits/get": get, "limits/set": set_}
