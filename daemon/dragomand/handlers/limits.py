"""`limits/*`."""

import msgspec
from dragoman_protocol.limits import (
    CallUsage,
    LimitsExplainParams,
    LimitsExplainResult,
    LimitsStateResult,
)
from dragoman_protocol.values import Empty

from dragomand.engine.admission import Admission, explained, state_of
from dragomand.engine.calls import Calls
from dragomand.server.route import Call, Handler


def limits_handlers(admission: Admission, calls: Calls) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def state(call: Call, _params: Empty) -> LimitsStateResult:
        only = None if "admin" in call.client.scopes else call.client.id
        return msgspec.structs.replace(
            state_of(admission),
            usage=CallUsage(total=calls.total, clients=calls.clients(only), turns=calls.turns(only)),
            ratelimit=calls.limits.snapshot(),
        )

    def explain(call: Call, params: LimitsExplainParams) -> LimitsExplainResult:
        only = None if "admin" in call.client.scopes else call.client.id
        return explained(admission, only, session_id=params.session_id, turn_id=params.turn_id)

    return {"limits/state": state, "limits/explain": explain}
