import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dragoman.cli import main
from dragoman_protocol.session import SessionInfo, SessionListResult

SESSION = SessionInfo(session_id="s", state="idle", created_at=1, updated_at=1)


def test_the_bare_commands(run: Callable[..., Any], scripted: Any, home: Any) -> None:
    scripted.listen(home.paths.socket)
    assert run("rpc", "limits/state").out.startswith('{"running": 0')
    assert '"pid"' in run("locate").out
    assert run("stdio", "--help").out.startswith("Usage: dragoman stdio")


def test_without_click_there_is_advice(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, scripted: Any, home: Any
) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    done = run("ask", "Hi")
    assert done.status == 69
    assert "pip install 'dragoman[cli]'" in done.err
    scripted.listen(home.paths.socket)
    assert run("rpc", "limits/state").status == 0


def test_the_processs_own_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dragoman", "rpc", "--help"])
    assert main.main() == 0
    assert "Usage: dragoman rpc" in capsys.readouterr().out


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "dragoman.cli.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "version 0.1.0" in done.stdout


FULL = "/dev/full"


@pytest.mark.skipif(not Path(FULL).exists(), reason=f"there is no {FULL} here")
@pytest.mark.parametrize("command", [("locate",), ("rpc", "limits/state"), ("sessions",), ("--help",)])
def test_an_output_that_cannot_be_written(scripted: Any, home: Any, command: tuple[str, ...]) -> None:
    scripted.listen(home.paths.socket)
    scripted.answers("session/list", SessionListResult(data=[SESSION]))
    with open(FULL, "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dragoman.cli.main", *command],
            env=home.env, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (74, "dragoman: [Errno 28] No space left on device.\n")


def test_a_reader_that_left_is_not_told_of(scripted: Any, home: Any) -> None:
    scripted.listen(home.paths.socket)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dragoman.cli.main", "locate"],
            env=home.env, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (74, "")


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["locate", "rpc limits/state", "sessions", "ask Hi"])
def test_standard_streams_that_are_closed(
    scripted: Any, home: Any, play: Any, command: str, redirection: str
) -> None:
    scripted.listen(home.paths.socket)
    scripted.answers("session/list", SessionListResult(data=[SESSION]))
    scripted.answers("query/run", play.result("Hello"))
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m dragoman.cli.main {command} {redirection}', sys.executable],
        env=home.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in redirection)
