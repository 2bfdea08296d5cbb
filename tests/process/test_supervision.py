"""Whatever ends a turn, every process of it ends within 6 s; whatever ends a process, the stream goes on.

The tool that Claude Code runs here does all it can to stay: it forks twice, has a session of its own, ignores
every polite word, and one of its processes has stopped itself. Processes are held by descriptors from the
moment in which they have said that they run, so no number is mistaken for another's.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman_sim import remote

KEY = "sk-ant-api03-supervised"
WITHIN_S = 6.0
HIDE = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
def stay(word):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open("tell", "wb", buffering=0) as tell:
                tell.write(b"%d\\n" % os.getpid())
            if word == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            while True:
                signal.pause()
        os._exit(0)
    os.wait()
stay("deaf")
stay("stopped")
while "forward" in sys.argv:
    signal.pause()
"""
HIDDEN = 2


def tool(command: str) -> Any:
    return {"type": "tool_use", "name": "Bash", "input": {"command": command}}


RULES = [
    {
        "when": {"text": "work"},
        "reply": [{"content": [tool(f"exec {sys.executable} hide.py forward")]}, {"content": ["Done."]}],
    },
    {
        "when": {"text": "leave"},
        "reply": [{"content": [tool(f"{sys.executable} hide.py > out 2>&1")]}, {"content": ["Left."]}],
    },
    {"when": {"text": "again"}, "reply": {"content": ["You said first: {first_prompt}"]}},
]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what is left")


class Scene:
    """A daemon of its own, one client, and a tool that tells when it runs."""

    def __init__(self, home: Any, sim: Any, work: Path, converse: Any, hold: Any) -> None:
        self.home = home
        self.sim = sim
        self.work = work
        self.hold = hold
        home.env |= {
            "ANTHROPIC_BASE_URL": sim.url,
            "ANTHROPIC_API_KEY": KEY,
            "DRAGOMAN_POOL__MAX_SPARE": "0",
            "DRAGOMAN_SESSION__IDLE_CLOSE_MS": "1000",
        }
        self.daemon = home.locate()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.daemon["socket"])
        self.client = converse(connection)
        self.client.ask("initialize", {"scopes": ["query", "tools", "admin"]})
        (work / "hide.py").write_text(HIDE)
        os.mkfifo(work / "tell")
        self.tell = os.open(work / "tell", os.O_RDWR | os.O_NONBLOCK)
        self.request = 0
        self.session = ""
        self.held: list[Any] = []
        self.hidden: list[int] = []

    @property
    def pid(self) -> int:
        pid: int = self.daemon["pid"]
        return pid

    def turn(self, prompt: str) -> None:
        """Begin a query whose tool hides processes, and wait until they have said so."""
        given = {"prompt": prompt, "cwd": str(self.work), "allowedTools": ["Bash"]}
        self.request = self.client.send("query/run", given)
        self.found()

    def open(self) -> Any:
        """Open a stream."""
        opened = self.client.ask("stream/open", {"cwd": str(self.work), "allowedTools": ["Bash"]})
        self.session = opened["result"]["sessionId"]
        return opened["result"]

    def send(self, prompt: str) -> str:
        """Send a message into the stream and return its turn's end: what it says, or its status."""
        self.client.ask("stream/send", {"sessionId": self.session, "prompt": prompt})
        status: str = self.client.event("turnCompleted")["status"]
        return status

    def found(self) -> None:
        """Wait until the tool's processes run, and hold every process that there is."""
        said = b""
        while said.count(b"\n") < HIDDEN:
            assert select.select([self.tell], [], [], 60)[0], "the tool did not begin"
            said += os.read(self.tell, 1024)
        self.hidden = [int(each) for each in said.split()]
        self.hold_all()
        assert {each.pid for each in self.held} >= set(self.hidden)

    def hold_all(self) -> None:
        self.held = [self.hold(pid) for pid in self.home.others(self.pid)]

    def named(self, name: bytes) -> int:
        """Return the process whose command line has *name*: Claude Code, or its guard."""
        for each in self.held:
            command = Path(f"/proc/{each.pid}/cmdline").read_bytes()
            is_guard = b"import guard" in command
            if is_guard == (name == b"guard") and (is_guard or command.split(b"\0")[0].endswith(name)):
                found: int = each.pid
                return found
        raise AssertionError(f"there is no {name!r}")

    def all_end(self, within_s: float = WITHIN_S) -> None:
        """Wait until all that were held are gone, and look that nobody else is there."""
        until = time.monotonic() + within_s
        late = [each.pid for each in self.held if not each.ended(max(0.0, until - time.monotonic()))]
        assert not late, [Path(f"/proc/{pid}/stat").read_bytes() for pid in late]
        assert self.home.others(self.pid) == []

    def close(self) -> None:
        os.close(self.tell)
        for each in self.held:
            with each:
                each.send(signal.SIGKILL)


