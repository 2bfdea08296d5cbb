import re
from collections.abc import Callable
from typing import Any

from dragoman.cli import exits


def test_the_exit_statuses_in_the_help_are_those_in_use(run: Callable[..., Any]) -> None:
    told = {int(number) for number in re.findall(r"^ +(\d+)  ", run("--help").out, re.MULTILINE)}
    assert told == {value for name, value in vars(exits).items() if name.isupper()}
