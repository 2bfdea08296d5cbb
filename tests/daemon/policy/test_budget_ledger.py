"""The ledger: reserve, run, settle, in all scopes at once, against a model that adds everything up again."""

import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from dragomand.policy import budget_ledger
from dragomand.policy.budget_ledger import BudgetLedger, Crossed, Kind, Refused, Reservation, Scope
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

USD = 1_000_000
HOUR, DAY, ALL = Scope("hour"), Scope("day"), Scope("all")
ANN, PROJECT = Scope("client", "ann"), Scope("project", "/x")
SESSION, TREE = Scope("session", "s"), Scope("tree", "t")
AT = 1_764_000_000.0
"""A full hour of Unix time, 16:00 UTC."""


def granted(ledger: BudgetLedger, estimate: int, *scopes: Scope, at: float = AT) -> Reservation:
    reservation = ledger.reserve(estimate, scopes, at)
    assert isinstance(reservation, Reservation)
    return reservation


def test_04_17_what_would_cost_more_than_the_hour_allows_waits_for_the_next() -> None:
    ledger = BudgetLedger()
    ledger.cap_each("hour", 10 * USD)
    ledger.settle(granted(ledger, USD, HOUR), 10 * USD, AT + 60)
    refused = ledger.reserve(USD, [HOUR], AT + 61)
    assert refused == Refused(HOUR, 10 * USD, 10 * USD, 0, AT + 3600)
    assert isinstance(ledger.reserve(USD, [HOUR], AT + 3599.9), Refused)
    assert isinstance(ledger.reserve(USD, [HOUR], AT + 3600), Reservation)


def test_a_refusal_reserves_nothing_anywhere() -> None:
    ledger = BudgetLedger()
    ledger.cap(ALL, 0)
    assert isinstance(ledger.reserve(USD, [ANN, HOUR, ALL], AT), Refused)
    assert [ledger.look(scope, AT).reserved for scope in (ANN, HOUR, ALL)] == [0, 0, 0]


def test_the_scope_that_binds_longest_is_named() -> None:
    ledger = BudgetLedger()
    for scope in (HOUR, DAY, SESSION):
        ledger.cap(scope, 0)
    named = [ledger.reserve(1, scopes, AT) for scopes in ([HOUR], [DAY, HOUR], [SESSION, DAY, HOUR])]
    assert [refused.scope for refused in named if isinstance(refused, Refused)] == [HOUR, DAY, SESSION]


def test_any_of_the_seven_scopes_can_refuse() -> None:
    scopes = [ANN, PROJECT, SESSION, TREE, HOUR, DAY, ALL]
    for scope in scopes:
        ledger = BudgetLedger()
        ledger.cap(scope, 5)
        granted(ledger, 5, *scopes)
        refused = ledger.reserve(1, scopes, AT)
        assert isinstance(refused, Refused)
        assert (refused.scope, refused.limit, refused.spent, refused.reserved) == (scope, 5, 0, 5)


