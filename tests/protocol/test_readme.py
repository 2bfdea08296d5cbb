"""What the page on the wire says is so: its program runs, its numbers are the code's, its links lead on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dragoman_protocol import peer, wire
from dragoman_protocol.codec import MAX_HEADER, MAX_MESSAGE, MAX_MESSAGE_BEFORE_INITIALIZE
from dragoman_protocol.errors import BY_KIND
from dragoman_protocol.methods import METHODS

PROTOCOL = Path(__file__).resolve().parents[2] / "protocol"
PAGE = (PROTOCOL / "README.md").read_text()
BIN = Path(sys.executable).parent


def test_program_of_the_page_talks_to_a_real_daemon(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    runtime = tmp_path / "x"
    runtime.mkdir(mode=0o700)
    env = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": f"{BIN}:{os.defpath}",
        "LANG": "C.UTF-8",
    }
    try:
        ran = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr
        info, status = ran.stdout.splitlines()
        assert "'name': 'dragoman'" in info
        assert "'authenticated': False" in status
    finally:
        stop = [str(BIN / "dragoman"), "daemon", "stop"]
        assert subprocess.run(stop, env=env, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16 MiB; 1 MiB before", (MAX_MESSAGE >> 20, MAX_MESSAGE_BEFORE_INITIALIZE >> 20) == (16, 1)),
        (f"| nesting of a message | {wire.MAX_DEPTH} |", True),
        (f"outside strings | {wire.MAX_PARTS:,} |".replace(",", " "), True),
        (f"| messages in a batch | {peer.MAX_BATCH} |", True),
        (f"at most {MAX_HEADER} bytes", True),
    ],
)
def test_limits_are_those_of_the_code(text: str, value: bool) -> None:
    assert text in PAGE
    assert value


def test_names_on_the_page_exist() -> None:
    for method in re.findall(r"`((?:[a-z]+|\$)/[a-zA-Z]+)[` ]", PAGE):
        assert method in METHODS, method
    kinds = set(re.findall(r"`([a-z]+_[a-z_]+)`", PAGE)) - {"dragoman_protocol"}
    assert kinds <= set(BY_KIND)


def test_links_lead_to_files_and_headings() -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", PAGE):
        file = PROTOCOL / link[0]
        assert file.exists(), link
        if link[1]:
            headings = [
                line.lstrip("# ").lower() for line in file.read_text().splitlines() if line.startswith("#")
            ]
            assert link[1] in headings, link


def test_lines_of_the_conversation_are_messages() -> None:
    typed = re.findall(r"^→ (.*)$", PAGE, re.MULTILINE)
    assert len(typed) == 4
    arrivals = peer.Peer().receive("".join(line + "\n" for line in typed).encode())
    assert [getattr(arrival, "method", None) for arrival in arrivals] == [
        json.loads(line)["method"] for line in typed
    ]
