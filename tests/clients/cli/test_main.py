import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from dragoman.cli import main


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
