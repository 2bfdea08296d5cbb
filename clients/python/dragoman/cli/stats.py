"""`dragoman stats`: what was asked and what it took."""

import sys
import time

import click
import msgspec
from dragoman_protocol.stats import Counts, NamedCounts, StatsGetResult

import dragoman
from dragoman.cli import exits
from dragoman.cli.gauges import money, span
from dragoman.cli.sessions import moment, short_folder
from dragoman.cli.terminal import coloured, is_terminal, printable

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_HEADER = ("", "Turns", "Failed", "Stopped", "Cost", "Average", "Tokens in", "Tokens out", "Time")


@click.group("stats", invoke_without_command=True, short_help="What was asked and what it took.")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Only the last DAYS days.")
@_JSON
@click.pass_context
def stats(context: click.Context, days: float | None, as_json: bool) -> int:
    """Show turns, costs (estimated, in US dollars) and times, by client, model and folder."""
    if context.invoked_subcommand is not None:
        return exits.OK
    since = None if days is None else time.time() - days * 86_400
    with dragoman.connect("dragoman stats", scopes=["query", "read-all-sessions"]) as claude:
        found = claude.stats_get(since=since, timeout_s=30)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif is_terminal(sys.stdout):
        _table(found)
    else:
        for row in _rows(found):
            click.echo("\t".join(row))
    return exits.OK


@stats.command("reset")
@_JSON
def reset(as_json: bool) -> int:
    """Begin to count anew. Budgets are not touched."""
    with dragoman.connect("dragoman stats", scopes=["query", "admin"]) as claude:
        found = claude.stats_reset(timeout_s=10)
    click.echo(msgspec.json.encode(found) if as_json else f"Counting since {moment(found.since)}.")
    return exits.OK


def _table(found: StatsGetResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    plain = not coloured(sys.stdout)
    table = Table(box=None, pad_edge=False, header_style="" if plain else "dim")
    for name in _HEADER:
        table.add_column(name, justify="right" if name else "left", no_wrap=bool(name), overflow="ellipsis")
    for row in _rows(found):
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    if found.since is not None:
        click.echo(f"Since {moment(found.since)}")
    Console(no_color=plain, highlight=False).print(table)


def _rows(found: StatsGetResult) -> list[list[str]]:
    rows = [_row("all", found.total)]
    for kind, named in (("client", found.clients), ("model", found.models), ("folder", found.projects)):
        rows += [_row(f"{kind} {_name(kind, each)}", each) for each in named]
    return rows


def _name(kind: str, each: NamedCounts) -> str:
    return printable(short_folder(each.name) if kind == "folder" else each.name).replace("\t", " ")


def _row(name: str, counts: Counts) -> list[str]:
    usage = counts.usage
    unknown = f" + {counts.cost_unknown} unknown" if counts.cost_unknown else ""
    return [
        name,
        str(counts.turns),
        str(counts.failed),
        str(counts.cancelled),
        money(counts.cost_usd) + unknown,
        "" if counts.average_cost_usd is None else money(counts.average_cost_usd),
        str(usage.input_tokens + usage.cache_read_tokens + usage.cache_creation_tokens),
        str(usage.output_tokens),
        span(counts.duration_ms / 1000),
    ]
