"""A connection as the engine's caller."""

from collections.abc import Callable

from dragoman_protocol.budget import BudgetRaiseParams, BudgetRaiseResult
from dragoman_protocol.errors import RpcError
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams
from dragoman_protocol.limits import LimitsWaitingParams

from dragomand.engine.caller import Approver, BudgetAsker, Caller
from dragomand.server.route import Client

from .notices import WANTED


def caller_of(client: Client) -> Caller:
    """Return who *client* is; it can be asked if it said so (`capabilities.permissions`)."""
    able = client.capabilities.get("permissions") is True and not client.closed
    pays = client.capabilities.get("budget") is True and not client.closed
    return Caller(
        id=client.id,
        name=client.name,
        scopes=client.scopes,
        approver=_approver(client) if able else None,
        budget_asker=_budget_asker(client) if pays else None,
        on_waiting=_waiting(client) if client.capabilities.get(WANTED) is True else None,
        peer_pid=client.peer_pid,
    )


def _approver(client: Client) -> Approver:
    async def ask(question: PermissionRequestParams) -> PermissionDecision:
        try:
            return await client.request("permission/request", question, PermissionDecision)
        except RpcError as error:
            if error.kind == "connection_closed":
                raise ConnectionError("the client is gone") from error
            text = f"The client answered the question with an error: {error.message}"
            return PermissionDecision(decision="deny", message=text)

    return ask


def _waiting(client: Client) -> Callable[[LimitsWaitingParams], None]:
    return lambda waits: client.notify("limits/waiting", waits)


def _budget_asker(client: Client) -> BudgetAsker:
    async def ask(question: BudgetRaiseParams) -> BudgetRaiseResult:
        try:
            return await client.request("budget/raise", question, BudgetRaiseResult)
        except RpcError as error:
            if error.kind == "connection_closed":
                raise ConnectionError("the client is gone") from error
            return BudgetRaiseResult()

    return ask
