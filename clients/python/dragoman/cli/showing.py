"""Commands that show Dragoman without an account: the demo, and the simulator it uses."""

from collections.abc import Sequence

import click

from dragoman.cli import exits

_INSTALL = "This command needs the daemon's packages. Run: pip install 'dragoman[daemon]'"
_AS_THEY_ARE = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("sim", context_settings=_AS_THEY_ARE, short_help="Run the simulator of the Messages API.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def sim(arguments: Sequence[str]) -> int:
    """Run the simulator of the Messages API on this machine alone; see `dragoman sim --help`."""
    try:
        from dragoman_sim.__main__ import main
    except ImportError as missing:
        return _missing(missing)
    try:
        return main(list(arguments))
    except SystemExit as left:  # its own --help, or wrong usage
        return left.code if isinstance(left.code, int) else exits.OK


@click.command("demo", short_help="Show the main job offline, without an account.")
@click.option("--keep", is_flag=True, help="Keep the temporary folder and say where it is.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object.")
def demo(keep: bool, as_json: bool) -> int:
    """Show the main job offline, in a temporary home: no account, no network, under a minute."""
    import importlib

    try:
        showing = importlib.import_module("dragoman.cli.demo")
    except ImportError as missing:
        return _missing(missing)
    status: int = showing.run(keep=keep, as_json=as_json)
    return status


def _missing(missing: ImportError) -> int:
    click.echo(f"dragoman: {_INSTALL} ({missing})", err=True)
    return exits.UNAVAILABLE
