"""`dragoman sessions`: the stored conversations."""

import sys
import time

import click
import msgspec
from dragoman_protocol.lifecycle import DEFAULT_SCOPES
from dragoman_protocol.session import Item, SessionInfo, SessionListResult

import dragoman
from dragoman.cli import exits
from dragoman.cli.terminal import coloured, is_terminal, printable

_FULL_ID = 36
_PAGE = 500


def _connect() -> dragoman.Client:
    return dragoman.connect("dragoman sessions", scopes=[*DEFAULT_SCOPES, "read-all-sessions"])


def full_id(claude: dragoman.Client, beginning: str) -> str:
    """Return the id of the session whose id begins so, among the newest 500; a whole id is taken as it is.

    Raises `click.UsageError` if there is none, or more than one.
    """
    if len(beginning) >= _FULL_ID:
        return beginning
    found = [each.session_id for each in claude.session_list(limit=500).data]
    found = [each for each in found if each.startswith(beginning)]
    if len(found) != 1:
        many = f"{len(found)} sessions begin" if found else "No session begins"
        raise click.UsageError(f"{many} with {beginning!r}. List them with: dragoman sessions")
    return found[0]


class _ListsByDefault(click.Group):
    """Without a command, `list` is meant, with its options: `dragoman sessions --json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command in front that was left out."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group("sessions", cls=_ListsByDefault, short_help="List, read and delete conversations.")
def sessions() -> None:
    """List, read and delete stored conversations; without a command, list them."""


@sessions.command("list")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--cwd", type=click.Path(), help="Only those of this folder.")
@click.option("--tag", help="Only those with this tag.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {data, nextCursor}.")
def listing(limit: int, cwd: str | None, tag: str | None, as_json: bool) -> int:
    """List sessions, newest first."""
    import os

    folder = None if cwd is None else os.path.realpath(cwd)
    with _connect() as claude:
        page = _newest(claude, limit, folder, tag)
    if as_json:
        click.echo(msgspec.json.encode(page))
    elif is_terminal(sys.stdout):
        _table(page.data)
    else:
        for each in page.data:
            click.echo("\t".join(_row(each, whole=True)))
    return exits.OK


def _newest(claude: dragoman.Client, limit: int, folder: str | None, tag: str | None) -> SessionListResult:
    """Return the newest *limit* sessions; the daemon gives them in pages."""
    page = claude.session_list(limit=min(limit, _PAGE), cwd=folder, tag=tag, timeout_s=30)
    found = page.data
    while page.next_cursor is not None and len(found) < limit:
        more = min(limit - len(found), _PAGE)
        page = claude.session_list(limit=more, cwd=folder, tag=tag, cursor=page.next_cursor, timeout_s=30)
        found += page.data
    return SessionListResult(data=found, next_cursor=page.next_cursor)


def _table(found: list[SessionInfo]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not found:
        click.echo('No sessions yet. Begin one with: dragoman ask "…"')
        return
    plain = not coloured(sys.stdout)
    table = Table(box=None, pad_edge=False, header_style="" if plain else "dim")
    for name in ("Session", "Changed", "State", "Turns", "Cost", "Folder", "Title"):
        # On a narrow terminal rich takes from those that may wrap first; no cell of them does in the end.
        table.add_column(name, no_wrap=name not in ("Folder", "Title"), overflow="ellipsis")
    for each in found:
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in _row(each, whole=False)))
    Console(no_color=plain, highlight=False).print(table)


def _row(each: SessionInfo, *, whole: bool) -> list[str]:
    cost = "" if each.cost_usd is None else f"${each.cost_usd:.4f}"
    folder = each.cwd or ""
    return [
        each.session_id if whole else each.session_id[:8],
        moment(each.updated_at),
        each.state,
        str(each.turn_count),
        cost,
        printable(folder if whole else short_folder(folder)).replace("\t", " "),
        " ".join(printable(each.title or "").split()),
    ]


def moment(at: float) -> str:
    """Return an instant in local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def short_folder(path: str) -> str:
    """Return *path* with the home folder as `~`."""
    import os

    home = os.path.expanduser("~")
    return "~" + path[len(home) :] if path == home or path.startswith(home + os.sep) else path


@sessions.command("show")
@click.argument("session")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: {session, turns, items}.")
def show(session: str, as_json: bool) -> int:
    """Show one conversation; SESSION is an id or its beginning."""
    with _connect() as claude:
        session_id = full_id(claude, session)
        found = claude.session_get(session_id=session_id, timeout_s=30)
        items = _items(claude, session_id)
    if as_json:
        click.echo(msgspec.json.encode({"session": found.session, "turns": found.turns, "items": items}))
        return exits.OK
    info = found.session
    click.echo(f"{info.session_id}  {info.state}  {moment(info.updated_at)}  {info.cwd or ''}")
    if info.agent is not None:
        click.echo(f"agent {printable(info.agent)}")
    if (origin := info.forked_from) is not None:
        click.echo(f"forked from {origin.session_id} after turn {origin.turn_id}")
    for item in items:
        text = _text(item)
        if text:
            click.echo(f"\n{text}")
    return exits.OK


def _items(claude: dragoman.Client, session_id: str) -> list[Item]:
    items: list[Item] = []
    cursor: str | None = None
    while True:
        page = claude.session_messages(session_id=session_id, limit=1000, cursor=cursor, timeout_s=30)
        items += page.data
        cursor = page.next_cursor
        if cursor is None:
            return items


def _text(item: Item) -> str:
    body = item.body
    match item.kind:
        case "userMessage":
            return f"> {_prompt_text(body.get('content'))}"
        case "assistantText":
            return printable(str(body.get("text", "")))
        case "toolUse":
            return f"● {printable(str(body.get('name')))} {printable(str(body.get('input')))[:200]}"
    return ""


def _prompt_text(content: object) -> str:
    if isinstance(content, str):
        return printable(content)
    parts = content if isinstance(content, list) else []
    return printable("\n".join(str(part.get("text", f"[{part.get('type')}]")) for part in parts))


@sessions.command("fork", short_help="Copy a conversation into a new one.")
@click.argument("session")
@click.option("--at", "at_turn_id", metavar="TURN", help="The last turn to take over (default: the newest).")
@click.option("--title", help="The new session's title.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fork(session: str, at_turn_id: str | None, title: str | None, as_json: bool) -> int:
    """Copy a conversation into a new one; SESSION is an id or its beginning.

    Nothing is asked of Claude, and the original stays. To ask at once: dragoman ask --fork.
    """
    with _connect() as claude:
        made = claude.session_fork(
            session_id=full_id(claude, session), at_turn_id=at_turn_id, title=title, timeout_s=60
        )
    click.echo(msgspec.json.encode(made) if as_json else made.session.session_id)
    return exits.OK


@sessions.command("delete", short_help="Delete one conversation for good.")
@click.argument("session")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def delete(session: str, yes: bool, as_json: bool) -> int:
    """Delete one conversation for good; SESSION is an id or its beginning."""
    with _connect() as claude:
        session_id = full_id(claude, session)
        if not yes:
            title = claude.session_get(session_id=session_id, timeout_s=30).session.title or ""
            click.confirm(f"Delete {session_id} ({printable(title)}) for good?", abort=True, err=True)
        result = claude.session_delete(session_id=session_id, timeout_s=60)
    click.echo(msgspec.json.encode(result) if as_json else f"Deleted {session_id}.")
    return exits.OK
