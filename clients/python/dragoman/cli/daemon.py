"""`dragoman daemon`: start, stop, restart, look at the daemon, and read its log."""

import json
from typing import Any

import click
import msgspec

from dragoman import launch, locate
from dragoman.cli import exits, log_view, stopping
from dragoman.cli.locate import place
from dragoman.cli.seconds import Seconds
from dragoman.errors import BusyError
from dragoman.locate import NotRunningError, Paths

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_GRACE = click.option(
    "--grace", type=Seconds(or_none=True), metavar="SECONDS", help="How long running turns may finish."
)
_TIMEOUT = click.option(
    "--timeout", type=Seconds(or_none=True), default=30.0, show_default=True, metavar="SECONDS",
    help="Longest wait for its end.",
)  # fmt: skip
_KILL = click.option("--kill", is_flag=True, help="End it by force if it does not answer or end.")


@click.group("daemon")
def daemon() -> None:
    """Look after the shared daemon. Other commands start it by themselves; it ends when long unused."""


@daemon.command("start")
@_JSON
def start(as_json: bool) -> int:
    """Start the daemon, if there is none."""
    return _tell(_start(locate.find_paths()), as_json)


@daemon.command("stop")
@_GRACE
@_TIMEOUT
@_KILL
@_JSON
def stop(grace: float | None, timeout: float, kill: bool, as_json: bool) -> int:
    """Stop the daemon and wait until it is gone. Turns that still run after the grace are cancelled."""
    return _tell(_stop(locate.find_paths(), grace, timeout, kill), as_json)


@daemon.command("restart", short_help="Stop the daemon, and start it with this environment.")
@_GRACE
@_TIMEOUT
@_KILL
@_JSON
def restart(grace: float | None, timeout: float, kill: bool, as_json: bool) -> int:
    """Stop the daemon if there is one, and start it with this environment."""
    paths = locate.find_paths()
    stopped = _stop(paths, grace, timeout, kill)
    started = _start(paths)
    started["text"] = f"{stopped['text']}\n{started['text']}"
    return _tell({**started, "stopped": stopped["stopped"]}, as_json)


@daemon.command("status")
@_JSON
def status(as_json: bool) -> int:
    """Show the daemon as it is; exit status 3 if there is none.

    With --json: `state` is stopped, running, draining or frozen; the rest is what `daemon/status` answers.
    """
    paths = locate.find_paths()
    running = stopping.find_running(paths)
    if running is None:
        _tell({"state": "stopped", "socket": paths.socket, "text": "There is no daemon."}, as_json)
        return exits.NOT_RUNNING
    if running.leaving:
        text = f"The daemon (process {running.pid}) is stopping; it finishes what runs."
        return _tell({"state": "draining", "pid": running.pid, "text": text}, as_json)
    try:
        if running.socket is None:
            raise BusyError(f"The daemon (process {running.pid}) runs, but its socket was removed. "
                            "Whoever asks for it next calls it back: dragoman daemon start")  # fmt: skip
        found = stopping.ask_daemon(
            paths, running, [], lambda claude: claude.daemon_status(timeout_s=stopping.ANSWER_S)
        )
    except BusyError as frozen:
        _tell({"state": "frozen", "pid": running.pid, "text": str(frozen)}, as_json)
        return exits.UNAVAILABLE
    told = msgspec.to_builtins(found)
    told["text"] = (
        f"Daemon {found.version}, process {found.pid}, {found.state} for {_span(found.uptime_ms / 1000)}.\n"
        f"{_count(found.connections, 'connection')}, {_count(found.running, 'turn')} running, "
        f"{found.queued} waiting, {_count(found.sessions_open, 'session')} open.\nSocket {found.socket}"
    )
    return _tell(told, as_json)


_HELD_BACK = {
    "memory": "too little memory is free, or allowed (pool.maxMemory, pool.minFreeMemory)",
    "starts": "others are starting",
    "crashes": "Claude Code crashed at its start, see the log",
}


@daemon.command("pool")
@_JSON
def pool(as_json: bool) -> int:
    """Show the Claude Code processes that were started ahead; exit status 3 if there is no daemon."""
    paths = locate.find_paths()
    running = stopping.find_running(paths)
    if running is None:
        _tell({"state": "stopped", "text": "There is no daemon."}, as_json)
        return exits.NOT_RUNNING
    found = stopping.ask_daemon(
        paths, running, ["admin"], lambda claude: claude.daemon_pool(timeout_s=stopping.ANSWER_S)
    )
    told = msgspec.to_builtins(found)
    lines = [
        f"{found.warm} conversations found a process waiting, {found.cold} did not.",
        f"{len(found.spares)} of at most {found.max_spare} processes wait:",
    ]
    for spare in found.spares:
        memory = "" if spare.memory_bytes is None else f", {spare.memory_bytes / (1 << 20):.0f} MB"
        how = ", rehearsed" if spare.rehearsed else ""
        age = _span(spare.age_ms / 1000)
        lines.append(f"  {spare.state} for {spare.cwd or 'any folder'}, {age}{memory}{how}")
    if found.held_back is not None:
        lines.append(f"There are fewer than are wanted: {_HELD_BACK[found.held_back]}.")
    lines += [f"{count} ended unused: {why}" for why, count in sorted(found.ended.items())]
    told["text"] = "\n".join(lines)
    return _tell(told, as_json)


@daemon.command("logs")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(min=0), default=50, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="One object {file, lines}; with -f, the raw lines.")
def logs(follow: bool, lines: int, as_json: bool) -> int:
    """Show the end of the daemon's log."""
    file = locate.find_paths().log_file
    if follow:
        return log_view.follow(file, lines, as_json=as_json)
    last = log_view.tail(file, lines)
    if as_json:
        click.echo(json.dumps({"file": file, "lines": [log_view.parsed(line) for line in last]}))
        return exits.OK
    for line in last:
        click.echo(log_view.readable(line))
    return exits.OK


def _start(paths: Paths) -> dict[str, Any]:
    try:
        connection, started = locate.connect(paths), False
    except NotRunningError:
        connection, started = launch.ensure_daemon(paths), True
    with connection:
        found = place(paths, connection)
    word = "Started" if started else "Already running"
    return {"started": started, **found, "text": f"{word}: process {found['pid']}, socket {found['socket']}"}


def _stop(paths: Paths, grace: float | None, timeout: float, kill: bool) -> dict[str, Any]:
    running = stopping.find_running(paths)
    if running is None:
        return {"stopped": False, "text": "There was no daemon."}
    grace_ms = None if grace is None else round(grace * 1000)
    stopping.stop(paths, running, grace_ms=grace_ms, timeout_s=timeout, kill=kill)
    return {"stopped": True, "pid": running.pid, "text": f"Stopped: process {running.pid}"}


def _tell(told: dict[str, Any], as_json: bool) -> int:
    text = told.pop("text")
    click.echo(json.dumps(told) if as_json else text)
    return exits.OK


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _span(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"
