"""`gateway/*`: each makes one call, and needs `admin` (the scope is checked from the table, by dispatch)."""

from typing import Any

from dragoman_protocol.gateway import GatewayRevokeResult, GatewayTokenResult, GatewayTokensResult
from dragoman_protocol.methods import METHODS
from dragomand.handlers.gateway import gateway_handlers


async def test_each_makes_its_call() -> None:
    asked: list[Any] = []
    token = GatewayTokenResult(token_id="1", token="t", base_url="http://x")

    async def issue(name: str, tcp: bool) -> GatewayTokenResult:
        asked.append((name, tcp))
        return token

    def revoke(token_id: str) -> GatewayRevokeResult:
        asked.append(token_id)
        return GatewayRevokeResult(revoked=True)

    handlers = gateway_handlers(issue, GatewayTokensResult, revoke)
    call: Any = None

    def params(method: str, **given: Any) -> Any:
        return METHODS[method].params(**given)

    assert await handlers["gateway/token"](call, params("gateway/token")) is token
    assert await handlers["gateway/token"](call, params("gateway/token", name="me", tcp=True)) is token
    assert handlers["gateway/tokens"](call, params("gateway/tokens")).data == []
    assert handlers["gateway/revoke"](call, params("gateway/revoke", token_id="1")).revoked
    assert asked == [("unnamed", False), ("me", True), "1"]


def test_they_are_for_administrators() -> None:
    group = [row for row in METHODS.values() if row.name.startswith("gateway/")]
    assert len(group) == 3
    assert all(row.scope == "admin" for row in group)
