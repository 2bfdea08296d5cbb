"""What the words of a person are worth, of those that cannot be understood too."""

from typing import Any

import pytest
from dragoman.questions import BUDGET, PERMISSION, answerers, decision_of, raise_of
from dragoman_protocol.budget import BudgetRaiseResult
from dragoman_protocol.lifecycle import PermissionDecision


def test_decisions() -> None:
    allow = PermissionDecision(decision="allow", updated_input={"a": 2})
    assert decision_of(allow) is allow
    assert decision_of(True).decision == "allow"
    assert decision_of(False).decision == "deny"
    for wrong in (None, 1, "allow"):
        with pytest.raises(TypeError, match="expected True, False"):
            decision_of(wrong)


@pytest.mark.parametrize(
    ("word", "limit"),
    [
        (None, None),
        (20, 20.0),
        (12.5, 12.5),
        (0, 0.0),
        (BudgetRaiseResult(), None),
        (BudgetRaiseResult(limit_usd=30.0), 30.0),
    ],
)
def test_caps(word: object, limit: float | None) -> None:
    assert raise_of(word) == BudgetRaiseResult(limit_usd=limit)


@pytest.mark.parametrize("word", [True, False, "20", PermissionDecision(decision="allow")])
def test_what_is_no_cap(word: object) -> None:
    with pytest.raises(TypeError, match="expected None, dollars or a BudgetRaiseResult"):
        raise_of(word)


@pytest.mark.parametrize("word", [-1, float("nan"), float("inf"), BudgetRaiseResult(limit_usd=1e7)])
def test_what_is_no_money(word: object) -> None:
    with pytest.raises(ValueError, match="expected an amount from 0"):
        raise_of(word)


def test_who_is_given_answers() -> None:
    def person(asked: Any) -> None:
        raise AssertionError(asked)

    assert answerers(None, None) == {}
    assert answerers(person, None) == {PERMISSION: person}
    assert answerers(None, person) == {BUDGET: person}
    assert answerers(person, person) == {PERMISSION: person, BUDGET: person}


@pytest.mark.parametrize("kind", [PERMISSION, BUDGET])
def test_who_fails_says_no(kind: Any) -> None:
    assert kind.answer(kind.no) == kind.no
