"""Who asks, as far as the engine needs to know."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from dragoman_protocol.budget import BudgetRaiseParams, BudgetRaiseResult
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams
from dragoman_protocol.limits import LimitsWaitingParams

Approver = Callable[[PermissionRequestParams], Awaitable[PermissionDecision]]
"""Asks the client's person; raises when the client cannot be asked any more. Its caller bounds the wait."""

BudgetAsker = Callable[[BudgetRaiseParams], Awaitable[BudgetRaiseResult]]
"""Asks the client's person whether more may be spent; otherwise like `Approver`."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client: its identity is the connection's, stamped by the daemon."""

    id: str
    name: str
    scopes: frozenset[str]
    approver: Approver | None = None
    """None: this client cannot be asked, so what needs asking is denied."""
    peer_pid: int | None = None
    """The client's process: it may descend from one of Claude Code's, whose turn then waits for it."""
    tree_id: str | None = None
    """The orchestration whose part it asks for."""
    on_waiting: Callable[[LimitsWaitingParams], None] | None = None
    """Told when one of its turns, or a call of one, has to wait; None: it does not want to know."""
    budget_asker: BudgetAsker | None = None
    """None: this client cannot be asked, so a cap that is reached stays."""
