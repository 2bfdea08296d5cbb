"""`dragoman budget`."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.budget import BudgetGetResult, BudgetSetResult, BudgetState


def asked(served: Any, method: str) -> list[dict[str, Any]]:
    return [given for name, given in served.requests if name == method]


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    return scripted


def test_the_caps(run: Callable[..., Any], served: Any) -> None:
    served.answers(
        "budget/get",
        BudgetGetResult(
            budgets=[
                BudgetState(scope="hour", limit_usd=10, spent_usd=5),
                BudgetState(scope="day"),
                BudgetState(scope="client", key="*", limit_usd=5),
                BudgetState(scope="project", key="*"),
            ]
        ),
    )
    assert run("budget").out.splitlines() == [
        "hour                     ██████░░░░░░ $5.00 of $10.00",
        "day                      $0.00 spent, no cap",
        "client *                 $5.00 at most, for each that has no cap of its own",
        "project *                no cap, for each that has no cap of its own",
    ]
    assert len(json.loads(run("budget", "--json").out)["budgets"]) == 4


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (("day", "20"), {"scope": "day", "limitUsd": 20.0}),
        (("hour", "$2.5"), {"scope": "hour", "limitUsd": 2.5}),
        (("all", "none"), {"scope": "all", "limitUsd": None}),
        (("client", "*", "5"), {"scope": "client", "key": "*", "limitUsd": 5.0}),
        (("project", "*", "5"), {"scope": "project", "key": "*", "limitUsd": 5.0}),
        (("project", ".", "5"), {"scope": "project", "key": os.path.realpath("."), "limitUsd": 5.0}),
    ],
)
def test_setting_one(
    run: Callable[..., Any], served: Any, arguments: tuple[str, ...], sent: dict[str, Any]
) -> None:
    served.answers("budget/set", BudgetSetResult(scope="day", limit_usd=20))
    done = run("budget", "set", *arguments)
    assert (done.status, done.out) == (0, "day                      ░░░░░░░░░░░░ $0.00 of $20.00\n")
    assert asked(served, "budget/set")[-1] == sent
    assert json.loads(run("budget", "set", *arguments, "--json").out)["limitUsd"] == 20


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("day", "x", "20"), "expected DOLLARS alone"),
        (("client", "20"), "expected the client and DOLLARS"),
        (("day", "much"), "expected an amount in dollars"),
        (("week", "3"), "'week' is not one of"),
    ],
)
def test_wrong_usage_asks_nobody(run: Callable[..., Any], served: Any, arguments: Any, told: str) -> None:
    done = run("budget", "set", *arguments)
    assert done.status == 2
    assert told in done.err
    assert asked(served, "budget/set") == []
