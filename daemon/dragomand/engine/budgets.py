"""What turns may spend: reserved before they run, settled with what they cost, in every account at once.

The accounts are in memory (`policy.budget_ledger`); what they hold comes from the rows of spending in the
store, which are written with the turns themselves, so that no restart and no kill gives anything back. Costs
are estimates of the provider's prices. Money in millionths of a dollar, on the wire in dollars.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import anyio
from anyio.abc import TaskGroup
from dragoman_protocol.budget import (
    BudgetExhaustedParams,
    BudgetRaiseParams,
    BudgetScope,
    BudgetState,
    BudgetWarningParams,
)

from dragomand.policy.budget_ledger import (
    AccountState,
    BudgetLedger,
    Crossed,
    Kind,
    Refused,
    Reservation,
    Scope,
)
from dragomand.store.errors import StorageError
from dragomand.store.rows import SpendRow
from dragomand.store.spending import Grouping
from dragomand.store.store import Store

from .caller import Caller
from .caps import EACH, MICRO, NO_CAP, Caps
from .errors import EngineError
from .estimates import Estimates
from .sessions import storage_errors
from .spend import Payment, Spend

BudgetNotice = BudgetWarningParams | BudgetExhaustedParams

_GROUP: dict[Kind, Grouping] = {
    "client": "client", "project": "project", "session": "session_id", "tree": "tree_id",
}  # fmt: skip
_ALWAYS = (Scope("hour"), Scope("day"), Scope("all"))
MOST_TOLD = 200
"""So many accounts `budget/get` lists, those that spent most."""


class Budgets:
    """Owner of all accounts."""

    def __init__(
        self,
        store: Store,
        *,
        tasks: TaskGroup,
        clock: Callable[[], float],
        tell: Callable[[BudgetNotice], None],
        ask_timeout_s: float,
        logger: logging.Logger,
    ) -> None:
        """Restore from *store*; *clock*: Unix seconds; *tell* is for every client that wants to know.

        What is not awaited is written by *tasks*.

        A client is asked for *ask_timeout_s* seconds at most whether a cap is raised.
        """
        self._store = store
        self._ledger = BudgetLedger()
        self.caps = Caps(self._ledger, store)
        self.estimates = Estimates()
        self._clock = clock
        self._tell = tell
        self._ask_timeout_s = ask_timeout_s
        self._logger = logger
        self._asking: dict[Scope, anyio.Event] = {}
        self._running: dict[str, Spend] = {}
        self._tasks = tasks

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

    async def load(self) -> None:
        """Take up what was spent and what is capped. The settings' caps must have been applied."""
        await self.caps.load()
        await self._know(_ALWAYS)

    # -- before a turn

    async def allow(self, payment: Payment, caller: Caller, timeout_s: float | None = None) -> None:
        """Return if a turn may be begun as far as money goes; where a cap forbids it, ask *caller*'s person.

        They are waited for as long as the turn may wait (*timeout_s*). Raises `budget_exhausted`.
        """
        self.caps.expire(self._clock())
        await self._know(self._scopes(payment))
        refused = self._refusal(payment)
        if refused is not None:
            most_s = self._ask_timeout_s
            await self._ask(refused, payment, caller, most_s if timeout_s is None else min(most_s, timeout_s))
            refused = self._refusal(payment)
        if refused is not None:
            raise self._error(refused, payment)

    def reserve(self, payment: Payment) -> Spend:
        """Take the estimate out of every account. Raises `budget_exhausted`; then `allow` may ask."""
        estimate = self._estimate(payment)
        got = self._ledger.reserve(estimate, self._scopes(payment), self._clock())
        if isinstance(got, Refused):
            raise self._error(got, payment)
        return Spend(self, payment, got)

    # -- while it runs, and at its end

    def note(self, turn_id: str, spend: Spend) -> None:
        """A turn has begun: what its calls cost is counted at once."""
        self._running[turn_id] = spend

    def forget(self, turn_id: str) -> None:
        """It is over."""
        self._running.pop(turn_id, None)

    def of_turn(self, turn_id: str | None) -> Spend | None:
        """Return what was put aside for a turn that runs."""
        return None if turn_id is None else self._running.get(turn_id)

    def tree_below(self, turn_id: str | None) -> str | None:
        """Return the tree of what a turn that runs waits for: its own, or the one that begins with it."""
        above = self.of_turn(turn_id)
        return turn_id if above is None else above.tree_id or turn_id

    def write(self, row: SpendRow) -> None:
        """Have what a call took stored, soon."""
        self._tasks.start_soon(self._write, row)

    async def _write(self, row: SpendRow) -> None:
        try:
            await self._store.open_spend(row)
        except StorageError as error:
            self._logger.error("what a call took could not be stored", extra={"reason": str(error)})

    def spend(self, reservation: Reservation, amount: int) -> None:
        """Count a part of the cost."""
        self._crossed(self._ledger.spend(reservation, amount, self._clock()))

    def settle(self, reservation: Reservation, cost: int | None) -> int:
        """Count the cost (None: unknown) and return what was charged."""
        self._crossed(self._ledger.settle(reservation, cost, self._clock()))
        self._ledger.changes()  # the store has them already, in the rows of spending
        return reservation.spent

    def exhausted(self, payment: Payment) -> EngineError | None:
        """Return why nothing more may be spent on a turn that runs: an account has reached its cap."""
        now = self._clock()
        for scope in self._scopes(payment):
            state = self._ledger.look(scope, now)
            if state.cap is not None and state.spent >= state.cap:
                refused = Refused(scope, state.cap, state.spent, state.reserved, state.resets_at)
                return self._error(refused, payment)
        return None

    # -- what is told and set

    async def get(self, scope: BudgetScope | None, key: str | None) -> list[BudgetState]:
        """Return the accounts: one, those of a kind, or all that have a cap, and the hour's and the day's.

        Last come the caps for each of a kind, with the key `*`. Raises `storage_failed`.
        """
        self.caps.expire(self._clock())
        now = self._clock()
        if scope is not None and key == EACH:
            return [_told_each(scope, self.caps.each.get(scope))]
        if scope is not None and (key is not None or scope in ("all", "hour", "day")):
            wanted = Scope(scope, key or "")
            await self._know([wanted])
            return [_told(self._ledger.look(wanted, now))]
        await self._know([each for each in self.caps.single if each.name != EACH])
        held = [each for each in self._ledger.state(now) if scope in (None, each.scope.kind)]
        told = _list(each for each in held if _is_capped(each) or each.scope.kind in ("hour", "day"))
        each = sorted(self.caps.each.items())
        return told + [_told_each(kind, limit) for kind, limit in each if scope in (None, kind)]

    def capped(self) -> list[BudgetState]:
        """Return the accounts in use that have a cap, those that spent most first."""
        return _list(each for each in self._ledger.state(self._clock()) if _is_capped(each))

    async def set(self, scope: BudgetScope, key: str | None, limit_usd: float | None) -> BudgetState:
        """Set a cap for good. Raises `invalid_params`, `storage_full`, `storage_failed`."""
        which = await self.caps.set(scope, key, limit_usd)
        self._logger.info("budget set", extra={"scope": scope, "key": key, "limit_usd": limit_usd})
        if which.name == EACH:
            return _told_each(scope, self.caps.each.get(scope))
        await self._know([which])
        return _told(self._ledger.look(which, self._clock()))

    # -- within

    def _estimate(self, payment: Payment) -> int:
        most = None if payment.most_usd is None else round(payment.most_usd * MICRO)
        return self.estimates.of(payment.upstream, payment.model, most)

    def _scopes(self, payment: Payment) -> list[Scope]:
        keys: dict[Kind, str | None] = {
            "client": payment.client,
            "project": payment.project,
            "session": payment.session_id,
            "tree": payment.tree_id,
        }
        mine = [Scope(kind, key) for kind, key in keys.items() if key and self.caps.has(kind, key)]
        return [*_ALWAYS, *mine]

    async def _know(self, scopes: Iterable[Scope]) -> None:
        """Restore the accounts that are not held from what is stored."""
        for scope in self._ledger.unknown(scopes):
            empty = self._ledger.look(scope, self._clock())
            group = _GROUP.get(scope.kind)
            with storage_errors():
                spent = await self._store.charged(group, scope.name, since=float(empty.window))
            self._ledger.restore([empty._replace(spent=spent)])

    def _refusal(self, payment: Payment) -> Refused | None:
        now = self._clock()
        for scope in self._scopes(payment):
            state = self._ledger.look(scope, now)
            if state.cap is not None and state.spent + state.reserved >= state.cap:
                return Refused(scope, state.cap, state.spent, state.reserved, state.resets_at)
        return None

    async def _ask(self, refused: Refused, payment: Payment, caller: Caller, within_s: float) -> None:
        """Ask whether the cap is raised; of many whom it stops, one asks, the others wait for the answer."""
        asked = self._asking.get(refused.scope)
        if asked is not None:
            with anyio.move_on_after(within_s):
                await asked.wait()
            return
        if caller.budget_asker is None or "approve" not in caller.scopes:
            return
        done = self._asking[refused.scope] = anyio.Event()
        try:
            await self._ask_person(refused, payment, caller, within_s)
        finally:
            del self._asking[refused.scope]
            done.set()

    async def _ask_person(
        self, refused: Refused, payment: Payment, caller: Caller, within_s: float
    ) -> None:
        assert caller.budget_asker is not None
        question = BudgetRaiseParams(
            budget=_told(self._ledger.look(refused.scope, self._clock())),
            needed_usd=self._estimate(payment) / MICRO,
            session_id=payment.session_id,
            expires_at=self._clock() + within_s,
        )
        limit = None
        with anyio.move_on_after(within_s):
            try:
                limit = (await caller.budget_asker(question)).limit_usd
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the client, the answer is no
                self._logger.info("budget/raise failed", extra={"caller": caller.id, "error": str(error)})
        kind, key = refused.scope
        facts = {"caller": caller.id, "scope": kind, "key": key, "limit_usd": limit}
        self._logger.info("budget raise", extra=facts)
        if limit is None or limit * MICRO <= refused.limit:
            return
        try:
            await self.caps.raise_(refused.scope, limit, refused.resets_at)
        except EngineError as error:  # beyond what a cap may be, or it cannot be kept: it stays as it was
            self._logger.warning("budget raise failed", extra={**facts, "error": str(error)})

    def _crossed(self, crossed: list[Crossed]) -> None:
        for each in crossed:
            state = _told(self._ledger.look(each.scope, self._clock()))
            kind = BudgetWarningParams if each.level == "warning" else BudgetExhaustedParams
            told = {name: getattr(state, name) for name in BudgetState.__struct_fields__}
            self._tell(kind(**told))

    def _error(self, refused: Refused, payment: Payment) -> EngineError:
        state = _told(
            AccountState(refused.scope, 0, refused.spent, refused.reserved, refused.limit, refused.resets_at)
        )
        of = f" of {state.key}" if state.key else ""
        left = f"{_dollars(refused.spent)} of {_dollars(refused.limit)}"
        busy = f", {_dollars(refused.reserved)} reserved by what runs" if refused.reserved else ""
        again = "" if refused.resets_at is None else f" It begins anew {_utc(refused.resets_at)}."
        resets_at = refused.resets_at
        wait = None if resets_at is None else max(0, round((resets_at - self._clock()) * 1000))
        return EngineError(
            "budget_exhausted",
            f"The budget ({refused.scope.kind}{of}) is spent: {left}{busy}.{again} "
            "Raise it with: dragoman budget set, or budget/set.",
            scope=state.scope,
            key=state.key,
            limit_usd=state.limit_usd,
            spent_usd=state.spent_usd,
            reserved_usd=state.reserved_usd,
            remaining_usd=state.remaining_usd,
            needed_usd=self._estimate(payment) / MICRO,
            resets_at=resets_at,
            retry_after_ms=wait,
            retryable=wait is not None,
        )


def _dollars(micro: int) -> str:
    usd = micro / MICRO
    return f"${usd:.2f}" if usd >= 1 or not micro else f"${usd:.4f}"


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _is_capped(state: AccountState) -> bool:
    return state.cap is not None and state.cap < NO_CAP


def _list(states: Iterable[AccountState]) -> list[BudgetState]:
    order = sorted(states, key=lambda each: (-each.spent, each.scope))
    return [_told(each) for each in order[:MOST_TOLD]]


def _told_each(kind: Kind, limit: int | None) -> BudgetState:
    return BudgetState(scope=kind, key=EACH, limit_usd=None if limit is None else limit / MICRO)


def _told(state: AccountState) -> BudgetState:
    limit = state.cap if _is_capped(state) else None
    return BudgetState(
        scope=state.scope.kind,
        key=state.scope.name or None,
        limit_usd=None if limit is None else limit / MICRO,
        spent_usd=state.spent / MICRO,
        reserved_usd=state.reserved / MICRO,
        remaining_usd=None if limit is None else max(0, limit - state.spent - state.reserved) / MICRO,
        resets_at=state.resets_at,
    )
