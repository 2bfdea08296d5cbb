import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dragoman.cli import log_view

LINE = {"time": "T1", "level": "info", "logger": "l", "message": "ready", "socket": "/s"}


@pytest.fixture
def log(home: Any) -> Path:
    file = Path(home.paths.log_file)
    file.parent.mkdir(parents=True)
    file.write_text(f"no json\n{json.dumps(LINE)}\n")
    return file


def test_for_people(run: Callable[..., Any], log: Path) -> None:
    assert run("daemon", "logs") == (0, "no json\nT1 info    ready socket=/s\n", "")
    assert run("daemon", "logs", "-n", "1").out == "T1 info    ready socket=/s\n"
    assert run("daemon", "logs", "-n", "0").out == ""


def test_as_json(run: Callable[..., Any], log: Path) -> None:
    assert json.loads(run("daemon", "logs", "--json").out) == {"file": str(log), "lines": ["no json", LINE]}


def test_an_exception_has_lines_of_its_own() -> None:
    line = json.dumps({**LINE, "exception": "Traceback\n  x\x1b"})
    assert log_view.readable(line) == "T1 info    ready socket=/s\nTraceback\n  x"


def test_no_log_yet(run: Callable[..., Any]) -> None:
    done = run("daemon", "logs")
    assert done.status == 1
    assert "There is no log yet" in done.err


def test_one_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(log_view.NoLogError, match="cannot be read"):
        log_view.tail(str(tmp_path), 1)


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("".join(f"{number:0100}\n" for number in range(5000)))
    assert [int(line) for line in log_view.tail(str(file), 3)] == [4997, 4998, 4999]
    assert len(log_view.tail(str(file), 10_000)) == 5000


def test_following(begin: Callable[..., Any], log: Path) -> None:
    process = begin("daemon", "logs", "-f", "-n", "1")
    assert process.stdout.readline() == "T1 info    ready socket=/s\n"
    with log.open("a") as file:
        file.write(json.dumps({**LINE, "message": "more"}) + "\n")
    assert process.stdout.readline() == "T1 info    more socket=/s\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_following_as_json(begin: Callable[..., Any], log: Path) -> None:
    process = begin("daemon", "logs", "-f", "-n", "1", "--json")
    assert json.loads(process.stdout.readline()) == LINE


def test_no_tail(run: Callable[..., Any], log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = run("daemon", "logs", "-f")
    assert done.status == 1
    assert "`tail` is needed" in done.err


def test_tail_that_ends(
    run: Callable[..., Any], log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = tmp_path / "bin" / "tail"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\necho last\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:/bin:/usr/bin")
    assert run("daemon", "logs", "-f") == (0, "last\n", "")