def test_fifty_racers_exceed_no_cap_by_more_than_one_estimate() -> None:
    ledger = BudgetLedger()
    ledger.cap_each("hour", 10 * USD)
    running = [ledger.reserve(USD * 3 // 10, [ANN, HOUR], AT) for _ in range(50)]
    let_in = [one for one in running if isinstance(one, Reservation)]
    assert len(let_in) == 34
    for reservation in let_in:
        ledger.settle(reservation, USD * 3 // 10, AT)
    assert 10 * USD <= ledger.look(HOUR, AT).spent < 10 * USD + USD * 3 // 10


@given(
    cap=st.integers(0, 1000), estimates=st.lists(st.integers(0, 100), max_size=60),
    order=st.randoms(use_true_random=False),
)  # fmt: skip
def test_racers_in_any_order(cap: int, estimates: list[int], order: Any) -> None:
    ledger, running = BudgetLedger(), []
    ledger.cap(ALL, cap)
    for estimate in estimates:
        reservation = ledger.reserve(estimate, [ALL], AT)
        if isinstance(reservation, Reservation):
            running.append(reservation)
        if running and order.random() < 0.4:
            done = running.pop(order.randrange(len(running)))
            ledger.settle(done, order.randint(0, done.estimate), AT)
        state = ledger.look(ALL, AT)
        assert state.spent + state.reserved <= cap + max(estimates)


def test_at_80_percent_and_at_the_cap_it_is_told_once() -> None:
    ledger = BudgetLedger()
    ledger.cap(HOUR, 100)
    told = [ledger.settle(granted(ledger, 1, HOUR), cost, AT) for cost in (79, 1, 5, 14)]
    assert told == [[], [Crossed("warning", HOUR, 100, 80, AT + 3600)], [], []]
    told = [ledger.settle(reservation, 1, AT) for reservation in [granted(ledger, 0, HOUR)] * 2]
    assert told == [[Crossed("exhausted", HOUR, 100, 100, AT + 3600)], []]
    again = ledger.settle(granted(ledger, 1, HOUR, at=AT + 3600), 85, AT + 3600)
    assert [crossed.level for crossed in again] == ["warning"], "a new hour"


def test_a_raised_cap_lets_in_at_once_and_warns_again() -> None:
    ledger = BudgetLedger()
    ledger.cap_each("session", 100)
    ledger.settle(granted(ledger, 100, SESSION), 100, AT)
    assert isinstance(ledger.reserve(1, [SESSION], AT), Refused)
    ledger.cap(SESSION, 200)
    crossed = ledger.settle(granted(ledger, 60, SESSION), 60, AT)
    assert [(one.level, one.limit) for one in crossed] == [("warning", 200)]
    ledger.cap(SESSION, None)
    assert isinstance(ledger.reserve(1, [SESSION], AT), Refused), "back to what sessions may"
    ledger.cap_each("session", None)
    granted(ledger, 1, SESSION)
    assert (dict(ledger.caps), dict(ledger.default_caps)) == ({}, {})


def test_a_lowered_cap_binds_the_next_reservation() -> None:
    ledger = BudgetLedger()
    ledger.cap_each("client", 100)
    running = granted(ledger, 50, ANN)
    ledger.cap_each("client", 40)
    ledger.cap(Scope("client", "nobody yet"), 7)
    assert isinstance(ledger.reserve(1, [ANN], AT), Refused)
    assert [crossed.level for crossed in ledger.settle(running, 45, AT)] == ["exhausted"]
    assert ledger.look(Scope("client", "nobody yet"), AT).cap == 7
    assert (dict(ledger.caps), dict(ledger.default_caps)) == ({("client", "nobody yet"): 7}, {"client": 40})


def test_costs_count_while_the_turn_runs() -> None:
    ledger = BudgetLedger()
    ledger.cap(SESSION, 100)
    turn = granted(ledger, 50, SESSION)
    assert ledger.spend(turn, 30, AT) == []
    assert ledger.look(SESSION, AT)[2:4] == (30, 20)
    assert [crossed.level for crossed in ledger.spend(turn, 60, AT)] == ["warning"]
    assert ledger.look(SESSION, AT)[2:4] == (90, 0)
    assert ledger.spend(turn, 0, AT) == ledger.spend(turn, -5, AT) == []
    assert ledger.settle(turn, 95, AT) == []
    assert ledger.look(SESSION, AT)[2:4] == (95, 0)
    assert ledger.spend(turn, 50, AT) == ledger.settle(turn, 500, AT) == [], "it is over"
    assert ledger.look(SESSION, AT).spent == 95


def test_what_is_unknown_is_not_nothing() -> None:
    ledger = BudgetLedger()
    ledger.settle(granted(ledger, 50, ALL), None, AT)
    assert ledger.look(ALL, AT)[2:4] == (50, 0)


def test_what_was_spent_is_never_taken_back() -> None:
    ledger = BudgetLedger()
    turn = granted(ledger, 50, ALL)
    ledger.spend(turn, 30, AT)
    ledger.settle(turn, 10, AT)
    assert ledger.look(ALL, AT).spent == 30
    ledger.settle(granted(ledger, 5, ALL), -100, AT)
    assert ledger.look(ALL, AT)[2:4] == (30, 0)


def test_what_was_not_begun_costs_nothing() -> None:
    ledger = BudgetLedger()
    ledger.release(granted(ledger, 50, ALL, HOUR), AT)
    assert ledger.look(ALL, AT)[2:4] == ledger.look(HOUR, AT)[2:4] == (0, 0)


def test_a_scope_that_is_named_twice_counts_once() -> None:
    ledger = BudgetLedger()
    ledger.settle(granted(ledger, 50, ANN, ANN), 40, AT)
    assert ledger.look(ANN, AT).spent == 40


def test_a_turn_is_charged_to_the_window_in_which_it_ends() -> None:
    ledger = BudgetLedger()
    ledger.cap(HOUR, 100)
    early, late = granted(ledger, 90, HOUR), granted(ledger, 9, HOUR, at=AT + 3599)
    assert ledger.look(HOUR, AT + 3600)[2:4] == (0, 99), "what runs is still reserved"
    ledger.settle(early, 80, AT + 3601)
    ledger.settle(late, 5, AT + 7300)
    assert [(state.spent, state.reserved) for state in ledger.state(AT + 7300)] == [(5, 0)]


def test_days_begin_where_the_user_is() -> None:
    tokyo, utc = BudgetLedger(9 * 3600), BudgetLedger()
    assert utc.look(DAY, AT).resets_at == AT + 8 * 3600
    assert tokyo.look(DAY, AT).resets_at == AT + 23 * 3600
    assert tokyo.look(HOUR, AT).resets_at == utc.look(HOUR, AT).resets_at == AT + 3600


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    ledger = BudgetLedger()
    ledger.cap(HOUR, 100)
    ledger.settle(granted(ledger, 1, HOUR), 100, AT)
    for back in (1.0, 3600.0, 4000.0, 86_400.0, 5e8):
        refused = ledger.reserve(1, [HOUR], AT - back)
        assert isinstance(refused, Refused)
        assert refused.resets_at is not None
        assert refused.resets_at <= AT - back + 3 * 3600, "and blocks nobody for long"


def test_an_estimate_below_nothing_and_a_cap_below_nothing_are_refused() -> None:
    ledger = BudgetLedger()
    with pytest.raises(ValueError, match="estimate of -1 micro-USD is below nothing"):
        ledger.reserve(-1, [ALL], AT)
    for cap in (lambda: ledger.cap(ALL, -1), lambda: ledger.cap_each("all", -1)):
        with pytest.raises(ValueError, match="cap of -1 micro-USD is below nothing"):
            cap()


def test_a_kill_counts_what_was_reserved_as_spent() -> None:
    ledger = BudgetLedger()
    ledger.cap_each("hour", 100)
    ledger.settle(granted(ledger, 10, HOUR, SESSION), 20, AT)
    granted(ledger, 30, HOUR)
    stored = ledger.changes()
    assert ledger.changes() == []
    again = BudgetLedger()
    again.cap_each("hour", 100)
    again.restore(stored)
    assert again.look(HOUR, AT)[2:5] == (50, 0, 100)
    assert again.look(SESSION, AT)[2:5] == (20, 0, None)
    again.restore([again.look(HOUR, AT)._replace(spent=0)])
    assert again.look(HOUR, AT).spent == 50, "what is held is newer than what is stored"
    assert again.look(HOUR, AT + 3600).spent == 0


def test_accounts_unused_for_long_give_way_and_can_be_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_ledger, "MOST_ACCOUNTS", 8)
    ledger = BudgetLedger()
    running = granted(ledger, 5, Scope("session", "running"))
    stored = {}
    for number in range(40):
        ledger.settle(granted(ledger, 1, Scope("session", str(number))), 7, AT)
        stored |= {state.scope: state for state in ledger.changes()}
    assert len(ledger.state(AT)) <= 9
    old, new = Scope("session", "0"), Scope("session", "39")
    assert ledger.unknown([old, new]) == [old]
    ledger.restore([stored[old]])
    assert ledger.look(old, AT).spent == 7
    ledger.settle(running, 3, AT)
    assert ledger.look(Scope("session", "running"), AT).spent == 3


def test_looking_makes_no_account() -> None:
    ledger = BudgetLedger()
    ledger.cap_each("project", 9)
    midnight = AT - AT % 86_400
    assert ledger.look(PROJECT, AT) == (PROJECT, midnight, 0, 0, 9, midnight + 86_400)
    assert ledger.state(AT) == ledger.changes() == []


KINDS: list[Kind] = ["session", "hour", "all"]
SCOPES = [Scope("session", "a"), Scope("session", "b"), HOUR, DAY, ALL]


@dataclass
class Turn:
    scopes: list[Scope]
    estimate: int
    spent: int = 0


class Against(RuleBasedStateMachine):
    """Every cost with its time, added up anew each time."""

    subject: type[BudgetLedger] = BudgetLedger

    @initialize()
    def begin(self) -> None:
        self.ledger = self.subject()
        self.now = AT
        self.costs: list[tuple[float, Scope, int]] = []
        self.turns: dict[int, tuple[Any, Turn]] = {}
        self.numbers = itertools.count()
        self.caps: dict[Scope, int] = {}
        self.default: dict[str, int] = {}
        self.largest = 0

    @rule(scope=st.sampled_from(SCOPES), cap=st.one_of(st.none(), st.integers(0, 300)))
    def cap(self, scope: Scope, cap: int | None) -> None:
        self.ledger.cap(scope, cap)
        if cap is None:
            self.caps.pop(scope, None)
        else:
            self.caps[scope] = cap

    @rule(kind=st.sampled_from(KINDS), cap=st.one_of(st.none(), st.integers(0, 300)))
    def cap_each(self, kind: Kind, cap: int | None) -> None:
        self.ledger.cap_each(kind, cap)
        if cap is None:
            self.default.pop(kind, None)
        else:
            self.default[kind] = cap

    @rule(seconds=st.sampled_from([0.0, 60.0, 1800.0, 3600.0, 40_000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(scopes=st.lists(st.sampled_from(SCOPES), min_size=1, max_size=5), estimate=st.integers(0, 60))
    def reserve(self, scopes: list[Scope], estimate: int) -> None:
        full = {scope for scope in scopes if self._is_full(scope)}
        answer = self.ledger.reserve(estimate, scopes, self.now)
        if full:
            assert isinstance(answer, Refused)
            assert answer.scope in full
            assert (answer.spent, answer.reserved) == (
                self._spent(answer.scope),
                self._reserved(answer.scope),
            )
        else:
            assert isinstance(answer, Reservation)
            self.turns[next(self.numbers)] = (answer, Turn(list(dict.fromkeys(scopes)), estimate))
            for scope in scopes:
                cap = self._cap(scope)
                assert cap is None or self._spent(scope) + self._reserved(scope) < cap + max(estimate, 1)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), amount=st.integers(0, 90))
    def spend(self, data: Any, amount: int) -> None:
        reservation, turn = self.turns[data.draw(st.sampled_from(sorted(self.turns)))]
        before = self._levels(turn.scopes)
        crossed = self.ledger.spend(reservation, amount, self.now)
        turn.spent += amount
        self._cost(turn, amount, before, crossed)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), real=st.one_of(st.none(), st.integers(0, 120)))
    def settle(self, data: Any, real: int | None) -> None:
        reservation, turn = self.turns.pop(data.draw(st.sampled_from(sorted(self.turns))))
        before = self._levels(turn.scopes)
        crossed = self.ledger.settle(reservation, real, self.now)
        amount = max(0, (turn.estimate if real is None else real) - turn.spent)
        self._cost(turn, amount, before, crossed)

    @rule()
    def kill_and_restart(self) -> None:
        stored = self.ledger.state(self.now)
        self.ledger = self.subject()
        self.ledger.restore(stored)
        for scope, cap in self.caps.items():
            self.ledger.cap(scope, cap)
        for kind in KINDS:
            self.ledger.cap_each(kind, self.default.get(kind))
        for _, turn in self.turns.values():
            left = max(0, turn.estimate - turn.spent)
            self.costs += [(self.now, scope, left) for scope in turn.scopes]
        self.turns = {}

    @invariant()
    def same(self) -> None:
        for scope in SCOPES if hasattr(self, "ledger") else ():
            state = self.ledger.look(scope, self.now)
            assert state[2:5] == (self._spent(scope), self._reserved(scope), self._cap(scope))

    def _cost(self, turn: Turn, amount: int, before: dict[Scope, int], crossed: list[Crossed]) -> None:
        self.costs += [(self.now, scope, amount) for scope in turn.scopes]
        after = self._levels(turn.scopes)
        rose = {scope for scope in turn.scopes if amount and after[scope] > before[scope]}
        assert rose <= {one.scope for one in crossed}, "whoever reaches a mark is told of"
        assert all(one.level == ("", "warning", "exhausted")[after[one.scope]] for one in crossed)

    def _levels(self, scopes: list[Scope]) -> dict[Scope, int]:
        levels = {}
        for scope in scopes:
            cap, spent = self._cap(scope), self._spent(scope)
            levels[scope] = 0 if cap is None or spent < 0.8 * cap else 1 if spent < cap else 2
        return levels

    def _cap(self, scope: Scope) -> int | None:
        return self.caps.get(scope, self.default.get(scope.kind))

    def _spent(self, scope: Scope) -> int:
        window = {"hour": 3600, "day": 86_400}.get(scope.kind, 10**15)
        return sum(c for at, of, c in self.costs if of == scope and at // window == self.now // window)

    def _reserved(self, scope: Scope) -> int:
        turns = [turn for _, turn in self.turns.values() if scope in turn.scopes]
        return sum(max(0, turn.estimate - turn.spent) for turn in turns)

    def _is_full(self, scope: Scope) -> bool:
        cap = self._cap(scope)
        return cap is not None and self._spent(scope) + self._reserved(scope) >= cap


def test_against_the_model(play: Any) -> None:
    play(Against)


class _Racy(BudgetLedger):
    """Looks at what was spent and not at what is reserved."""

    __slots__ = ()

    def reserve(self, estimate: int, scopes: Any, wall: float) -> Any:
        scopes = list(scopes)
        accounts = [account for account in self._accounts.values() if account.scope in scopes]
        held = [account.reserved for account in accounts]
        for account in accounts:
            account.reserved = 0
        answer = super().reserve(estimate, scopes, wall)
        for account, reserved in zip(accounts, held, strict=True):
            account.reserved += reserved
        return answer


class _Forgetful(BudgetLedger):
    """Forgets what was under way when it was killed."""

    __slots__ = ()

    def restore(self, stored: Any) -> None:
        super().restore([state._replace(reserved=0) for state in stored])


class _Silent(BudgetLedger):
    """Tells of the cap and not of the warning."""

    __slots__ = ()

    def _move(self, *args: Any) -> list[Crossed]:
        return [one for one in super()._move(*args) if one.level == "exhausted"]


@pytest.mark.parametrize("broken", [_Racy, _Forgetful, _Silent])
def test_the_model_catches(broken: type[BudgetLedger], catches: Any) -> None:
    catches(type("Broken", (Against,), {"subject": broken}))
