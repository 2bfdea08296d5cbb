"""`auth/*`."""

from dragoman_protocol.auth import AuthStatusResult
from dragoman_protocol.values import Empty

from dragomand.engine.auth import Auth
from dragomand.server.route import Call, Handler


def auth_handlers(auth: Auth) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    def status(_call: Call, _params: Empty) -> AuthStatusResult:
        return auth.status()

    return {"auth/status": status}
