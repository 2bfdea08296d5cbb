"""Spans on the command line: seconds, as people write them."""

import math
from typing import Any

import click

from dragoman.options import LONGEST_S


class Seconds(click.FloatRange):
    """A number of seconds, more than 0 or *or_none* 0, and not beyond what a clock can tell."""

    def __init__(self, *, or_none: bool = False) -> None:
        """Take what is more than 0; with *or_none* 0 as well."""
        super().__init__(min=0, min_open=not or_none, max=LONGEST_S)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds; `nan` passes every comparison and is no time."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds
