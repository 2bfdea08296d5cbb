"""`dragoman ask`: one turn at the terminal, or in a pipe."""

import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

import click
import msgspec
from dragoman_protocol.lifecycle import DEFAULT_SCOPES, Scope
from dragoman_protocol.query import ForkChoice, PermissionMode

import dragoman
from dragoman.cli import exits
from dragoman.cli.approve import Approver
from dragoman.cli.raise_budget import ask_for_more
from dragoman.cli.report import error_json, report
from dragoman.cli.seconds import Seconds
from dragoman.cli.sessions import full_id
from dragoman.cli.terminal import is_terminal
from dragoman.cli.turn_view import TurnView
from dragoman.errors import RequestCancelledError

_HINT_S = 3.0


@click.command(
    "ask",
    epilog="""\b
Examples:
  dragoman ask "What does this folder contain?"
  dragoman ask Fix the typo in README.md --permission-mode acceptEdits
  git diff | dragoman ask "Write a commit message for this"
  dragoman ask "And the tests?" --continue
  dragoman ask "Or in Rust?" --fork 4f1c
  dragoman ask "Which licence?" --json | jq -r .text
  dragoman ask --direct --schema city.json "The capital of France?" --json | jq .structured.value

What is piped in is context for the question; give </dev/null if there is none. A tool that is not allowed is
asked for when stdin is a terminal, and denied otherwise; likewise a budget that is spent may be raised there.
Ctrl-C cancels the turn; the session stays.
""",
)
@click.argument("words", nargs=-1)
@click.option("--cwd", type=click.Path(exists=True, file_okay=False), help="Working folder (default: this).")
@click.option("--model", "-m", help="opus, sonnet, haiku, … or a full name.")
@click.option("--agent", "-a", metavar="NAME", help="Who answers; see: dragoman agents.")
@click.option("--session", "-s", metavar="ID", help="Continue this session; the beginning of its id will do.")
@click.option("--fork", metavar="ID", help="Begin a new session with the turns of this one, which stays.")
@click.option("--continue", "-c", "latest", is_flag=True, help="Continue the newest session of the folder.")
@click.option("--allow", multiple=True, metavar="TOOL", help="Allow, e.g. 'Bash(git *)'. Repeatable.")
@click.option("--deny", multiple=True, metavar="TOOL", help="Never run. Repeatable.")
@click.option("--permission-mode", type=click.Choice(list(get_args(PermissionMode))), help="Default: ask.")
@click.option("--system", "append_system_prompt", metavar="TEXT", help="Add to the system prompt.")
@click.option("--max-turns", type=click.IntRange(min=1), help="Most rounds of tool use.")
@click.option("--direct", is_flag=True, help="Ask the Messages API itself: no tools, no folder.")
@click.option("--schema", metavar="FILE", help="A JSON Schema that the answer has to fit.")
@click.option("--timeout", type=Seconds(), metavar="SECONDS", help="Then stop.")
@click.option("--title", help="The session's title.")
@click.option("--tag", "tags", multiple=True, help="Tag the session. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--json-events", is_flag=True, help="Print events as they come, one JSON object a line.")
def ask(words: Sequence[str], latest: bool, session: str | None, fork: str | None, **chosen: Any) -> int:
    """Ask Claude, and see the answer as it is written."""
    _check_which(latest, session, fork)
    prompt = _prompt(words)
    as_json = chosen.pop("as_json")
    as_events = chosen.pop("json_events")
    options = _options(chosen)
    person: dict[str, Any] = {}
    if is_terminal(sys.stdin):
        person = {"on_permission": Approver(), "on_budget": ask_for_more}
    try:
        with dragoman.connect("dragoman ask", scopes=_scopes(chosen), **person) as claude:
            if session is not None:
                options["session_id"] = full_id(claude, session)
            elif fork is not None:
                options["fork"] = ForkChoice(session_id=full_id(claude, fork))
            elif latest:
                options["session_id"] = _newest(claude, options.get("cwd"))
            streaming = claude.stream(prompt, **options)
            show = _follow_events if as_events else _follow_json if as_json else _follow
            return show(streaming)
    except KeyboardInterrupt:  # before anything was followed; leaving the block has cancelled what was asked
        early = RequestCancelledError("request_cancelled", "Interrupted before the answer began.")
        return report(early, as_json=as_json or as_events)
    except dragoman.DragomanError as failed:
        return report(failed, as_json=as_json or as_events)


