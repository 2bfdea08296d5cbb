"""`dragoman demo`: the main job, offline, with the real Claude Code, in a temporary home.

A simulator stands in for the Messages API on loopback; everything else is what runs every day. Each act
checks what it shows: a demo that only looks right exits with 1. The home is removed at the end.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from dragoman_protocol.lifecycle import PermissionRequestParams
from dragoman_protocol.stream import TextDelta

from dragoman import DragomanError, connect, locate
from dragoman.cli import exits, stopping
from dragoman.cli.terminal import dim
from dragoman.errors import RequestCancelledError
from dragoman.sync import Client

_GREETING = (
    "A dragoman is an interpreter between peoples. I am one daemon between all your programs and Claude."
)
_ACTS = 5

_SCRIPT: list[dict[str, Any]] = [
    {
        "when": {"text": "What is a dragoman"},
        "reply": {"content": [_GREETING], "piece_chars": 6, "delay_ms": 15},
    },
    {
        "when": {"text": "Write the answer into"},
        "reply": [
            {
                "content": [
                    "I will write it down.",
                    {
                        "type": "tool_use",
                        "name": "Write",
                        "input": {"file_path": "{cwd}/dragoman.txt", "content": _GREETING + "\n"},
                    },
                ]
            },
            {"content": ["It is written."]},
        ],
    },
    {
        "when": {"text": "Count to a million"},
        "reply": {
            "content": ["1, 2, 3, 4, 5, 6, 7, 8, 9, ", {"type": "gate", "name": "never"}, "1000000"],
            "piece_chars": 3,
        },
    },
    {
        "when": {"text": "my first question"},
        "reply": {"content": ["Your first question was: {first_prompt}"]},
    },
]


class _FailedError(DragomanError):
    """The demo did not show what it should have shown."""


class _Stage:
    """Where the demo plays: a home of its own, the simulator's address, and what is printed."""

    def __init__(self, folder: Path, url: str, *, quiet: bool) -> None:
        self.folder = folder
        self.quiet = quiet
        self.project = folder / "project"
        self.project.mkdir()
        home = folder / "home"
        home.mkdir(mode=0o700)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TERM") if name in os.environ}
        # Nothing of this machine's own: no credential, no settings, no proxy can be found from here.
        self.env = {
            **kept,
            "HOME": str(home),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "sk-ant-api03-demo-no-real-key",
        }
        self.paths = locate.find_paths(self.env)

    def client(
        self, name: str, on_permission: Callable[[PermissionRequestParams], bool] | None = None
    ) -> Client:
        """Connect, starting the daemon if there is none."""
        return connect(name, env=self.env, on_permission=on_permission)

    def say(self, text: str = "", *, end: str = "\n") -> None:
        """Print for people."""
        if not self.quiet:
            click.echo(text, nl=False)
            click.echo(end, nl=False)

    def act(self, number: int, title: str) -> None:
        """Begin an act."""
        self.say(f"\n{number}/{_ACTS} {title}")

    def stop_daemon(self) -> None:
        """Stop the daemon, if there is one, and wait until it is gone."""
        running = stopping.find_running(self.paths)
        if running is not None:
            stopping.stop(self.paths, running, grace_ms=0, timeout_s=30, kill=True)


