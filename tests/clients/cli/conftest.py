"""Running the command line: in this process, in one of its own, or at a terminal."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from dragoman.cli.main import main

PATIENCE_S = 30
COMMAND = [sys.executable, "-P", "-m", "dragoman.cli.main"]

AT_THE_TERMINAL = (
    "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Opening the terminal makes it the new session's controlling one: only then does Ctrl-C interrupt."""


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def home(place: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the place's environment this process's own."""
    for name in list(os.environ):
        if name.startswith(("XDG_", "DRAGOMAN_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, place.env[name])
    return place


@pytest.fixture
def run(
    home: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Done]:
    """Run a command in this process; *stdin* is what is piped in."""

    def run(*arguments: str, stdin: str = "") -> Done:
        file = tmp_path / "stdin"
        file.write_text(stdin)
        capsys.readouterr()
        with file.open() as piped:
            monkeypatch.setattr(sys, "stdin", piped)
            status = main(arguments)
        told = capsys.readouterr()
        return Done(status, told.out, told.err)

    return run


@pytest.fixture
def begin(home: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begin a command in a process of its own, with pipes."""
    begun: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=home.env,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


class Terminal:
    """A command at a pseudo-terminal: what it shows, and typing."""

    def __init__(self, arguments: tuple[str, ...], env: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_THE_TERMINAL, *COMMAND, *arguments],
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def read_until(self, text: str) -> str:
        """Read until *text* is shown, and return all that was shown since the last call."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} was not shown, but {self.shown!r}")
        shown, self.shown = self.shown, ""
        return shown

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> tuple[int, str]:
        """Wait for the command's end; returns its status and what else was shown."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            continue
        return self.process.wait(PATIENCE_S), self.shown

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self.master)


@pytest.fixture
def terminal(home: Any) -> Iterator[Callable[..., Terminal]]:
    """Begin a command at a terminal; *env* is added to its environment."""
    begun: list[Terminal] = []

    def begin(*arguments: str, **env: str) -> Terminal:
        begun.append(Terminal(arguments, {**home.env, "TERM": "xterm-256color", **env}))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()
