import re
from collections.abc import Callable
from typing import Any

from dragoman.cli import app


def test_every_command_is_listed_and_has_help(run: Callable[..., Any]) -> None:
    done = run("--help")
    assert done.status == 0
    for name in app._COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", done.out, re.MULTILINE), name
        assert run(name, "--help").status == 0
    assert run("-h").out == done.out


def test_an_unknown_command(run: Callable[..., Any]) -> None:
    done = run("moon")
    assert (done.status, done.out) == (2, "")
    assert "No such command 'moon'" in done.err


def test_no_command_is_help(run: Callable[..., Any]) -> None:
    done = run()
    assert done.status == 2
    assert "Commands:" in done.out + done.err


def test_the_version(run: Callable[..., Any]) -> None:
    assert run("--version") == (0, "dragoman, version 0.1.0\n", "")