def run(*, keep: bool = False, as_json: bool = False) -> int:
    """Play the demo and return the exit status; *keep* leaves the folder, *as_json*: only the outcome."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="dragoman-demo-"))
    outcome: dict[str, Any] = {}
    try:
        with _simulator(folder) as url:
            stage = _Stage(folder, url, quiet=as_json)
            try:
                outcome = _play(stage)
            finally:
                stage.stop_daemon()
        outcome |= {"ok": True, "seconds": round(time.monotonic() - began, 1)}
    except DragomanError as failed:
        outcome |= {"ok": False, "error": str(failed), "log": _log_tail(folder)}
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    if keep:
        outcome["folder"] = str(folder)
    _close(outcome, as_json=as_json)
    return exits.OK if outcome["ok"] else exits.FAILED


def _play(stage: _Stage) -> dict[str, Any]:
    stage.say("Dragoman: one Claude for every editor, script and process.")
    stage.say(
        dim(
            "The real Claude Code, a simulated Messages API on loopback, a home that is removed at the end.",
            sys.stdout,
        )
    )
    outcome = _two_clients(stage)
    session = outcome["session"]
    _edit(stage)
    _interrupt(stage)
    _restart(stage, session)
    return outcome


def _two_clients(stage: _Stage) -> dict[str, Any]:
    stage.act(1, "Two clients, one daemon")
    with stage.client("editor") as editor, stage.client("script") as script:
        one, other = editor.daemon_status(), script.daemon_status()
        _expect(one.pid == other.pid and other.connections == 2, "both clients on one daemon")
        stage.say(f"    editor and script are both connected to process {one.pid} at {one.socket}")
        stage.act(2, "An answer streams")
        stage.say("    > What is a dragoman?\n    ", end="")
        pieces = 0
        with editor.stream("What is a dragoman?", cwd=stage.project) as stream:
            for event in stream:
                if isinstance(event, TextDelta):
                    pieces += 1
                    stage.say(event.text, end="")
        answer = stream.result
        _expect(answer.text == _GREETING and pieces > 3, "the whole answer, in pieces")
        status = script.daemon_status()
        _expect(status.claude_version is not None, "that the real Claude Code answered")
        version, took = status.claude_version, answer.duration_ms
        stage.say(f"\n    Claude Code {version} took {took} ms, and said it in {pieces} pieces")
        return {
            "session": answer.session_id,
            "claudeVersion": status.claude_version,
            "pid": one.pid,
            "pieces": pieces,
        }


def _edit(stage: _Stage) -> None:
    stage.act(3, "Claude edits a file, once you allow it")
    asked: list[PermissionRequestParams] = []

    def allow(question: PermissionRequestParams) -> bool:
        asked.append(question)
        stage.say(
            f"    May it {question.tool_name} {Path(question.input['file_path']).name}? The client says yes."
        )
        return True

    with stage.client("editor", allow) as editor:
        editor.query("Write the answer into dragoman.txt", cwd=stage.project)
    written = stage.project / "dragoman.txt"
    _expect(len(asked) == 1, "one question to the client")
    _expect(written.is_file() and written.read_text().strip() == _GREETING, "the file with the answer")
    stage.say(f"    dragoman.txt has {written.stat().st_size} bytes now")


def _interrupt(stage: _Stage) -> None:
    stage.act(4, "An interrupt")
    stage.say("    > Count to a million\n    ", end="")
    with stage.client("script") as script:
        said = ""
        began = 0.0
        with script.stream("Count to a million", cwd=stage.project) as stream:
            for event in stream:
                if isinstance(event, TextDelta):
                    said += event.text
                    stage.say(event.text, end="")
                    if "9" in said:
                        began = time.monotonic()
                        break
        took = round((time.monotonic() - began) * 1000)
        try:
            stream.result  # noqa: B018  # asking for the result is what raises
        except RequestCancelledError:
            stage.say(f"\n    stopped {took} ms after the client had enough")
        else:
            raise _FailedError("expected the interrupted turn to end as cancelled; it ended as completed")


def _restart(stage: _Stage, session: str) -> None:
    stage.act(5, "The session is still there after the daemon was restarted")
    stage.stop_daemon()
    with connect("editor", env=stage.env, scopes=["query", "read-all-sessions"]) as editor:
        found = [known.session_id for known in editor.session_list().data]
        _expect(session in found, "the first session in the list")
        pid = editor.daemon_status().pid
        stage.say(f"    a new daemon, process {pid}, knows {len(found)} sessions")
        answer = editor.query("What was my first question?", session_id=session)
        _expect(
            answer.text == "Your first question was: What is a dragoman?", "the memory of the first session"
        )
        stage.say(f"    > What was my first question?\n    {answer.text}")


@contextmanager
def _simulator(folder: Path) -> Iterator[str]:
    script = folder / "script.json"
    script.write_text(json.dumps(_SCRIPT))
    command = [sys.executable, "-P", "-m", "dragoman_sim", "--script", str(script), "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise _FailedError(f"the simulator did not start (status {process.wait(10)})")
            yield json.loads(line)["url"]
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _expect(true: bool, what: str) -> None:
    if not true:
        raise _FailedError(f"expected {what}, which is not what came")


def _log_tail(folder: Path) -> list[str]:
    logs = list(folder.glob("home/**/daemon.log"))
    return logs[0].read_text(errors="replace").splitlines()[-20:] if logs else []


def _close(outcome: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(outcome))
    elif outcome["ok"]:
        click.echo(f'\nAll of it worked, in {outcome["seconds"]} s. Next: dragoman ask "hello"')
    else:
        click.echo(f"\nThe demo failed: {outcome['error']}", err=True)
        for line in outcome["log"]:
            click.echo(f"  {line}", err=True)
    if "folder" in outcome and not as_json:
        click.echo(f"The folder was kept: {outcome['folder']}")
