"""The money of one turn, or of one call of another program: put aside, counted, settled, written down."""

from typing import TYPE_CHECKING, NamedTuple

from dragoman_protocol.session import Usage

from dragomand.policy.budget_ledger import Reservation
from dragomand.store.rows import SpendRow, TurnRow

from .caps import MICRO
from .errors import EngineError

if TYPE_CHECKING:
    from .budgets import Budgets


class Payment(NamedTuple):
    """Whose money a turn would spend, and on what."""

    client: str
    """What the client calls itself."""
    upstream: str
    model: str | None = None
    project: str | None = None
    session_id: str | None = None
    tree_id: str | None = None
    most_usd: float | None = None
    """The turn's own cap."""


class Spend:
    """What one turn may take. `release` it on every path; after `closed` that changes nothing more."""

    def __init__(self, budgets: "Budgets", payment: Payment, reservation: Reservation) -> None:
        """Made by `Budgets.reserve`."""
        self._budgets = budgets
        self._payment = payment
        self._reservation = reservation
        self._row: SpendRow | None = None

    @property
    def tree_id(self) -> str | None:
        """The orchestration that it belongs to."""
        return self._payment.tree_id

    def opened(self, turn: TurnRow) -> SpendRow:
        """Return the row to be stored with the turn's own."""
        payment = self._payment
        self._row = SpendRow(
            spend_id=turn.turn_id,
            session_id=turn.session_id,
            tree_id=payment.tree_id,
            client=payment.client,
            project=payment.project,
            model=payment.model,
            upstream=turn.upstream,
            started_at=turn.started_at,
            charged=self._reservation.estimate,
            queued_ms=turn.queued_ms,
        )
        self._budgets.note(turn.turn_id, self)
        return self._row

    def closed(self, turn: TurnRow, *, sent: bool) -> SpendRow | None:
        """Settle, and return the row to be stored with the turn's end.

        *sent*: whether the upstream was asked; a turn that never was has cost nothing. Of one that was, an
        unknown cost counts as the estimate, unless it failed and took no token.
        """
        row = self._row
        if row is None:
            return None
        took = turn.input_tokens + turn.output_tokens + turn.cache_read_tokens + turn.cache_creation_tokens
        nothing = not sent or (turn.status == "failed" and not took)
        cost = round(turn.cost_usd * MICRO) if turn.cost_usd is not None else 0 if nothing else None
        row.charged = self._budgets.settle(self._reservation, cost)
        row.status, row.cost, row.cost_unknown = turn.status, cost, int(cost is None)
        row.model = turn.model or row.model
        row.input_tokens, row.output_tokens = turn.input_tokens, turn.output_tokens
        row.cache_read_tokens = turn.cache_read_tokens
        row.cache_creation_tokens = turn.cache_creation_tokens
        row.duration_ms = turn.duration_ms or 0
        if cost and turn.status == "completed":
            self._budgets.estimates.learn(self._payment.upstream, self._payment.model, cost)
        return row

    def spent(self, cost_usd: float) -> None:
        """Count a part of the cost that is known while the turn runs."""
        self._budgets.spend(self._reservation, round(cost_usd * MICRO))

    def call_ended(self, usage: Usage | None, cost_usd: float | None, *, failed: bool) -> None:
        """Settle a call that belongs to no turn, and have it written."""
        cost = round(cost_usd * MICRO) if cost_usd is not None else 0 if failed and usage is None else None
        took = usage or Usage()
        charged = self._budgets.settle(self._reservation, cost)
        self._budgets.write(
            SpendRow(
                spend_id=None,
                client=self._payment.client,
                model=self._payment.model,
                upstream=self._payment.upstream,
                status="failed" if failed else "completed",
                started_at=self._budgets.now,
                charged=charged,
                cost=cost,
                cost_unknown=int(cost is None),
                input_tokens=took.input_tokens,
                output_tokens=took.output_tokens,
                cache_read_tokens=took.cache_read_tokens,
                cache_creation_tokens=took.cache_creation_tokens,
            )
        )

    @property
    def exhausted(self) -> EngineError | None:
        """Why no more may be spent on it; None if it may."""
        return self._budgets.exhausted(self._payment)

    def release(self) -> None:
        """End it with what was counted so far."""
        self._budgets.settle(self._reservation, self._reservation.spent)
        if self._row is not None and self._row.spend_id is not None:
            self._budgets.forget(self._row.spend_id)
