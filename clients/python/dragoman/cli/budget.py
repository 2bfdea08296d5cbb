"""`dragoman budget`: what may be spent, and what is."""

import time

import click
import msgspec
from dragoman_protocol.budget import BudgetScope

import dragoman
from dragoman.cli import exits
from dragoman.cli.limits_view import budget_line

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_SCOPES = click.Choice(["all", "hour", "day", "client", "project", "session", "tree"])


@click.group("budget", invoke_without_command=True, short_help="What may be spent, and what is.")
@_JSON
@click.pass_context
def budget(context: click.Context, as_json: bool) -> int:
    """Show the caps on spending and what is left of them. Costs are estimates, in US dollars."""
    if context.invoked_subcommand is not None:
        return exits.OK
    with dragoman.connect("dragoman budget") as claude:
        found = claude.budget_get(timeout_s=10)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo("\n".join(budget_line(each, time.time())[2:] for each in found.budgets))
    return exits.OK


@budget.command("set")
@click.argument("scope", type=_SCOPES)
@click.argument("arguments", nargs=-1, required=True, metavar="[KEY] DOLLARS")
@_JSON
def set_(scope: BudgetScope, arguments: tuple[str, ...], as_json: bool) -> int:
    """Set a cap at once, and for good; DOLLARS `none` ends it.

    \b
    dragoman budget set day 20                  all clients together, each day
    dragoman budget set project ~/work/shop 50  one folder (`.` is here)
    dragoman budget set client '*' 5            each client by itself
    """
    *keys, amount = arguments
    if len(keys) != (scope in ("client", "project", "session", "tree")):
        raise click.UsageError(f"budget set {scope}: expected {_expected(scope)}, got {' '.join(arguments)}")
    key = _key(scope, keys[0]) if keys else None
    with dragoman.connect("dragoman budget", scopes=["query", "admin"]) as claude:
        found = claude.budget_set(scope=scope, key=key, limit_usd=_dollars(amount), timeout_s=10)
    click.echo(msgspec.json.encode(found) if as_json else budget_line(found, time.time())[2:])
    return exits.OK


def _expected(scope: str) -> str:
    return "DOLLARS alone" if scope in ("all", "hour", "day") else f"the {scope} and DOLLARS"


def _key(scope: str, key: str) -> str:
    import os

    return os.path.realpath(os.path.expanduser(key)) if scope == "project" and key != "*" else key


def _dollars(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text.removeprefix("$"))
    except ValueError:
        raise click.UsageError(f"{text!r}: expected an amount in dollars, e.g. 12.50, or none") from None
