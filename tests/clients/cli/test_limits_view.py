"""The picture of the limits."""

import time

from dragoman.cli.limits_view import budget_line, explanation, picture
from dragoman_protocol.breaker import BreakerInfo
from dragoman_protocol.budget import BudgetState
from dragoman_protocol.limits import (
    Bucket,
    Holder,
    LimitsExplainResult,
    LimitsStateResult,
    ModelPool,
    QuotaWindow,
    WaitingTurn,
)

NOON = time.mktime((2026, 5, 4, 12, 0, 0, 0, 0, -1))
IDLE = LimitsStateResult(
    running=0, queued=0, max_running=8, max_queued=512, max_queued_per_client=64, max_calls=16
)


def shown(state: LimitsStateResult) -> str:
    return "\n".join(picture(state, NOON))


def test_an_idle_daemon_is_two_lines() -> None:
    assert shown(IDLE).splitlines() == [
        "Turns  ░░░░░░░░░░░░ 0 of 8 run, 0 wait",
        "Calls  ░░░░░░░░░░░░ 0 of 16 run, 0 wait",
    ]


def test_a_quota_that_is_used_up_though_nothing_waits() -> None:
    state = LimitsStateResult(
        running=0,
        queued=0,
        max_running=8,
        max_queued=512,
        max_queued_per_client=64,
        parked_until=NOON + 7_200,
    )
    assert "A quota is used up: what needs it waits until 14:00 (in 2 h)" in shown(state).splitlines()


def test_everything_at_once() -> None:
    state = LimitsStateResult(
        running=4,
        queued=3,
        max_running=8,
        max_queued=512,
        max_queued_per_client=64,
        calls_running=2,
        max_calls=16,
        parked=2,
        parked_until=NOON + 7_200,
        waiting_for_auth=True,
        human_active=True,
        buckets=[Bucket(name="queriesPerMinute", source="settings", level=30, capacity=60, per_second=1)],
        pools=[
            ModelPool(
                credential="apiKey",
                models="opus\x1b[2J",
                running=2,
                waiting=1,
                ceiling=6.7,
                paused_until=NOON + 30,
                breaker=BreakerInfo(
                    host="api", models="opus", state="half_open", retry_at=NOON + 5, reason="529\x07"
                ),
                buckets=[
                    Bucket(name="inputTokens", source="provider", level=-20, capacity=100, per_second=0.001)
                ],
            )
        ],
        windows=[
            QuotaWindow(
                name="five_hour", status="allowed_warning", utilization=0.75, resets_at=NOON + 3_600,
                exhausted_at=NOON + 1_800,
            ),
            QuotaWindow(name="seven_day", status="rejected"),
        ],
        budget=[BudgetState(scope="hour", limit_usd=10, spent_usd=2.5, resets_at=NOON + 600)],
    )  # fmt: skip
    assert shown(state).splitlines() == [
        "Turns  ██████░░░░░░ 4 of 8 run, 3 wait, 2 of them parked until 14:00 (in 2 h)",
        "Calls  ██░░░░░░░░░░ 2 of 16 run, 0 wait",
        "The credential was refused. Nothing is sent until it is replaced: see dragoman auth status",
        "A person was active lately: one place is kept for people.",
        "  queriesPerMinute         ██████░░░░░░ 30 of 60 left, +1/s",
        "",
        "opus[2J (apiKey): 2 of 7 calls run, 1 wait",
        "  The provider asked for a pause until 12:00 (in 30 s).",
        "  The breaker is half open, tries again 12:00 (in 5 s): 529",
        "  inputTokens              ░░░░░░░░░░░░ 0 of 100 left, 20 of debt, +4/h",
        "",
        "The account's windows",
        ("  five_hour                █████████░░░ 75% used, allowed_warning, resets 13:00 (in 1 h)"
         "; at this pace used up 12:30 (in 30 min)"),
        "  seven_day                rejected",
        "",
        "Budget (estimated)",
        "  hour                     ███░░░░░░░░░ $2.50 of $10.00, begins anew 12:10 (in 10 min)",
    ]


def test_budgets() -> None:
    assert budget_line(BudgetState(scope="day", spent_usd=3), NOON) == (
        "  day                      $3.00 spent, no cap"
    )
    line = budget_line(BudgetState(scope="client", key="a\x1bb", limit_usd=0, reserved_usd=0.5), NOON)
    assert line == "  client ab                ████████████ $0.00 of $0.00, $0.5000 reserved"


def test_rates_a_day() -> None:
    bucket = Bucket(name="n", source="settings", level=0, capacity=0, per_second=1e-5)
    state = LimitsStateResult(
        running=0, queued=0, max_running=1, max_queued=1, max_queued_per_client=1, buckets=[bucket]
    )
    assert shown(state).endswith("0 of 0 left, +0.9/d")


def test_why_something_waits() -> None:
    found = LimitsExplainResult(
        waiting=[
            WaitingTurn(
                kind="turn", client="c1", name="nvim", session_id="12345678-0000", reason="rate",
                text="60 queries a minute are used up.", waited_ms=1500, position=0, expected_at=NOON + 4,
                expires_at=NOON + 60,
            ),
            WaitingTurn(
                kind="call", client="c2", priority="batch", reason="concurrency", waited_ms=0, position=2,
                text="All places are taken.",
            ),
        ],
        holders=[
            Holder(client="c3", name="job", since=NOON - 65),
            Holder(client="c4", kind="call", since=NOON),
        ],
    )  # fmt: skip
    assert list(explanation(found, NOON)) == [
        "1. turn of nvim in session 12345678, interactive, waits for 2 s",
        ("   60 queries a minute are used up. It is next. Expected to run 12:00 (in 4 s)."
         " Given up 12:01 (in 1 min)."),
        "2. call of c2, batch, waits for 0 s",
        "   All places are taken. 2 others before it.",
        "Running:",
        "  turn of job, for 1 min 5 s",
        "  call of c4, for 0 s",
    ]
    assert list(explanation(LimitsExplainResult(waiting=[]), NOON)) == ["Nothing waits."]
