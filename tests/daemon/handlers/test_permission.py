"""`permission/respond`: from any connection that may approve, once."""

from typing import Any

import pytest
from dragoman_protocol.errors import RpcError


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_answered_from_another_connection(house: Any, decision: str) -> None:
    async with house() as at:
        asking, other, answers = at.client(permissions=True), at.client(), []

        async def script(turn: Any) -> Any:
            answers.append(await turn.may("Write", path="x"))
            return await at.kit.answering("ok")(turn)

        at.engine.upstream.scripts.append(script)
        query = at.start(asking, "query/run", prompt="hi", cwd=str(at.engine.cwd))
        await at.kit.soon(asking.was_asked)
        permission_id = asking.questions[0][1].permission_id
        said = {
            "permissionId": permission_id,
            "decision": decision,
            "message": "m",
            "updatedInput": {"path": "y"},
        }
        assert at.call(other, "permission/respond", **said).decision == decision
        await query
        assert answers[0].allow is (decision == "allow")
        assert answers[0].updated_input == ({"path": "y"} if decision == "allow" else None)
        assert answers[0].message == (None if decision == "allow" else "m")
        with pytest.raises(RpcError) as caught:
            at.call(other, "permission/respond", **said)
        assert caught.value.kind == "already_resolved"
        assert caught.value.data.by == "client"  # type: ignore[attr-defined]


async def test_an_unknown_id(house: Any) -> None:
    async with house() as at:
        with pytest.raises(RpcError) as caught:
            at.call(at.client(), "permission/respond", permissionId="p", decision="allow")
        assert caught.value.kind == "permission_not_found"
        assert caught.value.data.permission_id == "p"  # type: ignore[attr-defined]
