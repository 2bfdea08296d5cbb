"""`dragoman rpc METHOD [JSON]`: one request, for scripts. Standard library only: it is started often.

`initialize` and the request are sent together; the answer's result goes to stdout as one line of JSON, an
error to stderr as one line of JSON.
"""

import os
import select
import signal
import sys
import time

from dragoman import locate
from dragoman.cli import exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence
    from typing import Any

_HELP = """\
Usage: dragoman rpc METHOD [PARAMS] [options]

Send one request to the user's daemon, starting the daemon if there is none, and print its result as JSON.
PARAMS is a JSON object; "-" reads it from stdin; none is {}.

Options:
  --timeout SECONDS   cancel the request if no answer came by then
  --scope NAME        ask for this scope as well (auth, read-all-sessions, admin); may be repeated
  --notifications     print what is told meanwhile, one {"method", "params"} a line, before the result
  --no-start          fail if there is no daemon
  -h, --help          this text

Examples:
  dragoman rpc auth/status
  dragoman rpc query/run '{"prompt": "Say hello", "cwd": "/tmp"}' --timeout 60
  dragoman rpc daemon/stop --scope admin

Exit status:
    0  the result is on stdout
    1  the daemon answered with an error: {"code", "message", "data"} on stderr
    2  wrong usage
   69  no daemon
   74  the connection ended before the answer came
  124  --timeout passed; the request was cancelled
  130  interrupted; the request was cancelled
For 69, 74, 124 and 130 stderr has {"message", "data": {"kind"}} as well.
"""

_CANCEL_S = 10.0
_LONGEST_S = 1e9
_FRESH_STARTS = 3
_LONGEST_BEFORE_OPEN = 1024 * 1024
_DEFAULT_SCOPES = ("query", "tools", "approve")


