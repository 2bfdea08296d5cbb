import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program(run: Callable[..., Any], shell: str) -> None:
    done = run("completion", shell)
    assert done.status == 0
    assert "_DRAGOMAN_COMPLETE" in done.out


def test_an_unknown_shell(run: Callable[..., Any]) -> None:
    assert run("completion", "moon").status == 2


def test_commands_are_completed(home: Any) -> None:
    env = {**home.env, "_DRAGOMAN_COMPLETE": "bash_complete", "COMP_WORDS": "dragoman se", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "dragoman.cli.main"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "plain,sessions\n"
    assert "DRAGOMAN" not in "".join(os.environ)