@pytest.fixture
def scene(home: Any, tmp_path: Path, converse: Any, hold: Any) -> Iterator[Scene]:
    (tmp_path / "work").mkdir()
    with remote.in_process(RULES) as sim:
        scene = Scene(home, sim, tmp_path / "work", converse, hold)
        yield scene
        scene.close()


def cancel(at: Scene) -> None:
    at.client.notify("$/cancelRequest", {"id": at.request})


def disconnect(at: Scene) -> None:
    at.client.close()


def kill_the_cli(at: Scene) -> None:
    os.kill(at.named(b"/claude"), signal.SIGKILL)


def kill_the_guard(at: Scene) -> None:
    os.kill(at.named(b"guard"), signal.SIGKILL)


def kill_the_daemon(at: Scene) -> None:
    os.kill(at.pid, signal.SIGKILL)


def shut_down(at: Scene) -> None:
    at.client.send("daemon/stop", {"graceMs": 0})


ENDS = [cancel, disconnect, kill_the_cli, kill_the_guard, kill_the_daemon, shut_down]


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS, ids=[each.__name__ for each in ENDS])
def test_every_process_of_a_turn_ends_with_it(scene: Scene, end: Callable[[Scene], None]) -> None:
    scene.turn("work")
    end(scene)
    scene.all_end()
    if end in (kill_the_cli, kill_the_guard):
        error = scene.client.answer(scene.request)["error"]
        assert error["data"]["kind"] == "claude_crashed"
    elif end is cancel:
        assert scene.client.answer(scene.request)["error"]["data"]["kind"] == "request_cancelled"


def close_the_stream(at: Scene) -> None:
    at.client.send("stream/close", {"sessionId": at.session})


STREAM_ENDS = [close_the_stream, disconnect, kill_the_cli, kill_the_guard, kill_the_daemon, shut_down]


@pytest.mark.slow
@pytest.mark.parametrize("end", STREAM_ENDS, ids=[each.__name__ for each in STREAM_ENDS])
def test_what_a_turn_of_a_stream_has_left_running_ends_with_the_process(
    scene: Scene, end: Callable[[Scene], None]
) -> None:
    scene.open()
    assert scene.send("leave") == "completed"
    scene.found()
    end(scene)
    # With nobody left the stream is idle for a second first (`session.idleCloseMs`).
    scene.all_end(WITHIN_S + (1.0 if end is disconnect else 0.0))


@pytest.mark.parametrize("whom", [b"/claude", b"guard"])
def test_killed_between_turns_the_conversation_goes_on(scene: Scene, whom: bytes) -> None:
    """The next message is answered once, with the conversation's memory, by another process (TS.22)."""
    opened = scene.open()
    assert opened["start"] == "cold"
    assert opened["claudeSessionId"]
    assert scene.send("My name is Ada.") == "completed"
    scene.hold_all()
    os.kill(scene.named(whom), signal.SIGKILL)
    scene.client.ask("stream/send", {"sessionId": scene.session, "prompt": "once again"})
    started = scene.client.event("processStarted")
    assert started["reason"] == "died"
    assert started["claudeSessionId"] == opened["claudeSessionId"]
    assert scene.client.event("assistantText")["text"] == "You said first: My name is Ada."
    assert scene.client.event("turnCompleted")["status"] == "completed"
    asked = [record for record in scene.sim.requests() if "once again" in json.dumps(record["body"])]
    assert len(asked) == 1, "once"
    assert scene.send("and again") == "completed"
