"""`dragoman gateway`: tokens with which other local programs share the limits, and need no key."""

import shlex

import click
import msgspec
from dragoman_protocol.gateway import GatewayTokenResult

import dragoman
from dragoman.cli import exits

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def _connect() -> dragoman.Client:
    return dragoman.connect("dragoman gateway", scopes=["admin"])


@click.group("gateway", short_help="Let other local programs share the limits.")
def gateway() -> None:
    """Let other programs on this machine call Claude's API through the daemon.

    Their calls wait their turn with everybody else's and are counted; the API key stays in the daemon. Only
    with an API key: Claude Code's own login is for Claude Code alone.
    """


@gateway.command("token")
@click.option("--name", default="unnamed", show_default=True, help="A label for the program.")
@click.option("--tcp", is_flag=True, help="For programs that cannot use a unix socket: a port of 127.0.0.1.")
@_JSON
def token(name: str, tcp: bool, as_json: bool) -> int:
    """Print a new token, as commands for a shell. It is shown once, and good until the daemon ends.

    \b
    For Claude Code:          eval "$(dragoman gateway token --name mine)"; claude
    For any other program:    eval "$(dragoman gateway token --name mine --tcp)"; python program.py
    """
    with _connect() as claude:
        made = claude.gateway_token(name=name, tcp=tcp, timeout_s=10)
    click.echo(msgspec.json.encode(made) if as_json else _exports(made))
    return exits.OK


@gateway.command("tokens")
@_JSON
def tokens(as_json: bool) -> int:
    """List the valid tokens and what was asked with them."""
    with _connect() as claude:
        found = claude.gateway_tokens(timeout_s=10)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif not found.data:
        click.echo("No program has a token.")
    else:
        for each in found.data:
            usage = each.counts.usage
            took = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
            where = "port" if each.tcp else "socket"
            failed = f" ({each.counts.failed} failed)" if each.counts.failed else ""
            click.echo(f"{each.token_id}  {each.name}  {where}  {each.counts.calls} calls{failed}, {took}")
    return exits.OK


@gateway.command("revoke")
@click.argument("token_id")
@_JSON
def revoke(token_id: str, as_json: bool) -> int:
    """End a token, by its id as `tokens` lists it; exit status 1 if there is none."""
    with _connect() as claude:
        found = claude.gateway_revoke(token_id=token_id, timeout_s=10)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found.revoked:
        click.echo(f"Revoked {token_id}; what was under way with it was cut off.")
    else:
        click.echo(f"There is no token {token_id}. List them with: dragoman gateway tokens", err=True)
    return exits.OK if found.revoked else exits.FAILED


def _exports(made: GatewayTokenResult) -> str:
    """Return commands for a POSIX shell. A key that is set there too would be used instead of the token."""
    values = {"ANTHROPIC_BASE_URL": made.base_url, "ANTHROPIC_AUTH_TOKEN": made.token}
    gone = ["ANTHROPIC_API_KEY"]
    if made.unix_socket is None:
        gone.append("ANTHROPIC_UNIX_SOCKET")
    else:
        values["ANTHROPIC_UNIX_SOCKET"] = made.unix_socket
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, f"unset {' '.join(gone)}", f"# token {made.token_id}: {made.name!r}"])
