import json

import pytest
from dragoman import errors
from dragoman.cli.report import error_json, exit_status, report
from dragoman_protocol.errors import RpcError


def of(kind: str, message: str | None = None, **data: object) -> errors.RequestError:
    return errors.from_rpc(RpcError(kind, message, **data))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (of("session_not_found"), 1),
        (errors.AnswerError("?"), 1),
        (errors.NotRunningError("x"), 69),
        (errors.LaunchError("x"), 69),
        (of("connection_closed"), 74),
        (errors.RequestTimeoutError("x"), 124),
        (of("deadline_exceeded"), 124),
        (of("request_cancelled"), 130),
    ],
)
def test_exit_statuses(error: errors.DragomanError, status: int) -> None:
    assert exit_status(error) == status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.BusyError("x"), "no_daemon"),
        (errors.RequestTimeoutError("x"), "timeout"),
        (errors.AnswerError("x"), "bad_answer"),
    ],
)
def test_errors_of_the_client_itself_as_json(error: errors.DragomanError, kind: str) -> None:
    assert json.loads(error_json(error)) == {"message": "x", "data": {"kind": kind}}


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(of("throttled", retry_after_ms=1500), as_json=True) == 1
    told = json.loads(capsys.readouterr().err)
    assert told["code"] == 1203
    assert told["data"] == {"kind": "throttled", "retryable": True, "retryAfterMs": 1500}


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (of("auth_required", next_step="Log in."), "Log in."),
        (of("claude_crashed", detail="It said: boom"), "It said: boom"),
        (of("internal_error", request_id="r7"), "Request r7. See: dragoman daemon logs"),
        (of("internal_error"), "See: dragoman daemon logs"),
        (of("throttled", retry_after_ms=4000), "tried again in 4 s"),
        (of("auth_failed"), "Correct the credential where the daemon gets it"),
        (of("connection_closed"), "the next command starts it again. See: dragoman daemon logs"),
    ],
)
def test_advice(error: errors.DragomanError, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    report(error)
    told = capsys.readouterr().err
    assert told.startswith(f"dragoman: {error}\n")
    assert advice in told


def test_advice_that_the_message_gives_already(capsys: pytest.CaptureFixture[str]) -> None:
    report(of("claude_crashed", "It ended. Log in.", detail="Log in."))
    assert capsys.readouterr().err == "dragoman: It ended. Log in.\n"


def test_a_key_that_only_this_process_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    report(of("auth_required"))
    assert "ANTHROPIC_API_KEY" not in capsys.readouterr().err
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    report(of("auth_required"))
    told = capsys.readouterr().err
    assert "dragoman daemon restart" in told
    assert "secret" not in told


def test_what_others_said_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    report(of("internal_error", "\x1b[2J"))
    assert "\x1b" not in capsys.readouterr().err
