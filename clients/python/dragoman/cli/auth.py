"""`dragoman auth`: who pays."""

from typing import TYPE_CHECKING

import click
import msgspec

from dragoman.cli import exits

if TYPE_CHECKING:
    from dragoman_protocol.auth import CloudAuth

_STATES = {
    "found": "credential from {source}",
    "notAsked": "not asked for a credential yet",
    "failed": "no credential",
    "notInstalled": "its library is not installed",
}


@click.group("auth")
def auth() -> None:
    """See which credential for Claude the daemon holds."""


@auth.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> int:
    """Say whether Claude can be asked; exit status 1 if not."""
    import dragoman

    with dragoman.connect("dragoman auth") as claude:
        found = claude.auth_status(timeout_s=10)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found.authenticated:
        expiry = found.time_until_expiry_hours
        until = "" if expiry is None else f", expires in {expiry:g} h"
        click.echo(f"Signed in ({found.provider}, credential from {found.source}{until}).")
    else:
        click.echo("Not signed in.")
        if found.next_step:
            click.echo(found.next_step)
    if found.messages_api is not None and not as_json:
        click.echo(_of_cloud(found.messages_api))
    return exits.OK if found.authenticated else exits.FAILED


def _of_cloud(cloud: "CloudAuth") -> str:
    """Return a line on the cloud that answers direct queries."""
    state = _STATES.get(cloud.state, cloud.state).format(source=cloud.source)
    place = "".join(f", {part}" for part in (cloud.region, cloud.project) if part)
    return f"Direct queries: {cloud.provider}{place} ({state})."