def _check_which(latest: bool, session: str | None, fork: str | None) -> None:
    """Raise unless at most one session is named, and named whole."""
    if latest + (session is not None) + (fork is not None) > 1:
        raise click.UsageError("--continue, --session and --fork exclude each other.")
    for name, given in (("--session", session), ("--fork", fork)):
        if given == "":  # an empty variable of a script's must not begin, and bill, a new session
            raise click.UsageError(f"{name} needs an id, got nothing. List them with: dragoman sessions")


def _prompt(words: Sequence[str]) -> str:
    question = " ".join(words).strip().encode(errors="surrogateescape").decode(errors="replace")
    if is_terminal(sys.stdin):
        if not question:
            raise click.UsageError('Nothing was asked. Try: dragoman ask "What is in this folder?"')
        return question
    context = _piped()
    if question and context:
        return f"{question}\n\n<stdin>\n{context}\n</stdin>"
    if not (question or context):
        raise click.UsageError("Nothing was asked, and nothing was piped in.")
    return question or context


def _piped() -> str:
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN | select.POLLHUP)
    if not poll.poll(_HINT_S * 1000):
        click.echo("dragoman: waiting for context on stdin; give </dev/null if there is none.", err=True)
    return sys.stdin.buffer.read().decode(errors="replace").strip()


def _options(chosen: dict[str, Any]) -> dict[str, Any]:
    schema = chosen.pop("schema")
    given: dict[str, Any] = {}
    if chosen.pop("direct"):
        given = {"upstream": "messagesApi", "system_prompt": chosen.pop("append_system_prompt")}
    if schema is not None:
        given["output_schema"] = _schema(schema)
    return _named(given | chosen)


def _schema(file: str) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            return msgspec.json.decode(opened.read(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as wrong:
        raise click.BadParameter(f"{file}: {wrong}", param_hint="--schema") from None


def _named(chosen: dict[str, Any]) -> dict[str, Any]:
    names = {"allow": "allowed_tools", "deny": "disallowed_tools", "timeout": "timeout_s"}
    given = {names.get(name, name): value for name, value in chosen.items() if value not in (None, ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def _scopes(chosen: dict[str, Any]) -> list[Scope]:
    bypass: list[Scope] = ["admin"] if chosen["permission_mode"] == "bypassPermissions" else []
    return [*DEFAULT_SCOPES, "read-all-sessions", *bypass]


def _newest(claude: dragoman.Client, cwd: str | None) -> str:
    import os

    folder = os.path.realpath(cwd or os.getcwd())
    found = claude.session_list(limit=1, cwd=folder).data
    if not found:
        raise click.UsageError(f"There is no session of {folder} to continue.")
    return found[0].session_id


def _interrupted(streaming: dragoman.Stream, tell: Callable[[dragoman.DragomanError], object]) -> int:
    """The turn was cancelled and has ended, or it could not be told in time."""
    try:
        _ = streaming.result
    except dragoman.DragomanError as error:
        tell(error)
    return exits.INTERRUPTED


def _follow(streaming: dragoman.Stream) -> int:
    view = TurnView()
    try:
        for event in streaming:
            view.show(event)
        view.finish(streaming.result)
    except KeyboardInterrupt:
        streaming.cancel()
        view.end_line()
        known = streaming.last
        again = f' Go on with: dragoman ask --session {known.session_id} "…"' if known else ""
        click.echo(f"Cancelled.{again}", err=True)
        return exits.INTERRUPTED
    except dragoman.DragomanError:
        view.end_line()
        raise
    return exits.OK


def _follow_json(streaming: dragoman.Stream) -> int:
    try:
        result = streaming.result
    except KeyboardInterrupt:
        return _interrupted(streaming, lambda error: report(error, as_json=True))
    click.echo(msgspec.json.encode(result))
    return exits.OK


def _follow_events(streaming: dragoman.Stream) -> int:
    def tell(error: dragoman.DragomanError) -> None:
        click.echo(b'{"error":' + error_json(error) + b"}")

    try:
        for _ in streaming:
            click.echo(msgspec.json.encode(streaming.last))
        click.echo(msgspec.json.encode({"result": streaming.result}))
    except KeyboardInterrupt:
        return _interrupted(streaming, tell)
    except dragoman.DragomanError as failed:
        tell(failed)
        raise
    return exits.OK
