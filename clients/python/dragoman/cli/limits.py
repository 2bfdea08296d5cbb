"""`dragoman limits`: what is shared, how much of it is in use, who waits and why."""

import sys
import time
from collections.abc import Iterable

import click
import msgspec
from dragoman_protocol.limits import LimitsGetResult, SettingValue

import dragoman
from dragoman.cli import exits
from dragoman.cli.gauges import count
from dragoman.cli.limits_view import explanation, picture
from dragoman.cli.seconds import Seconds
from dragoman.cli.terminal import is_terminal

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_ANEW = "\x1b[H\x1b[J"


def _connect(*, change: bool = False) -> dragoman.Client:
    return dragoman.connect("dragoman limits", scopes=["query", "admin"] if change else None)


@click.group("limits", invoke_without_command=True, short_help="What is shared, in use, and left.")
@click.option("--watch", is_flag=False, flag_value=1.0, type=Seconds(), metavar="[SECONDS]",
              help="Show it again every second, or every SECONDS, until Ctrl-C.")  # fmt: skip
@_JSON
@click.pass_context
def limits(context: click.Context, watch: float | None, as_json: bool) -> int:
    """Show what runs and waits, rates, quota windows, breakers and budgets; with --json one object a look.

    All of it is shared by every client of the daemon.
    """
    if context.invoked_subcommand is not None:
        return exits.OK
    with _connect() as claude:
        while True:
            state = claude.limits_state(timeout_s=10)
            if as_json:
                click.echo(msgspec.json.encode(state))
            else:
                _show(picture(state, time.time()), anew=watch is not None)
            if watch is None:
                return exits.OK
            time.sleep(watch)  # a person watches; between two looks there is nothing to wait for


def _show(lines: Iterable[str], *, anew: bool) -> None:
    text = "\n".join(lines)
    if anew and is_terminal(sys.stdout):
        click.echo(_ANEW + text)
    else:
        click.echo(text)


@limits.command("explain")
@click.argument("session", required=False)
@_JSON
def explain(session: str | None, as_json: bool) -> int:
    """Say of everything that waits (or only of SESSION, by its id) why, and when it is expected to run."""
    with _connect(change=True) as claude:
        found = claude.limits_explain(session_id=session, timeout_s=10)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        _show(explanation(found, time.time()), anew=False)
    return exits.OK


@limits.command("get")
@_JSON
def get(as_json: bool) -> int:
    """List the limits that hold, and mark those that were set at run time."""
    with _connect() as claude:
        found = claude.limits_get(timeout_s=10)
    return _settings(found, as_json)


@limits.command("set")
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE…")
@_JSON
def set_(changes: tuple[str, ...], as_json: bool) -> int:
    """Change limits at once, and for good.

    NAME is as in the settings file, e.g. limits.queriesPerMinute=30; of a rate or a cap 0 means that there is
    none. An empty VALUE goes back to what the file says.
    """
    with _connect(change=True) as claude:
        found = claude.limits_set(settings=dict(map(_change, changes)), timeout_s=10)
    return _settings(found, as_json)


@limits.command("reset")
@_JSON
def reset(as_json: bool) -> int:
    """Close every breaker, so that the next call tries at once."""
    with _connect(change=True) as claude:
        found = claude.breaker_reset(timeout_s=10)
    click.echo(msgspec.json.encode(found) if as_json else f"Closed {count(found.reset, 'breaker')}.")
    return exits.OK


def _settings(found: LimitsGetResult, as_json: bool) -> int:
    if as_json:
        click.echo(msgspec.json.encode(found))
        return exits.OK
    for name, value in found.settings.items():
        mark = "  (set at run time)" if name in found.changed else ""
        shown = msgspec.json.encode(value).decode() if isinstance(value, bool) else value
        click.echo(f"{name:<36} {shown}{mark}")
    for name, share in found.clients.items():
        weight = 1 if share.weight is None else share.weight
        click.echo(f"client {name!r}: weight {weight:g}, {share.priority or 'as it asks'}")
    return exits.OK


def _change(text: str) -> tuple[str, SettingValue]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"{text!r}: expected NAME=VALUE, e.g. limits.queriesPerMinute=30")
    if not value:
        return name, None
    try:
        return name, float(value) if "." in value else int(value)
    except ValueError:
        return name, value
