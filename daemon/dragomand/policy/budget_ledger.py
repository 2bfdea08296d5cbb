"""What may still be spent, and what has been.

Theory. Reserve, run, settle. Each account (a client, a project, a session, a tree, the hour, the day, all)
has what was spent, what is reserved by turns under way, and maybe a cap. A turn reserves an estimate in
all of its accounts in one step, or in none; it is let in while an account has anything left: spent +
reserved < cap. So of any number of racers only the one that crosses the cap can cross it, and

    spent + reserved < cap + one estimate

in every account, however wrong the others are about what is left; beyond that only by what a turn costs
more than its estimate. While it runs, `spend` moves its costs from reserved to spent, and `settle` ends
with the real one. Unknown is not nothing: it counts as the estimate.

Money is whole micro-USD, so sums do not round. Hours and days are fixed windows of the wall clock (the
hour of Unix time; the day of the offset from UTC that is given), all others have no window. A turn is
charged to the window in which it is settled. A wall clock that goes back by less than a window changes
nothing, by more it moves the window and keeps what was spent in it: no going back and forth gives anything
away, beyond what the new window would have.

What is stored is spent and reserved; what was reserved when a process was killed counts as spent.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

Kind = Literal["client", "project", "session", "tree", "hour", "day", "all"]

KINDS: tuple[Kind, ...] = ("client", "project", "session", "tree", "hour", "day", "all")
WINDOWS: dict[str, int] = {"hour": 3600, "day": 86_400, "client": 86_400, "project": 86_400}
"""Seconds of the windows; what has none never resets."""
WARN_PERCENT = 80
MOST_ACCOUNTS = 16_384
"""How many accounts are held. The one unused longest, with no reservation, gives way; it can be restored."""


class Scope(NamedTuple):
    """Names an account: `Scope("project", "/home/ann/x")`, `Scope("hour")`."""

    kind: Kind
    name: str = ""


class AccountState(NamedTuple):
    """An account, to be told or stored. Money in micro-USD."""

    scope: Scope
    window: int
    """Unix time at which the window began; 0 where there is none."""
    spent: int
    reserved: int
    cap: int | None
    resets_at: float | None


class Refused(NamedTuple):
    """Why a reservation is not given. Money in micro-USD."""

    scope: Scope
    limit: int
    spent: int
    reserved: int
    resets_at: float | None
    """Unix time at which the window ends; None: it does not reset by itself."""


class Crossed(NamedTuple):
    """An account has reached its warning mark or its cap. Told once a window and cap."""

    level: Literal["warning", "exhausted"]
    scope: Scope
    limit: int
    spent: int
    resets_at: float | None


class Reservation:
    """What a turn has reserved and spent so far. Settle or release it, on every path."""

    __slots__ = ("_accounts", "estimate", "open", "spent")

    def __init__(self, accounts: "list[_Account]", estimate: int) -> None:
        """Belong to *accounts*; made by `BudgetLedger.reserve` alone."""
        self._accounts = accounts
        self.estimate = estimate
        self.spent = 0
        self.open = True


class _Account:
    __slots__ = (
        "cap", "changed", "ends", "length", "open", "reserved", "scope", "spent", "told", "used", "window",
    )  # fmt: skip

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.length = WINDOWS.get(scope.kind)
        self.window = 0 if self.length is None else -self.length
        self.ends = 0
        self.spent = 0
        self.reserved = 0
        self.cap: int | None = None
        self.told = 0
        """0: nothing; 1: the warning; 2: that it is exhausted."""
        self.open = 0
        """How many reservations are in it."""
        self.used = 0
        """The number of the reservation that used it last."""
        self.changed = False

    def is_full(self) -> bool:
        return self.cap is not None and self.spent + self.reserved >= self.cap

    def state(self) -> AccountState:
        return AccountState(self.scope, self.window, self.spent, self.reserved, self.cap, self.resets_at())

    def resets_at(self) -> float | None:
        return None if self.length is None else float(self.ends)


class BudgetLedger:
    """All accounts. *wall* is Unix time everywhere."""

    __slots__ = ("_accounts", "_caps", "_changed", "_default_caps", "_offset", "_uses")

    def __init__(self, day_offset_s: int = 0) -> None:
        """Begin with nothing spent and no cap. Days begin *day_offset_s* east of UTC."""
        self._accounts: dict[Scope, _Account] = {}
        self._caps: dict[Scope, int] = {}
        self._default_caps: dict[Kind, int] = {}
        self._changed: list[_Account] = []
        self._uses = 0
        self._offset = day_offset_s

    # -- caps

    def cap_each(self, kind: Kind, cap: int | None) -> None:
        """Let each account of *kind* spend *cap* micro-USD (None: any), but those with a cap of their own."""
        _check(cap)
        if cap is None:
            self._default_caps.pop(kind, None)
        else:
            self._default_caps[kind] = cap
        for account in self._accounts.values():
            if account.scope.kind == kind:
                self._set_cap(account)

    def cap(self, scope: Scope, cap: int | None) -> None:
        """Let *scope* spend *cap* micro-USD; None: what its kind may. Holds from the next reservation on."""
        _check(cap)
        if cap is None:
            self._caps.pop(scope, None)
        else:
            self._caps[scope] = cap
        account = self._accounts.get(scope)
        if account is not None:
            self._set_cap(account)

    # -- turns

    def reserve(self, estimate: int, scopes: Iterable[Scope], wall: float) -> Reservation | Refused:
        """Reserve *estimate* micro-USD in all *scopes*, or in none.

        Of several accounts that refuse, the one is named that resets last (never is later than any time).
        """
        if estimate < 0:
            raise ValueError(f"an estimate of {estimate} micro-USD is below nothing; expected 0 or more")
        self._uses += 1
        accounts = []
        for scope in scopes:
            account = self._accounts.get(scope) or self._open(scope)
            if account.length is not None:
                self._turn(account, wall)
            if account.used != self._uses:  # a scope that is named twice counts once
                account.used = self._uses
                accounts.append(account)
        for account in accounts:
            if account.is_full():
                return _refusal(accounts)
        for account in accounts:
            account.reserved += estimate
            account.open += 1
            self._note(account)
        return Reservation(accounts, estimate)

    def spend(self, reservation: Reservation, amount: int, wall: float) -> list[Crossed]:
        """Note that *amount* more was really spent; the rest of the estimate stays reserved."""
        if not reservation.open or amount <= 0:
            return []
        left = max(0, reservation.estimate - reservation.spent)
        reservation.spent += amount
        return self._move(reservation, min(left, amount), amount, wall)

    def settle(self, reservation: Reservation, real: int | None, wall: float) -> list[Crossed]:
        """End a turn that cost *real* micro-USD in all (None: unknown, so its estimate). Once is enough.

        Returns the accounts that have reached 80 or 100 % by it. What was spent already is never taken back.
        """
        if not reservation.open:
            return []
        left = max(0, reservation.estimate - reservation.spent)
        total = max(reservation.spent, reservation.estimate if real is None else real)
        amount = total - reservation.spent
        reservation.spent = total
        reservation.open = False
        for account in reservation._accounts:
            account.open -= 1
        return self._move(reservation, left, amount, wall)

    def release(self, reservation: Reservation, wall: float) -> list[Crossed]:
        """End a turn that cost nothing more than was noted: it was not begun, or came to nothing."""
        return self.settle(reservation, reservation.spent, wall)

    # -- what is told and kept

    def state(self, wall: float) -> list[AccountState]:
        """Return every account that is held."""
        for account in self._accounts.values():
            self._turn(account, wall)
        return [account.state() for account in self._accounts.values()]

    def look(self, scope: Scope, wall: float) -> AccountState:
        """Return one account; an empty one if nothing is known of it."""
        account = self._accounts.get(scope)
        if account is None:
            account = _Account(scope)
            self._set_cap(account)
        self._turn(account, wall)
        return account.state()

    def unknown(self, scopes: Iterable[Scope]) -> list[Scope]:
        """Return those of *scopes* that are not held: `restore` them from the store before they are used."""
        return [scope for scope in scopes if scope not in self._accounts]

    def changes(self) -> list[AccountState]:
        """Return what is to be stored since the last time: write it together with the turn."""
        changed, self._changed = self._changed, []
        for account in changed:
            account.changed = False
        return [account.state() for account in changed]

    def restore(self, stored: Iterable[AccountState]) -> None:
        """Go on with accounts of an earlier life, or that gave way. Caps are set apart; reserved is spent."""
        for state in stored:
            if state.scope not in self._accounts:
                account = self._open(state.scope)
                account.window = state.window
                account.ends = state.window + (account.length or 0)
                account.spent = state.spent + state.reserved

    @property
    def caps(self) -> Mapping[Scope, int]:
        """The caps of single accounts."""
        return self._caps

    @property
    def default_caps(self) -> Mapping[Kind, int]:
        """The caps of kinds."""
        return self._default_caps

    # -- within

    def _open(self, scope: Scope) -> _Account:
        if len(self._accounts) >= MOST_ACCOUNTS:
            self._make_room()
        account = self._accounts[scope] = _Account(scope)
        self._set_cap(account)
        return account

    def _make_room(self) -> None:
        """Let go of a quarter of what is not in use, the part unused longest: seldom, but much at once."""
        idle = [
            account
            for account in self._accounts.values()
            if not account.open and not account.changed and account.used != self._uses
        ]
        idle.sort(key=lambda account: account.used)
        for account in idle[: MOST_ACCOUNTS // 4]:
            del self._accounts[account.scope]

    def _turn(self, account: _Account, wall: float) -> None:
        """Begin a new window if it is time."""
        length = account.length
        if length is None or account.window <= wall < account.ends:
            return
        offset = self._offset if account.scope.kind == "day" else 0
        window = int((wall + offset) // length) * length - offset
        if window > account.window:
            account.spent = 0
            account.told = 0
        elif window >= account.window - length:
            return
        account.window = window
        account.ends = window + length

    def _note(self, account: _Account) -> None:
        if not account.changed:
            account.changed = True
            self._changed.append(account)

    def _set_cap(self, account: _Account) -> None:
        cap = self._caps.get(account.scope)
        account.cap = self._default_caps.get(account.scope.kind) if cap is None else cap
        account.told = min(account.told, self._level(account))

    @staticmethod
    def _level(account: _Account) -> int:
        if account.cap is None or account.spent * 100 < account.cap * WARN_PERCENT:
            return 0
        return 1 if account.spent < account.cap else 2

    def _move(self, reservation: Reservation, unreserved: int, spent: int, wall: float) -> list[Crossed]:
        crossed = []
        for account in reservation._accounts:
            account.reserved -= unreserved
            self._turn(account, wall)
            account.spent += spent
            self._note(account)
            if account.cap is not None and self._level(account) > account.told:
                account.told = self._level(account)
                level: Literal["warning", "exhausted"] = "warning" if account.told == 1 else "exhausted"
                crossed.append(Crossed(level, account.scope, account.cap, account.spent, account.resets_at()))
        return crossed


def _refusal(accounts: list[_Account]) -> Refused:
    full = [
        Refused(account.scope, account.cap, account.spent, account.reserved, account.resets_at())
        for account in accounts
        if account.cap is not None and account.is_full()
    ]
    return max(full, key=lambda refused: math.inf if refused.resets_at is None else refused.resets_at)


def _check(cap: int | None) -> None:
    if cap is not None and cap < 0:
        raise ValueError(f"a cap of {cap} micro-USD is below nothing; expected 0 or more, or none")
