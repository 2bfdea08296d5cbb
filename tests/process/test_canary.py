"""With an API key, the key is in the daemon alone: a canary, searched for in children and files (00.68).

The real daemon, the real Claude Code, a tool that looks around (the threats of the trust model).
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import connect
from dragoman_sim.remote import Remote, in_process
from dragoman_sim.script import Gate, Reply, Rule, Script, Status, ToolUse, When

CANARY = "sk-ant-api03-canary-" + "c4n4ry" * 8
BEARER = re.compile(rb"dragoman-[0-9a-f]{16}-[\w-]{43}")
PEEK = """
env
guard=$(cut -d ' ' -f 4 /proc/$PPID/stat)
for process in self $$ $PPID $guard; do
  tr '\\0' '\\n' < /proc/$process/environ
  tr '\\0' '\\n' < /proc/$process/cmdline
  for fd in /proc/$process/fd/*; do
    case "$(readlink $fd)" in pipe:*) timeout 0.2 cat $fd 2>/dev/null ;; esac
  done
done
true
"""
"""What a tool can easily get at: itself, its shell, Claude Code and the guard."""
SCRIPT = Script(
    rules=[
        Rule(
            When(text="look around"),
            [Reply([ToolUse("Bash", {"command": PEEK})]), Reply(["So ", Gate("middle"), "it is."])],
        ),
        Rule(When(text="go wrong"), fault=Status(400, message="No, not so.")),
    ],
    keys=[CANARY],
)
PATIENCE_S = 60


@pytest.fixture(scope="module")
def sim() -> Iterator[Remote]:
    with in_process(SCRIPT) as sim:
        yield sim


def test_canary(
    new_home: Callable[..., Any], sim: Remote, converse: Callable[..., Any], tmp_path: Path
) -> None:
    home = new_home()
    home.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": CANARY}
    work = tmp_path / "work"
    work.mkdir()
    daemon, _ = home.foreground()
    client = converse(connect(home.paths))
    client.ask("initialize", {"scopes": ["query", "tools", "approve", "admin"]})
    asked = {"prompt": "look around", "cwd": str(work), "tools": ["Bash"], "allowedTools": ["Bash"]}
    request = client.send("query/run", asked)
    sim.wait_arrived("middle", 1, PATIENCE_S)

    children = home.others(daemon.pid)
    assert len(children) >= 2, "the guard and Claude Code"
    memory = []
    for child in children:
        # A spare process may end at any moment; the one of the turn waits.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for what in ("environ", "cmdline"):
                seen = Path(f"/proc/{child}/{what}").read_bytes()
                assert CANARY.encode() not in seen
                assert BEARER.search(seen) is None
            assert CANARY.encode() not in pipes_of(child)
            if b"--input-format" in Path(f"/proc/{child}/cmdline").read_bytes():
                memory.append(memory_of(child))
    assert any(BEARER.search(each) for each in memory), "what it has instead, so that this search can find"
    assert not any(CANARY.encode() in each for each in memory)

    sim.gate("middle", "open")
    assert client.answer(request)["result"]["text"] == "So it is."
    seen_by_tool = json.dumps(sim.requests()[-1]["body"]).encode()
    assert b"ANTHROPIC_UNIX_SOCKET" in seen_by_tool, "the tool did look"
    assert CANARY.encode() not in seen_by_tool
    assert BEARER.search(seen_by_tool) is None

    error = client.ask("query/run", {"prompt": "go wrong", "cwd": str(work)})["error"]
    assert error["data"]["kind"] == "upstream_rejected"
    state = client.ask("limits/state")["result"]
    assert state["usage"]["total"]["calls"] >= 3
    told = json.dumps([client.responses, state])
    client.ask("daemon/stop", {"graceMs": 0})
    out, err = daemon.communicate(timeout=PATIENCE_S)
    assert CANARY not in told + out + err
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"dragoman.db", "daemon.log"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert CANARY.encode() not in content, file
        assert BEARER.search(content) is None, file
    assert not list(Path(home.paths.runtime_dir).glob("gw-*"))


def pipes_of(pid: int) -> bytes:
    """Return what waits in the pipes that a process reads from, and leave it there empty."""
    found = b""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if not os.readlink(fd).startswith("pipe:") or int(fd.name) < 3:
                continue
            reader = os.open(fd, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            found += os.read(reader, 65536)
        except BlockingIOError:
            continue
        finally:
            os.close(reader)
    return found


def memory_of(pid: int) -> bytes:
    """Return all that a process can write to."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            place, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            begin, end = (int(each, 16) for each in place.split("-"))
            try:
                memory.seek(begin)
                found.append(resident(memory, pid, begin, end))
            except (OSError, ValueError, OverflowError):
                continue
    return b"".join(found)


def resident(memory: Any, pid: int, begin: int, end: int) -> bytes:
    """Return the pages of a mapping that are there: some are of gigabytes, and empty."""
    page = os.sysconf("SC_PAGE_SIZE")
    found = []
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
        at = begin
        while at < end:
            count = min((end - at) // page, 65536)
            pagemap.seek(at // page * 8)
            entries = pagemap.read(count * 8)
            for index in range(len(entries) // 8):
                if entries[index * 8 + 7] & 0x80:
                    memory.seek(at + index * page)
                    found.append(memory.read(page))
            at += count * page
    return b"".join(found)
