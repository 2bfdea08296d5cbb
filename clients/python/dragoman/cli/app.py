"""The command line for people: one group of commands, each in a module that is loaded when it is run."""

import importlib
from collections.abc import Sequence

import click

from dragoman import DragomanError, __version__
from dragoman.cli import exits
from dragoman.cli.report import report

_COMMANDS = {
    "agents": "agents",
    "ask": "ask",
    "auth": "auth",
    "budget": "budget",
    "completion": "completion",
    "daemon": "daemon",
    "demo": "showing",
    "gateway": "gateway",
    "limits": "limits",
    "locate": "bare",
    "models": "agents",
    "rpc": "bare",
    "sessions": "sessions",
    "sim": "showing",
    "stats": "stats",
    "stdio": "bare",
}
"""Which module of this package has which command."""

_EPILOG = """\b
Examples:
  dragoman ask "What does this folder contain?"
  git diff | dragoman ask "Write a commit message for this" --allow Read
  dragoman ask "And now in German" --continue
  dragoman sessions
  dragoman limits --watch
  dragoman daemon status

\b
Exit status:
    0  done
    1  the daemon answered with an error, or the turn failed
    2  wrong usage; nothing was sent
    3  `daemon status`: there is no daemon
   69  no daemon could be found, started, reached or trusted
   74  the connection ended before the answer came, or the output cannot be written
  124  the time was up; what ran was stopped
  130  interrupted; what ran was cancelled

Set NO_COLOR for output without colours. Output to a file or pipe is always plain.
"""


class _Late(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names for `--help` and completion."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"dragoman.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group("dragoman", cls=_Late, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dragoman")
def app() -> None:
    """Talk to the one Claude that all your editors, scripts and terminals share.

    Commands find the daemon by themselves and start it if there is none.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit status; every failure is told on stderr."""
    try:
        status = app.main(args=list(arguments), prog_name="dragoman", standalone_mode=False)
    except click.ClickException as wrong:
        wrong.show()
        return wrong.exit_code
    except click.Abort:
        click.echo("Interrupted.", err=True)
        return exits.INTERRUPTED
    except DragomanError as failed:
        return report(failed)
    return status if isinstance(status, int) else exits.OK
