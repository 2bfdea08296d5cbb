"""Money: reserved before a turn, settled after it, never more than a cap but for one turn's estimate."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from dragoman_protocol.budget import (
    BudgetExhaustedParams,
    BudgetRaiseParams,
    BudgetRaiseResult,
    BudgetWarningParams,
)
from dragoman_protocol.session import Usage
from dragomand.engine.budgets import Budgets
from dragomand.engine.caller import Caller
from dragomand.engine.errors import EngineError
from dragomand.engine.estimates import GUESS
from dragomand.engine.spend import Payment, Spend
from dragomand.store.rows import SessionRow, TurnRow
from dragomand.store.store import Store

HOUR = 3_600.0
START = 1_700_000_000.0 - 1_700_000_000.0 % 86_400
NO_CAPS = {f"budget.{kind}Usd": 0.0 for kind in ("hour", "day", "client", "project", "session", "tree")}
GUESSED = GUESS["claude_code"] / 1_000_000
ALICE = Payment("nvim", "claude_code", project="/p", session_id="s1")

Asker = Callable[[BudgetRaiseParams], Awaitable[BudgetRaiseResult]]


def caller(asker: Asker | None = None, scopes: tuple[str, ...] = ("query", "approve")) -> Caller:
    return Caller(id="c1", name="nvim", scopes=frozenset(scopes), budget_asker=asker)


class Tasks:
    """As much of a task group as budgets need; a fixture cannot hold a real one."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Task[None]] = []

    def start_soon(self, work: Callable[..., Any], *arguments: Any) -> None:
        self.begun.append(asyncio.create_task(work(*arguments)))

    async def ended(self) -> None:
        await asyncio.gather(*self.begun)


