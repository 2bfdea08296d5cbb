"""A home of its own for a real daemon, the real commands in it, and the end of whatever was started there."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.launch import READY_FD
from dragoman.locate import Paths, find_paths, read_record

LIMIT_S = 60
DRAGOMAN = [sys.executable, "-P", "-m", "dragoman.cli.main"]
DAEMON = [sys.executable, "-P", "-m", "dragomand"]


class Home:
    """One user's folders and environment. Nothing of the machine's own user is in it."""

    def __init__(self, folder: Path, *, runtime: bool) -> None:
        folder.mkdir(mode=0o700)
        kept = {name: value for name, value in os.environ.items() if name.startswith("COV") or name == "PATH"}
        self.env = {**kept, "HOME": str(folder), "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
        if runtime:
            (folder / "run").mkdir(mode=0o700)
            self.env["XDG_RUNTIME_DIR"] = str(folder / "run")
        self.paths: Paths = find_paths(self.env)

    def dragoman(self, *arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        """Run one command to its end."""
        options = {"env": self.env, "capture_output": True, "text": True, "timeout": LIMIT_S, **more}
        return subprocess.run([*DRAGOMAN, *arguments], check=False, **options)

    def locate(self) -> Any:
        """Start the daemon if there is none and return what `dragoman locate` says."""
        done = self.dragoman("locate")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stdio(self) -> "subprocess.Popen[bytes]":
        """Start `dragoman stdio` with pipes."""
        return subprocess.Popen(
            [*DRAGOMAN, "stdio"],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def foreground(self, *arguments: str) -> "tuple[subprocess.Popen[str], dict[str, Any]]":
        """Start a daemon as a child of ours; return it and its word, once it is ready or has failed."""
        reader, writer = os.pipe()
        with os.fdopen(reader) as word:
            process = subprocess.Popen(
                [*DAEMON, *arguments],
                env={**self.env, READY_FD: str(writer)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=(writer,),
            )
            os.close(writer)
            return process, json.loads(word.read())

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [json.loads(line) for line in Path(self.paths.log_file).read_text().splitlines()]

    def said(self) -> list[str]:
        """Return the log's messages."""
        return [line["message"] for line in self.log()]

    def others(self, daemon: int) -> list[int]:
        """Return the processes that have this home in their environment, but for the daemon."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if f"HOME={self.env['HOME']}\0".encode() in Path("/proc", pid, "environ").read_bytes():
                    found.append(int(pid))
        return [pid for pid in found if pid != daemon]

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the daemon that holds the lock a signal and wait for its end."""
        pid = read_record(self.paths).get("pid")
        if isinstance(pid, int):
            with Process(pid) as process:
                process.send(number)
                process.wait()


class Process:
    """A process that is no child of ours, held by a descriptor so that its number cannot be another's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self.descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self.descriptor = -1

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_what: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)

    def send(self, number: int) -> None:
        if self.descriptor >= 0 and not self.ended(0):
            signal.pidfd_send_signal(self.descriptor, number)

    def ended(self, within_s: float) -> bool:
        return self.descriptor < 0 or bool(select.select([self.descriptor], [], [], within_s)[0])

    def wait(self) -> None:
        assert self.ended(LIMIT_S), "it did not end"


class Conversation:
    """A client that knows no more than lines of JSON."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(LIMIT_S)
        self.connection = connection
        self.file = connection.makefile("rwb")
        self.requests = 0
        self.responses: dict[int, Any] = {}
        self.events: list[Any] = []

    def send(self, method: str, params: Any = None) -> int:
        """Send a request and return its id."""
        self.requests += 1
        body = {"jsonrpc": "2.0", "id": self.requests, "method": method, "params": params or {}}
        self.file.write(json.dumps(body).encode() + b"\n")
        self.file.flush()
        return self.requests

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        self.file.write(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n")
        self.file.flush()

    def read(self) -> None:
        """Take the next message: a response, an event, or something else, which is passed over."""
        line = self.file.readline()
        if not line:
            raise EOFError
        message = json.loads(line)
        if "method" not in message:
            assert message["id"] not in self.responses, "answered twice"
            self.responses[message["id"]] = message
        elif message["method"] == "stream/event":
            self.events.append(message["params"]["event"])

    def answer(self, request: int) -> Any:
        """Return the response to a request."""
        while request not in self.responses:
            self.read()
        return self.responses[request]

    def event(self, kind: str) -> Any:
        """Return the next event of a kind; those before it are passed over."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["type"] == kind:
                    return event
            self.read()

    def ask(self, method: str, params: Any = None) -> Any:
        """Send a request and return its response."""
        return self.answer(self.send(method, params))

    def ended(self) -> bool:
        """Read until the daemon closes; whatever comes before is passed over."""
        while self.file.readline():
            pass
        return True

    def close(self) -> None:
        self.file.close()
        self.connection.close()


NewHome = Callable[..., Home]


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[NewHome]:
    homes: list[Home] = []

    def make(*, runtime: bool = True) -> Home:
        homes.append(Home(tmp_path / f"h{len(homes)}", runtime=runtime))
        return homes[-1]

    yield make
    for home in homes:
        try:
            home.kill(signal.SIGTERM)
        finally:
            home.kill()


@pytest.fixture
def home(new_home: NewHome) -> Home:
    return new_home()


@pytest.fixture
def hold() -> type[Process]:
    """`hold(pid)`: a process to wait for."""
    return Process


@pytest.fixture
def converse() -> Iterator[Callable[[socket.socket], Conversation]]:
    """`converse(connection)`: talk to the daemon at its other end."""
    open_ones: list[Conversation] = []

    def converse(connection: socket.socket) -> Conversation:
        open_ones.append(Conversation(connection))
        return open_ones[-1]

    yield converse
    for each in open_ones:
        each.close()
