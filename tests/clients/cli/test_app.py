import re
from collections.abc import Callable
from typing import Any

import pytest
from dragoman.cli import app, exits


def test_every_command_is_listed_and_has_help(run: Callable[..., Any]) -> None:
    done = run("--help")
    assert done.status == 0
    for name in app._COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]", done.out, re.MULTILINE), name
        assert run(name, "--help").status == 0
    assert run("-h").out == done.out


def test_the_exit_statuses_in_the_help_are_those_in_use(run: Callable[..., Any]) -> None:
    told = {int(number) for number in re.findall(r"^ +(\d+)  ", run("--help").out, re.MULTILINE)}
    assert told == {value for name, value in vars(exits).items() if name.isupper()}


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


def test_the_bare_commands_work_here_as_well(
    scripted: Any, home: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.listen(home.paths.socket)
    assert app.run(["rpc", "limits/state", "--no-start"]) == 0
    assert capsys.readouterr().out.startswith('{"running": 0')
    assert app.run(["locate", "--no-start"]) == 0
    assert app.run(["stdio", "--help"]) == 0