class House:
    """A store, a clock that a test moves, and what was told."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.tasks = Tasks()
        self.now = START
        self.told: list[Any] = []
        self.store: Store
        self.budgets: Budgets
        self.turns = 0

    async def begin(self, **caps: float) -> None:
        self.store = await Store.open(self.path, clock=lambda: self.now)
        self.budgets = Budgets(
            self.store,
            tasks=self.tasks,  # type: ignore[arg-type]  # as above
            clock=lambda: self.now,
            tell=self.told.append,
            ask_timeout_s=20.0,
            logger=logging.getLogger("test"),
        )
        self.budgets.caps.apply(NO_CAPS | {f"budget.{kind}Usd": usd for kind, usd in caps.items()})
        await self.budgets.load()

    async def again(self, **caps: float) -> None:
        await self.store.close()
        await self.begin(**caps)

    async def start(self, payment: Payment = ALICE, who: Caller | None = None) -> tuple[Spend, TurnRow]:
        await self.budgets.allow(payment, who or caller())
        spend = self.budgets.reserve(payment)
        self.turns += 1
        session = f"{payment.session_id}-{self.turns}"
        turn = TurnRow(
            turn_id=f"t{self.turns}",
            session_id=session,
            status="running",
            started_at=self.now,
            upstream=payment.upstream,
        )
        row = spend.opened(turn)
        row.session_id = payment.session_id
        new = SessionRow(session_id=session, created_at=self.now, updated_at=self.now, epoch="e")
        await self.store.open_turn(turn, [], new, row)
        return spend, turn

    async def end(
        self, spend: Spend, turn: TurnRow, cost: float | None, status: Any = "completed", **facts: Any
    ) -> None:
        turn.status, turn.cost_usd = status, cost
        turn.output_tokens = facts.get("tokens", 1)
        row = spend.closed(turn, sent=facts.get("sent", True))
        await self.store.close_turn(turn, [], row)
        spend.release()

    async def turn(self, cost: float | None, payment: Payment = ALICE, **facts: Any) -> None:
        await self.end(*await self.start(payment), cost, **facts)

    async def spent(self, scope: Any, key: str | None = None) -> tuple[float, float]:
        (state,) = await self.budgets.get(scope, key)
        return state.spent_usd, state.reserved_usd


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(str(tmp_path / "db"))
    await house.begin()
    yield house
    await house.store.close()


async def test_a_turn_reserves_a_guess_and_settles_its_cost(house: House) -> None:
    spend, turn = await house.start()
    assert await house.spent("hour") == (0, GUESSED)
    await house.end(spend, turn, 0.3)
    assert await house.spent("hour") == (0.3, 0)
    assert await house.spent("day") == (0.3, 0)
    await house.start()  # the next one of its kind is expected to cost as much
    assert await house.spent("hour") == (0.3, 0.3)


async def test_a_turn_never_reserves_more_than_its_own_cap(house: House) -> None:
    await house.start(ALICE._replace(most_usd=0.01))
    assert await house.spent("hour") == (0, 0.01)


@pytest.mark.parametrize(
    ("facts", "charged"),
    [
        ({"cost": None}, GUESSED),
        ({"cost": None, "status": "interrupted"}, GUESSED),
        ({"cost": None, "status": "failed", "tokens": 0}, 0),
        ({"cost": None, "status": "failed", "tokens": 5}, GUESSED),
        ({"cost": None, "status": "cancelled", "sent": False}, 0),
        ({"cost": 0.2, "status": "failed"}, 0.2),
    ],
)
async def test_what_an_unknown_cost_counts_as(house: House, facts: dict[str, Any], charged: float) -> None:
    await house.turn(**facts)
    assert await house.spent("hour") == (charged, 0)
    await house.again()
    assert await house.spent("hour") == (charged, 0)


async def test_a_cap_refuses_and_says_everything(house: House) -> None:
    await house.again(hour=0.5)
    await house.turn(0.5)
    with pytest.raises(EngineError) as refused:
        await house.start()
    error = refused.value
    assert error.kind == "budget_exhausted"
    assert error.data == {
        "scope": "hour",
        "key": None,
        "limit_usd": 0.5,
        "spent_usd": 0.5,
        "reserved_usd": 0,
        "remaining_usd": 0,
        "needed_usd": 0.5,
        "resets_at": START + HOUR,
        "retry_after_ms": 3_600_000,
        "retryable": True,
    }
    assert "is spent: $0.5000 of $0.5000" in str(error)
    house.now += HOUR
    await house.start()


async def test_racers_cross_a_cap_by_one_estimate_at_most(house: House) -> None:
    await house.again(hour=0.12)
    begun = 0
    for _ in range(50):
        try:
            house.budgets.reserve(ALICE)
        except EngineError as error:
            assert "reserved by what runs" in str(error)  # noqa: PT017 - the first ones are let in
        else:
            begun += 1
    assert begun == 3
    spent, reserved = await house.spent("hour")
    assert spent + reserved < 0.12 + GUESSED


async def test_released_is_given_back(house: House) -> None:
    spend = house.budgets.reserve(ALICE)
    spend.release()
    spend.release()
    assert await house.spent("hour") == (0, 0)
    never_opened = TurnRow(turn_id="t", session_id="s", status="failed", started_at=1)
    assert spend.closed(never_opened, sent=False) is None


@pytest.mark.parametrize(
    ("kind", "payment", "other"),
    [
        ("client", ALICE, ALICE._replace(client="other")),
        ("project", ALICE, ALICE._replace(project="/q")),
        ("session", ALICE, ALICE._replace(session_id="s2")),
        ("tree", ALICE._replace(tree_id="o1"), ALICE._replace(tree_id="o2")),
    ],
)
async def test_caps_of_each(house: House, kind: Any, payment: Payment, other: Payment) -> None:
    await house.again(**{kind: 0.1})
    await house.turn(0.1, payment)
    with pytest.raises(EngineError) as refused:
        await house.start(payment)
    assert refused.value.data["scope"] == kind
    await house.turn(0.01, other)
    await house.again(**{kind: 0.1})
    with pytest.raises(EngineError):
        await house.start(payment)
    assert refused.value.data["retryable"] == (kind in ("client", "project"))


async def test_a_cap_that_is_set_later_counts_what_was_spent_before(house: House) -> None:
    await house.turn(0.4)
    state = await house.budgets.set("client", "nvim", 0.3)
    assert (state.spent_usd, state.remaining_usd) == (0.4, 0)
    with pytest.raises(EngineError):
        await house.start()
    await house.again()
    with pytest.raises(EngineError):
        await house.start()
    assert (await house.budgets.set("client", "nvim", None)).limit_usd is None
    await house.start()


async def test_a_killed_daemon_forgets_nothing(house: House) -> None:
    await house.again(hour=1.0)
    await house.turn(0.3)
    await house.start()
    await house.store.close()  # without an end of the turn
    await house.begin(hour=1.0)
    spent, reserved = await house.spent("hour")
    assert (round(spent, 6), reserved) == (0.6, 0)


async def test_four_fifths_and_all_of_it_are_told_once(house: House) -> None:
    await house.again(hour=1.0)
    await house.turn(0.5)
    assert house.told == []
    await house.turn(0.35)
    assert [type(each) for each in house.told] == [BudgetWarningParams]
    assert (house.told[0].scope, house.told[0].spent_usd, house.told[0].limit_usd) == ("hour", 0.85, 1.0)
    await house.turn(0.2)
    assert [type(each) for each in house.told] == [BudgetWarningParams, BudgetExhaustedParams]


async def test_while_a_turn_runs(house: House) -> None:
    await house.again(hour=0.2)
    spend, turn = await house.start()
    spend.spent(0.15)
    assert not spend.exhausted
    assert await house.spent("hour") == (0.15, 0)
    spend.spent(0.06)
    assert [each.kind for each in (spend.exhausted,) if each] == ["budget_exhausted"]
    await house.end(spend, turn, 0.25)
    assert await house.spent("hour") == (0.25, 0)


@pytest.mark.parametrize(
    ("usage", "cost", "failed", "charged"),
    [
        (Usage(output_tokens=9), 0.2, False, 0.2),
        (None, None, True, 0),
        (Usage(output_tokens=1), None, True, 0.01),
    ],
)
async def test_a_call_of_a_program(
    house: House, usage: Usage | None, cost: float | None, failed: bool, charged: float
) -> None:
    spend = house.budgets.reserve(Payment("notes", "gateway", model="opus"))
    spend.call_ended(usage, cost, failed=failed)
    spend.release()
    assert await house.spent("hour") == (charged, 0)
    await house.tasks.ended()
    await house.again()
    assert await house.spent("hour") == (charged, 0)
    assert [name for name, _ in await house.store.spent_by("client")] == ["notes"]


async def test_what_cannot_be_stored_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    spend = house.budgets.reserve(Payment("notes", "gateway"))
    await house.store.close()
    spend.call_ended(None, 0.1, failed=False)
    await house.tasks.ended()
    assert "could not be stored" in caplog.text
    await house.begin()


async def test_the_turns_that_run_are_known(house: House) -> None:
    spend, turn = await house.start()
    assert house.budgets.of_turn(turn.turn_id) is spend
    await house.end(spend, turn, 0.1)
    assert house.budgets.of_turn(turn.turn_id) is None
    assert house.budgets.of_turn(None) is None


# -- asking a person


async def test_a_person_raises_a_cap_until_its_window_ends(house: House) -> None:
    asked: list[BudgetRaiseParams] = []

    async def yes(question: BudgetRaiseParams) -> BudgetRaiseResult:
        asked.append(question)
        return BudgetRaiseResult(limit_usd=2.0)

    await house.again(hour=0.5)
    await house.turn(0.6)
    spend, turn = await house.start(who=caller(yes))
    await house.end(spend, turn, 0.1)
    (question,) = asked
    assert (question.budget.scope, question.budget.limit_usd, question.needed_usd) == ("hour", 0.5, 0.6)
    assert question.expires_at == START + 20.0
    await house.again(hour=0.5)
    assert (await house.budgets.get("hour", None))[0].limit_usd == 2.0
    house.now += HOUR
    assert (await house.budgets.get("hour", None))[0].limit_usd == 0.5


@pytest.mark.parametrize("answer", [None, 0.5, 0.1, 2e6, float("nan")])
async def test_what_is_no_raise(house: House, answer: float | None) -> None:
    async def no(_question: BudgetRaiseParams) -> BudgetRaiseResult:
        return BudgetRaiseResult(limit_usd=answer)

    await house.again(hour=0.5)
    await house.turn(0.6)
    with pytest.raises(EngineError, match="is spent"):
        await house.start(who=caller(no))


async def test_a_client_that_fails_is_a_no(house: House) -> None:
    async def broken(_question: BudgetRaiseParams) -> BudgetRaiseResult:
        raise ConnectionError("gone")

    await house.again(hour=0.5)
    await house.turn(0.6)
    with pytest.raises(EngineError, match="is spent"):
        await house.start(who=caller(broken))


async def test_who_may_not_approve_is_not_asked(house: House) -> None:
    async def never(_question: BudgetRaiseParams) -> BudgetRaiseResult:
        raise AssertionError("asked")

    await house.again(hour=0.5)
    await house.turn(0.6)
    with pytest.raises(EngineError, match="is spent"):
        await house.start(who=caller(never, scopes=("query",)))


async def test_of_many_one_asks(house: House) -> None:
    asked, answer = anyio.Event(), anyio.Event()
    questions = 0

    async def slowly(_question: BudgetRaiseParams) -> BudgetRaiseResult:
        nonlocal questions
        questions += 1
        asked.set()
        await answer.wait()
        return BudgetRaiseResult(limit_usd=5.0)

    await house.again(hour=0.5)
    await house.turn(0.6)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(house.budgets.allow, ALICE, caller(slowly))
            await asked.wait()
            answer.set()
    assert questions == 1


async def test_asking_has_an_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_question: BudgetRaiseParams) -> BudgetRaiseResult:
        await anyio.sleep_forever()
        raise AssertionError

    await house.again(hour=0.5)
    await house.turn(0.6)
    monkeypatch.setattr(house.budgets, "_ask_timeout_s", 0.01)
    with pytest.raises(EngineError, match="is spent"):
        await house.start(who=caller(silent))


async def test_a_turn_that_may_not_wait_so_long_asks_no_longer(house: House) -> None:
    asked: list[BudgetRaiseParams] = []

    async def silent(question: BudgetRaiseParams) -> BudgetRaiseResult:
        asked.append(question)
        await anyio.sleep_forever()
        raise AssertionError

    await house.again(hour=0.5)
    await house.turn(0.6)
    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            for _ in range(2):

                async def refused() -> None:
                    with pytest.raises(EngineError, match="is spent"):
                        await house.budgets.allow(ALICE, caller(silent), 0.01)

                group.start_soon(refused)
    assert [question.expires_at for question in asked] == [START + 0.01]


# -- listing


async def test_the_list(house: House) -> None:
    await house.again(project=1.0)
    await house.turn(0.2)
    await house.budgets.set("session", "s9", 3.0)
    listed = [(each.scope, each.key, each.limit_usd) for each in await house.budgets.get(None, None)]
    assert listed == [
        ("day", None, None), ("hour", None, None), ("project", "/p", 1.0), ("session", "s9", 3.0),
        ("project", "*", 1.0),
    ]  # fmt: skip
    assert [each.key for each in await house.budgets.get("project", None)] == ["/p", "*"]
    assert (await house.budgets.get("project", "/nowhere"))[0].limit_usd == 1.0
    each = await house.budgets.set("client", "*", 4.0)
    assert (each.key, each.limit_usd) == ("*", 4.0)
    assert (await house.budgets.get("client", "nvim"))[0].limit_usd == 4.0


async def test_the_caps_for_each_are_listed(house: House) -> None:
    """Whoever set a cap, or wrote one into the settings, finds it again: with the key `*`, last."""

    def told(found: list[Any]) -> list[tuple[str, str | None, float | None]]:
        return [(each.scope, each.key, each.limit_usd) for each in found]

    await house.again(project=2.0)
    await house.budgets.set("client", "*", 5.0)
    await house.turn(1.0)
    everything = await house.budgets.get(None, None)
    assert told(everything)[-2:] == [("client", "*", 5.0), ("project", "*", 2.0)]
    assert ("client", "nvim", 5.0) in told(everything)
    assert (everything[-2].spent_usd, everything[-2].remaining_usd) == (0.0, None)
    assert told(await house.budgets.get("client", None)) == [("client", "nvim", 5.0), ("client", "*", 5.0)]
    assert told(await house.budgets.get("client", "*")) == [("client", "*", 5.0)]
    assert told(await house.budgets.get("session", "*")) == [("session", "*", None)]
    await house.budgets.set("client", "*", None)
    assert told(await house.budgets.get("client", None)) == []
