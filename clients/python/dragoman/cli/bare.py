"""The bare commands in the list of commands; `dragoman.cli.main` runs them before click is loaded."""

from collections.abc import Sequence

import click

from dragoman.cli import locate as locating
from dragoman.cli import rpc as calling
from dragoman.cli import stdio as forwarding

_AS_THEY_ARE = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("rpc", context_settings=_AS_THEY_ARE)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def rpc(arguments: Sequence[str]) -> int:
    """Send one request and print its result as JSON (for scripts)."""
    return calling.main(arguments)


@click.command("stdio", context_settings=_AS_THEY_ARE)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def stdio(arguments: Sequence[str]) -> int:
    """Connect stdin and stdout to the daemon (for editors)."""
    return forwarding.main(arguments)


@click.command("locate", context_settings=_AS_THEY_ARE, short_help="Print where the daemon is, as JSON.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def locate(arguments: Sequence[str]) -> int:
    """Print where the daemon is, as JSON, starting it if there is none."""
    return locating.main(arguments)
