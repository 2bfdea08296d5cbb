"""What clients/README.md shows is run as it stands there."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dragoman_protocol.lifecycle import PermissionRequestParams
from dragoman_protocol.stream import TextDelta

README = Path(__file__).parents[2] / "clients" / "README.md"
ASKED = PermissionRequestParams(
    permission_id="p", session_id="s1", turn_id="t1", tool_name="Edit", input={"a": 1}
)


def block(beginning: str) -> str:
    """Return the code block of the page that begins so."""
    (found,) = [
        code
        for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if code.startswith(beginning)
    ]
    return str(found)


@pytest.fixture
def served(scripted: Any, place: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    scripted.listen(place.paths.socket)
    for name in ("HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, place.env[name])
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return scripted


@pytest.fixture
def stdio(tmp_path: Path, place: Any) -> dict[str, str]:
    """An environment in which `dragoman` is this checkout's."""
    program = tmp_path / "bin" / "dragoman"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m dragoman.cli.main "$@"\n')
    program.chmod(0o755)
    return {**place.env, "PATH": f"{program.parent}:/usr/bin:/bin"}


def run_example(env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", block("import json\n"), "Why?"]
    pipes: dict[str, Any] = {"capture_output": True, "text": True, "input": "y\n"}
    return subprocess.run(command, env=env, timeout=60, check=False, **pipes)


def test_the_blocking_client(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("import dragoman\n"), {})
    assert capsys.readouterr().out == "Hello s1 2\nHello"


def test_the_asyncio_client(served: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = block("import dragoman.aio\n").splitlines()
    body = "".join(f"    {line}\n" for line in lines[1:])
    names: dict[str, Any] = {}
    exec(f"{lines[0]}\nasync def main():\n{body}", names)
    asyncio.run(names["main"]())
    assert "TextDelta" in capsys.readouterr().out


def test_without_any_library(served: Any, stdio: dict[str, str], play: Any) -> None:
    words: list[bytes] = []

    def run(connection: Any, request: Any, params: dict[str, Any]) -> None:
        def answered(answer: Any) -> None:
            words.append(bytes(answer.result))
            connection.progress(params, TextDelta(item_id="i", offset=0, text="Because."))
            connection.respond(request, play.result())

        connection.ask("permission/request", ASKED, answered)

    served.on("query/run", run)
    done = run_example(stdio)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "\nMay Edit run? [y/n] Because.\n(session s1)\n"
    assert words == [b'{"decision": "allow"}']


def test_without_any_library_and_an_error(served: Any, stdio: dict[str, str]) -> None:
    served.fails("query/run", "queue_full")
    done = run_example(stdio)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "queue_full: Too many turns wait already.\n"


def test_the_example_is_short() -> None:
    assert len([line for line in block("import json\n").splitlines() if line.strip()]) <= 32


def test_the_files_it_names_are_there() -> None:
    text = README.read_text()
    root = README.parent
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (root / link).exists(), link
    for row in re.findall(r"^\| (`dragoman/[^|]*)\|", text, re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            path = name if name.startswith("dragoman/") else f"dragoman/{name}"
            assert (root / "python" / path).exists(), name
