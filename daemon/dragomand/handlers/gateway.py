"""`gateway/*`."""

from collections.abc import Awaitable, Callable

from dragoman_protocol.gateway import (
    GatewayRevokeParams,
    GatewayRevokeResult,
    GatewayTokenParams,
    GatewayTokenResult,
    GatewayTokensResult,
)
from dragoman_protocol.values import Empty

from dragomand.server.route import Call, Handler


def gateway_handlers(
    issue: Callable[[str, bool], Awaitable[GatewayTokenResult]],
    tokens: Callable[[], GatewayTokensResult],
    revoke: Callable[[str], GatewayRevokeResult],
) -> dict[str, Handler]:
    """Return the group's handlers by method; *issue* takes the label and whether a port is wanted."""

    async def token_(_call: Call, params: GatewayTokenParams) -> GatewayTokenResult:
        return await issue(params.name, params.tcp)

    def tokens_(_call: Call, _params: Empty) -> GatewayTokensResult:
        return tokens()

    def revoke_(_call: Call, params: GatewayRevokeParams) -> GatewayRevokeResult:
        return revoke(params.token_id)

    return {"gateway/token": token_, "gateway/tokens": tokens_, "gateway/revoke": revoke_}