class _FinishedError(Exception):
    """Nothing more can be done; *error* goes to stderr, *status* to the shell."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        self.status = status
        self.error = {"message": message, "data": {"kind": kind}}


class _Command:
    """What the command line asks for."""

    def __init__(self) -> None:
        self.method = ""
        self.params = ""
        self.timeout_s: float | None = None
        self.scopes: list[str] = []
        self.notifications = False
        self.start = True


def main(arguments: "Sequence[str]") -> int:
    """Run `dragoman rpc` with *arguments* and return the exit status."""
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(_HELP)
        return exits.OK
    try:
        command = _parse(arguments)
        params = _params(command.params)
    except ValueError as wrong:
        print(f"dragoman rpc: {wrong}; see dragoman rpc --help", file=sys.stderr)
        return exits.USAGE
    import json

    try:
        answer = _Exchange(command, params).run()
    except _FinishedError as finished:
        print(json.dumps(finished.error), file=sys.stderr)
        return finished.status
    except BrokenPipeError:
        return exits.LOST
    except KeyboardInterrupt:  # a second one, while the first was being served
        return exits.INTERRUPTED
    if "error" in answer:
        print(json.dumps(answer["error"], ensure_ascii=False), file=sys.stderr)
        return exits.FAILED
    return _print(answer.get("result"))


def _print(value: object) -> int:
    import json

    try:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader left; the interpreter's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return exits.LOST
    return exits.OK


def _parse(arguments: "Sequence[str]") -> _Command:
    command = _Command()
    plain: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            plain.append(word)
        elif name in ("--timeout", "--scope"):
            _set(command, name, value if equals else _next(name, words))
        elif word == "--notifications":
            command.notifications = True
        elif word == "--no-start":
            command.start = False
        else:
            raise ValueError(f"unknown option {word}")
    if not 1 <= len(plain) <= 2:
        raise ValueError("expected METHOD and at most one JSON text")
    command.method = plain[0]
    command.params = plain[1] if len(plain) == 2 else "{}"
    return command


def _next(name: str, words: "Iterator[str]") -> str:
    value = next(words, None)
    if value is None:
        raise ValueError(f"{name} needs a value")
    return value


def _set(command: _Command, name: str, value: str) -> None:
    if name == "--scope":
        command.scopes.append(value)
        return
    try:
        command.timeout_s = float(value)
    except ValueError:
        raise ValueError(f"--timeout needs seconds, got {value!r}") from None
    if not 0 < command.timeout_s <= _LONGEST_S:
        raise ValueError(f"--timeout must be more than 0 and at most {_LONGEST_S:.0f}, got {value!r}")


def _params(text: str) -> object:
    import json

    if text == "-":
        text = sys.stdin.read()
    try:
        params = json.loads(text)
    except ValueError as wrong:
        raise ValueError(f"the parameters are not JSON: {wrong}") from None
    if not isinstance(params, dict | list):
        raise ValueError(f"the parameters must be a JSON object, got {text[:40]!r}")
    return params


class _Exchange:
    """One request and its answer, over one connection, or over another if the daemon was leaving."""

    def __init__(self, command: _Command, params: object) -> None:
        self.command = command
        self.deadline: float | None = None
        self.hello = _hello(command)
        self.request = _encode({"id": 1, "method": command.method, "params": params})
        self.held = b""
        self.connection: socket.socket | None = None
        self.has_asked = False
        # A signal just before a system call does not interrupt it; the byte that it leaves here does.
        self.rung, self.bell = os.pipe()
        os.set_blocking(self.bell, False)

    def run(self) -> "dict[str, Any]":
        """Return the response; the deadline or an interruption cancels the request first."""
        limit = self.command.timeout_s
        if limit is not None:
            self.deadline = time.monotonic() + limit
        before = signal.set_wakeup_fd(self.bell, warn_on_full_buffer=False)
        try:
            return self.talk()
        except locate.LocateError as failed:
            raise _FinishedError(exits.UNAVAILABLE, "no_daemon", str(failed)) from None
        except TimeoutError:
            self.cancel(exits.TIMEOUT, "timeout", f"No answer within {limit:g} s; the request was cancelled.")
        except KeyboardInterrupt:
            self.cancel(exits.INTERRUPTED, "request_cancelled", "Interrupted; the request was cancelled.")
        finally:
            signal.set_wakeup_fd(before)
            os.close(self.bell)
            os.close(self.rung)
            if self.connection is not None:
                self.connection.close()
        raise AssertionError

    def talk(self) -> "dict[str, Any]":
        """Say it, to another daemon if the first was leaving, and return the response."""
        paths = locate.find_paths()
        for left in reversed(range(_FRESH_STARTS)):
            self.connection, self.held = self.open(paths), b""
            self.limit(self.connection)
            answer = self.converse()
            if answer is not None and not (left and _is_draining(answer)):
                return answer
            self.connection.close()
        raise _closed()

    def converse(self) -> "dict[str, Any] | None":
        """Say it on this connection and return the response; None if the daemon closed without a word."""
        if len(self.request) <= _LONGEST_BEFORE_OPEN:
            self.has_asked = True
            self.send(self.hello + self.request)
            return self.listen(1)
        self.send(self.hello)
        opened = self.listen(0)
        if opened is None or "error" in opened:
            return opened
        self.has_asked = True
        self.send(self.request)
        answer = self.listen(1)
        if answer is None:
            raise _closed()
        return answer

    def open(self, paths: locate.Paths) -> "socket.socket":
        """Return a connection to the daemon."""
        if self.command.start:
            from dragoman import launch

            return launch.ensure_daemon(paths)
        return locate.connect(paths)

    def limit(self, connection: "socket.socket") -> None:
        """Let the next wait end with the deadline."""
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)

    def listen(self, id: int) -> "dict[str, Any] | None":
        """Return the response to the request *id*; None if the daemon closed before it said anything."""
        import json

        heard = False
        while True:
            line = self.line()
            if line is None:
                if heard:
                    raise _closed()
                return None
            heard = True
            message: dict[str, Any] = json.loads(line)
            if "method" in message:
                self.told(message)
            elif message.get("id") == id or "error" in message:
                # An error before ours answers `initialize`, or could not be matched: ours will not come.
                return message

    def line(self) -> bytes | None:
        """Return the next message; None at the end of the stream."""
        assert self.connection is not None
        while True:
            line, ended, rest = self.held.partition(b"\n")
            if ended:
                self.held = rest
                return line
            self.wait(self.connection)
            try:
                data = self.connection.recv(1 << 18)
            except ConnectionError:
                data = b""
            if not data:
                return None
            self.held += data

    def wait(self, connection: "socket.socket") -> None:
        """Wait until there is something to receive; `TimeoutError` if the deadline comes first."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        poll.register(self.rung, select.POLLIN)
        while True:
            left = None if self.deadline is None else self.deadline - time.monotonic()
            ready = dict(poll.poll(None if left is None else 1000 * max(0.0, left)))
            if connection.fileno() in ready:
                return
            if not ready:
                raise TimeoutError
            os.read(self.rung, 1)

    def told(self, message: "dict[str, Any]") -> None:
        """Print a notification if that was asked for; refuse a request: this client answers none."""
        import json

        if "id" in message:
            error = {"code": -32601, "message": "dragoman rpc answers no requests."}
            self.say({"id": message["id"], "error": error})
        elif self.command.notifications:
            told = {"method": message["method"], "params": message.get("params")}
            sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def say(self, message: "dict[str, object]") -> None:
        """Send one more message."""
        self.send(_encode(message))

    def send(self, data: bytes) -> None:
        """Send bytes; a daemon that is gone is noticed by who reads."""
        assert self.connection is not None
        try:
            self.connection.sendall(data)
        except ConnectionError:
            return

    def cancel(self, status: int, kind: str, text: str) -> None:
        """Cancel the request, wait for its one answer, bounded, and finish with *status*."""
        finished = _FinishedError(status, kind, text)
        if self.connection is not None and self.has_asked:
            self.deadline = time.monotonic() + _CANCEL_S
            self.connection.settimeout(_CANCEL_S)
            self.say({"method": "$/cancelRequest", "params": {"id": 1}})
            try:
                answer = self.listen(1) or {}
            except TimeoutError:
                answer = {}
                finished.error["message"] = f"{text} It does not answer that either: dragoman daemon status"
            except _FinishedError:
                answer = {}
            finished.error = answer.get("error") or finished.error
        raise finished


def _is_draining(answer: "dict[str, Any]") -> bool:
    data = answer.get("error", {}).get("data")
    return isinstance(data, dict) and data.get("kind") == "draining"


def _hello(command: _Command) -> bytes:
    initialize: dict[str, object] = {"clientInfo": {"name": "dragoman rpc"}}
    if command.scopes:
        initialize["scopes"] = [*_DEFAULT_SCOPES, *command.scopes]
    return _encode({"id": 0, "method": "initialize", "params": initialize})


def _encode(message: "dict[str, object]") -> bytes:
    import json

    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def _closed() -> _FinishedError:
    return _FinishedError(exits.LOST, "connection_closed", "The daemon closed the connection unanswered.")
