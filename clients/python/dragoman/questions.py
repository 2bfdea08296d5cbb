"""What the daemon asks of a client's person, and what their words are worth: one `Kind` for each question.

The word is what a program's callable returned. What cannot be understood raises, and then the answer is no.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from dragoman_protocol.budget import BudgetRaiseParams, BudgetRaiseResult
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams
from dragoman_protocol.peer import Request

MOST_USD = 1_000_000
"""The daemon takes no higher cap."""


class Kind(msgspec.Struct, frozen=True, eq=False):
    """One kind of question; equal to itself alone."""

    method: str
    capability: str
    """What a client says of itself if, and only if, it has somebody to ask."""
    params: type[msgspec.Struct]
    answer: Callable[[object], msgspec.Struct]
    """Makes the answer of a word. Raises `TypeError` or `ValueError` for one that means nothing."""
    no: msgspec.Struct
    """The answer where the callable failed."""
    failed: str
    """How that is told."""


Answerers = Mapping[Kind, Callable[[Any], Any]]
"""Who answers which questions; kinds that are missing are not answered here."""


class Question:
    """A request of the daemon's that waits for a person's word."""

    __slots__ = ("kind", "params", "request", "withdrawn")

    def __init__(self, kind: Kind, request: Request, params: Any) -> None:
        """Keep *params* for the person and *request* for the answer."""
        self.kind = kind
        self.request = request
        self.params = params
        self.withdrawn: Callable[[], object] = _nothing
        """Called if the daemon wants no answer any more, for instance because the time is up."""


def _nothing() -> None:
    """Nobody has to be told."""


def answerers(
    on_permission: Callable[[Any], Any] | None, on_budget: Callable[[Any], Any] | None
) -> Answerers:
    """Return who answers, of those that were given."""
    given = {PERMISSION: on_permission, BUDGET: on_budget}
    return {kind: answerer for kind, answerer in given.items() if answerer is not None}


def decision_of(word: object) -> PermissionDecision:
    """Turn what an `on_permission` callable returned into a decision: True, False, or a decision itself.

    Anything else raises `TypeError`, and nothing is allowed.
    """
    if isinstance(word, PermissionDecision):
        return word
    if isinstance(word, bool):
        return PermissionDecision(decision="allow" if word else "deny")
    raise TypeError(f"on_permission returned {word!r}; expected True, False or a PermissionDecision")


def raise_of(word: object) -> BudgetRaiseResult:
    """Turn what an `on_budget` callable returned into an answer: None, the new cap in dollars, or an answer.

    Anything else raises `TypeError` (True too: it is no amount), and a number that is no amount of money
    `ValueError`; the cap stays.
    """
    limit = word.limit_usd if isinstance(word, BudgetRaiseResult) else word
    if limit is None:
        return BudgetRaiseResult()
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"on_budget returned {word!r}; expected None, dollars or a BudgetRaiseResult")
    if not 0 <= limit <= MOST_USD:
        raise ValueError(f"on_budget returned {word!r}; expected an amount from 0 to {MOST_USD} dollars")
    return BudgetRaiseResult(limit_usd=float(limit))


PERMISSION = Kind(
    method="permission/request",
    capability="permissions",
    params=PermissionRequestParams,
    answer=decision_of,
    no=PermissionDecision(decision="deny", message="The client failed to decide."),
    failed="on_permission failed; the tool was denied",
)
BUDGET = Kind(
    method="budget/raise",
    capability="budget",
    params=BudgetRaiseParams,
    answer=raise_of,
    no=BudgetRaiseResult(),
    failed="on_budget failed; the cap was not raised",
)
