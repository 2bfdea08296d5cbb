"""`dragoman agents` and `dragoman models`: who can be asked."""

import click
import msgspec
from dragoman_protocol.agent import AgentInfo, AgentListResult

import dragoman
from dragoman.cli import exits
from dragoman.cli.terminal import printable

_WAIT_S = 30.0


@click.group("agents", invoke_without_command=True, short_help="List and show agents.")
@click.pass_context
def agents(ctx: click.Context) -> int:
    """List and show the agents that `dragoman ask --agent` knows; without a command, list them.

    Your own are Markdown files with front matter, as Claude Code's, in the folder that the list names.
    """
    if ctx.invoked_subcommand is None:
        status: int = ctx.invoke(listing)
        return status
    return exits.OK


@agents.command("list")
@click.option("--group", help="Only those of this group, e.g. security.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {data, problems, folder}.")
def listing(group: str | None = None, as_json: bool = False) -> int:
    """List agents by group; files that cannot be used come last, each with the reason."""
    with dragoman.connect("dragoman agents") as claude:
        found = claude.agent_list(group=group, timeout_s=_WAIT_S)
    click.echo(msgspec.json.encode(found) if as_json else _table(found))
    return exits.OK


@agents.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {agent, definition}.")
def show(name: str, as_json: bool) -> int:
    """Show one agent as the file that it could be."""
    with dragoman.connect("dragoman agents") as claude:
        found = claude.agent_get(name=name, timeout_s=_WAIT_S)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return exits.OK
    fields = msgspec.to_builtins(found.definition)
    prompt = fields.pop("prompt")
    text = "\n".join(["---", f"name: {found.agent.name}", *map(_field, fields.items()), "---", "", prompt])
    click.echo("\n".join(printable(line) for line in text.split("\n")))
    return exits.OK


@click.command("models", short_help="List the models that have aliases.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {data}.")
def models(as_json: bool) -> int:
    """List the aliases that `--model` takes beside full names."""
    with dragoman.connect("dragoman models") as claude:
        found = claude.model_list(timeout_s=_WAIT_S)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return exits.OK
    for model in found.data:
        click.echo(f"{model.alias:<8} {model.model:<20} {model.description}")
    return exits.OK


def _table(found: AgentListResult) -> str:
    lines: list[str] = []
    group: str | None = ""
    for agent in sorted(found.data, key=lambda each: (each.source != "preset", each.group or "", each.name)):
        if agent.group != group:
            group = agent.group
            lines += ["", f"{printable(group or 'your own')}"]
        lines.append(f"  {_line(agent)}")
    if not any(agent.source == "user" for agent in found.data):
        lines += ["", f"Your own would be in {printable(found.folder or '')}"]
    if found.problems:
        lines += ["", "not usable"]
        lines += [f"  {printable(each.path)}: {printable(each.reason)}" for each in found.problems]
    return "\n".join(lines[1:] if lines and not lines[0] else lines)


def _field(field: tuple[str, object]) -> str:
    key, value = field
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return f"{key}: {text}" if "\n" not in text else "\n  ".join([f"{key}: |", *text.split("\n")])


def _line(agent: AgentInfo) -> str:
    first = agent.description.splitlines()[0] if agent.description else ""
    return f"{agent.name:<22} {printable(first)}"
