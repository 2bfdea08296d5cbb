"""The question whether more may be spent, and what may be answered."""

import io
import sys
import time
from typing import Any

import pytest
from dragoman.cli import raise_budget
from dragoman.cli.raise_budget import ask_for_more
from dragoman_protocol.budget import BudgetRaiseParams, BudgetState

QUESTION = "  Raise it to how many dollars? [Enter: no] "


def asked(expires_in_s: float = 120, **budget: Any) -> BudgetRaiseParams:
    given: dict[str, Any] = {"scope": "hour", "limit_usd": 10.0, "spent_usd": 10.25, **budget}
    return BudgetRaiseParams(
        budget=BudgetState(**given), needed_usd=0.125, expires_at=time.time() + expires_in_s
    )


def answer(
    monkeypatch: pytest.MonkeyPatch, typed: str, question: BudgetRaiseParams | None = None
) -> float | None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return ask_for_more(question or asked())


@pytest.mark.parametrize(
    ("typed", "limit"),
    [
        ("20\n", 20.0),
        ("20", 20.0),
        ("$12.50\n", 12.5),
        ("$ 12.\n", 12.0),
        ("1000000\n", 1_000_000.0),
        ("\n", None),
        ("n\n", None),
        ("No\n", None),
        ("none\n", None),
        ("", None),
        ("  \n20\n", None),
    ],
)
def test_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, limit: float | None
) -> None:
    assert answer(monkeypatch, typed) == limit
    assert capsys.readouterr().err.endswith(QUESTION)


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("yes", "Expected an amount in dollars, for instance 12.50."),
        ("12,50", "Expected an amount in dollars"),
        ("-20", "Expected an amount in dollars"),
        ("nan", "Expected an amount in dollars"),
        ("inf", "Expected an amount in dollars"),
        ("1e3", "Expected an amount in dollars"),
        ("\u0662\u0660", "Expected an amount in dollars"),
        (".", "Expected an amount in dollars"),
        ("0", "Expected more than $10.25, and at most $1000000."),
        ("10", "Expected more than $10.25"),
        ("10.25", "Expected more than $10.25"),
        ("1000000.5", "Expected more than $10.25"),
    ],
)
def test_what_raises_nothing_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, why: str
) -> None:
    assert answer(monkeypatch, f"{word}\n20\n") == 20.0
    shown = capsys.readouterr().err
    assert shown.count(QUESTION) == 2
    assert why in shown
    assert answer(monkeypatch, f"{word}\n") is None


def test_what_is_reserved_has_to_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = asked(limit_usd=10.0, spent_usd=9.0, reserved_usd=3.0)
    assert answer(monkeypatch, "11.50\n12\n12.5\n", busy) == 12.5


def test_a_cap_of_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(monkeypatch, "0\n.50\n", asked(limit_usd=0.0, spent_usd=0.0)) == 0.5
    assert "is spent: $0.00 of $0.00.\n" in capsys.readouterr().err


def test_what_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(raise_budget, "instant", lambda at, now: f"<{at - now:.0f} s>")
    answer(monkeypatch, "\n", asked(reserved_usd=0.5, resets_at=time.time() + 600))
    assert capsys.readouterr().err == (
        "\nThe budget (hour) is spent: $10.25 of $10.00, $0.5000 reserved by what runs.\n"
        "It begins anew <600 s>; a higher cap holds until then.\n"
        f"The turn is expected to cost $0.1250. It waits for an answer until <120 s>.\n{QUESTION}"
    )
    answer(monkeypatch, "\n", asked(scope="project", key="/a\x1b[2Jb"))
    shown = capsys.readouterr().err
    assert "The budget (project /a[2Jb) is spent:" in shown
    assert "It never begins anew; a higher cap holds until it is set again." in shown


def test_an_answer_that_comes_too_late(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(monkeypatch, "20\n", asked(expires_in_s=-1)) is None
    assert "Too late: the turn was refused meanwhile" in capsys.readouterr().err
