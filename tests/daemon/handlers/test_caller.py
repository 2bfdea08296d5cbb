"""Connections as callers: who they are, whether they can be asked, and what their answers mean."""

from typing import Any

import msgspec
import pytest
from dragoman_protocol.errors import RpcError
from dragoman_protocol.lifecycle import PermissionRequestParams
from dragomand.handlers.caller import caller_of

QUESTION = PermissionRequestParams(
    permission_id="p", session_id="s", turn_id="t", tool_name="Write", input={"path": "x"}
)


async def test_identity_is_the_connections(house: Any) -> None:
    async with house() as at:
        client = at.client("query")
        caller = caller_of(client)
        assert (caller.id, caller.name, caller.scopes) == (client.id, client.name, frozenset({"query"}))


@pytest.mark.parametrize("said", [False, None, 1, "true", {}, []])
async def test_only_who_says_so_can_be_asked(house: Any, said: Any) -> None:
    async with house() as at:
        client = at.client()
        client.capabilities = {"permissions": said}
        assert caller_of(client).approver is None
        client.capabilities = {}
        assert caller_of(client).approver is None
        client.capabilities = {"permissions": True}
        assert caller_of(client).approver is not None
        client.close()
        assert caller_of(client).approver is None


def failing(error: Exception) -> Any:
    def answer() -> Any:
        raise error

    return answer


async def test_answers(house: Any) -> None:
    async with house() as at:
        client = at.client(permissions=True)
        ask = caller_of(client).approver
        assert ask is not None
        client.answer = lambda: {"decision": "allow", "updatedInput": {"path": "y"}}
        decision = await ask(QUESTION)
        assert (decision.decision, decision.updated_input) == ("allow", {"path": "y"})
        assert client.questions == [("permission/request", QUESTION)]
        client.answer = failing(RpcError("connection_closed"))
        with pytest.raises(ConnectionError):
            await ask(QUESTION)


@pytest.mark.parametrize("error", [RpcError("method_not_found"), RpcError("invalid_params", "no `decision`")])
async def test_a_client_that_answers_with_an_error_says_no(house: Any, error: RpcError) -> None:
    async with house() as at:
        client = at.client(permissions=True)
        client.answer = failing(error)
        ask = caller_of(client).approver
        assert ask is not None
        decision = await ask(QUESTION)
        assert decision.decision == "deny"
        assert error.message in str(decision.message)


async def test_an_answer_that_is_none_is_a_denial_whatever_it_is(house: Any) -> None:
    async with house() as at:
        client = at.client(permissions=True)
        client.answer = lambda: {"decision": "perhaps"}
        answers: list[Any] = []

        async def script(turn: Any) -> Any:
            answers.append(await turn.may())
            return await at.kit.answering("ok")(turn)

        at.engine.upstream.scripts.append(script)
        with pytest.raises(msgspec.ValidationError):
            await client.request("permission/request", QUESTION, type(QUESTION))
        await at.query(client)
        assert not answers[0].allow
