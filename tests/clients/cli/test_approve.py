import io
import sys
from typing import Any

import pytest
from dragoman.cli.approve import Approver
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams


def asked(tool: str = "Bash", **given: Any) -> PermissionRequestParams:
    return PermissionRequestParams(
        permission_id="p", session_id="s", turn_id="t", tool_name=tool, input=given, reason=None
    )


def decide(
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    question: PermissionRequestParams,
    approver: Approver | None = None,
) -> PermissionDecision:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return (approver or Approver())(question)


@pytest.mark.parametrize(
    ("typed", "decision", "message"),
    [
        ("y\n", "allow", None),
        ("YES\n", "allow", None),
        ("a\n", "allow", None),
        ("n\n", "deny", "The user said no."),
        ("no\n", "deny", "The user said no."),
        ("", "deny", "Nobody is there to decide."),
        ("hm\ny\n", "allow", None),
        ("\n\nn\n", "deny", "The user said no."),
        ("use the other file\n", "deny", "use the other file"),
        ("s\ny\n", "allow", None),
    ],
)
def test_answers(monkeypatch: pytest.MonkeyPatch, typed: str, decision: str, message: str | None) -> None:
    assert decide(monkeypatch, typed, asked(command="ls")) == PermissionDecision(
        decision=decision,  # type: ignore[arg-type]
        message=message,
    )


def test_always_is_for_one_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    approver = Approver()
    assert decide(monkeypatch, "always\n", asked(), approver).decision == "allow"
    assert decide(monkeypatch, "", asked(), approver).decision == "allow"
    assert decide(monkeypatch, "", asked("Edit"), approver).decision == "deny"


def test_what_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    question = asked(command="echo \x1b[2J" + "x" * 1000)
    question.reason = "it is new\x07"
    decide(monkeypatch, "n\n", question)
    shown = capsys.readouterr().err
    assert "Claude wants to use Bash (it is new):" in shown
    assert "characters in all" in shown
    assert "x" * 1000 not in shown
    assert "\x1b[2J" not in shown
    decide(monkeypatch, "s\nn\n", question)
    assert "x" * 1000 in capsys.readouterr().err
