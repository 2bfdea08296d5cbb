"""The simulator as a process of its own, and what can be asked of it from outside, without asyncio."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from dragoman_sim.script import Rule, Script

_START_S = 20.0
_STOP_S = 10.0


class RemoteError(Exception):
    """The simulator refused, or did not start; the text is its own."""


class Remote:
    """A simulator in another process, by its URL. Every call blocks, *deadline_s* at the longest."""

    def __init__(self, url: str, pid: int | None = None) -> None:
        """Speak to the simulator at *url*."""
        self.url = url
        self.pid = pid

    def requests(self) -> list[dict[str, Any]]:
        """Return every request so far: the fields of `records.Record`, `body` decoded."""
        found: list[dict[str, Any]] = self._call("GET", "requests")["requests"]
        return found

    def wait_for(
        self, count: int = 1, *, outcome: str | None = None, text: str = "", deadline_s: float = 10.0
    ) -> dict[str, Any]:
        """Wait for the *count*-th request to `/v1/messages` whose prompt contains *text*, and return it.

        With *outcome*, wait until its answer has ended so (`ended`: in any way). Raises `RemoteError` when
        the deadline has passed.
        """
        query = {"count": count, "text": text, "deadlineMs": deadline_s * 1000}
        if outcome is not None:
            query["outcome"] = outcome
        found: dict[str, Any] = self._call("GET", "wait?" + urlencode(query), deadline_s=deadline_s)
        return found

    def limits(self) -> dict[str, Any]:
        """Return what its limits let in and refused so far: `total`, and by credential."""
        found: dict[str, Any] = self._call("GET", "limits")
        return found

    def gate(self, name: str, verb: str) -> None:
        """`open`, `close` or `release` the gate *name*."""
        self._call("POST", f"gates/{quote(name, safe='')}/{verb}")

    def wait_arrived(self, name: str, count: int = 1, deadline_s: float = 10.0) -> None:
        """Wait until *count* replies have come to the gate *name*. Raises `RemoteError`."""
        query = urlencode({"count": count, "deadlineMs": deadline_s * 1000})
        self._call("POST", f"gates/{quote(name, safe='')}/arrived?{query}", deadline_s=deadline_s)

    def use(self, script: Script | Sequence[Rule]) -> None:
        """Answer by another script from now on. Raises `RemoteError` for one that cannot work."""
        self._call("POST", "script", msgspec.json.encode(script))

    def reset(self) -> None:
        """Forget requests, gates and counts, and break off every answer."""
        self._call("POST", "reset")

    def _call(self, method: str, path: str, body: bytes | None = None, deadline_s: float = 10.0) -> Any:
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=deadline_s + 10)
        with contextlib.closing(connection):
            connection.request(method, f"/_sim/{path}", body)
            response = connection.getresponse()
            value = json.loads(response.read())
        if response.status != 200:
            raise RemoteError(value["error"])
        return value


@contextlib.contextmanager
def in_process(script: Script | Sequence[Rule] = ()) -> Iterator[Remote]:
    """Run a simulator in a process of its own, which ends with this block, or with this process.

    Raises `RemoteError` with what it said if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="dragoman-sim-") as folder:
        file = Path(folder, "script.json")
        file.write_bytes(msgspec.json.encode(script))
        command = [sys.executable, "-P", "-m", "dragoman_sim", "--until-stdin-closes", "--script", str(file)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            yield _ready(process)
        finally:
            _stop(process)


def _ready(process: subprocess.Popen[bytes]) -> Remote:
    import select

    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    if not poll.poll(_START_S * 1000):
        raise RemoteError(f"The simulator was not ready after {_START_S:g} s.")
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise RemoteError(process.stderr.read().decode(errors="replace").strip())
    said = json.loads(line)
    return Remote(said["url"], said["pid"])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it: its stdin closes; kill it if that does not help."""
    try:
        process.communicate(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
