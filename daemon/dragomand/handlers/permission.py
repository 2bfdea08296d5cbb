"""`permission/*`."""

from dragoman_protocol.lifecycle import PermissionDecision, PermissionRespondParams, PermissionRespondResult

from dragomand.engine.permissions import Permissions
from dragomand.server.route import Call, Handler


def permission_handlers(permissions: Permissions) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def respond(_call: Call, params: PermissionRespondParams) -> PermissionRespondResult:
        decision = PermissionDecision(
            decision=params.decision, message=params.message, updated_input=params.updated_input
        )
        permissions.respond(params.permission_id, decision)
        return PermissionRespondResult(decision=params.decision)

    return {"permission/respond": respond}
