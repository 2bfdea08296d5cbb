import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dragoman.cli import locate


def test_the_place_of_the_daemon_that_runs(run: Callable[..., Any], scripted: Any, home: Any) -> None:
    scripted.listen(home.paths.socket)
    found = json.loads(run("locate").out)
    assert found == {"socket": home.paths.socket, "pid": os.getpid(), "version": None}
    os.makedirs(home.paths.state_dir, exist_ok=True)
    record = Path(home.paths.lock_file)
    record.write_text(json.dumps({"pid": os.getpid(), "version": "7"}))
    try:
        assert json.loads(run("locate", "--no-start").out)["version"] == "7"
    finally:
        record.unlink()  # whoever it names is ended with the place


def test_no_daemon(run: Callable[..., Any]) -> None:
    done = run("locate", "--no-start")
    assert (done.status, done.out) == (69, "")
    assert "No daemon" in done.err


def test_usage(run: Callable[..., Any]) -> None:
    assert run("locate", "--help").out.startswith("Usage: dragoman locate")
    done = run("locate", "--moon")
    assert (done.status, done.out) == (2, "")
    assert "--moon" in done.err


def test_interrupted(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*, start: bool) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(locate, "find", interrupt)
    assert run("locate").status == 130
