"""What a call costs: `auth/status` through the daemon, against a bare echo (the floor) and against pygls.

Each server is a process of its own, asked over a unix socket by one blocking client, the same for all. They
take turns, so that whatever else the machine does strikes all alike. For round trips client and server share
one core: on which core the kernel wakes a server makes a difference of 40 µs, more than any call costs, and
depends on what the process did before. Pipelined, they have a core each. Compare the ratios; absolute figures
are the machine's.

    python bench/rpc.py            a table
    python bench/rpc.py --json     one JSON object
    python bench/rpc.py --check    exit 1 where an aim is missed
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from dragoman_protocol.auth import AuthStatusResult

TIMEOUT_S = 30.0
METHOD = "auth/status"
WINDOW = 500
"""Pipelined: up to two windows of calls are on their way."""
AIMS = {"p50": 2.0, "pipelined": 1 / 5, "over_pygls": 10.0}
"""At most so many times the floor's p50; at least this share of its throughput; so many times pygls's."""


# -- the client


class Caller:
    """A blocking client that writes requests and counts answers."""

    def __init__(self, connection: socket.socket, framing: str, server_pid: int) -> None:
        connection.settimeout(TIMEOUT_S)
        self.connection = connection
        self.server_pid = server_pid
        self.mark = b"\n" if framing == "lines" else b"Content-Length"
        self.framing = framing
        self.begun = 0
        self.tail = b""
        self.last_id = 0
        opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"capabilities": {}}}
        self.connection.sendall(self.frame(json.dumps(opening).encode()))
        self.take(1)
        self.settle()

    def frame(self, message: bytes) -> bytes:
        if self.framing == "lines":
            return message + b"\n"
        return b"Content-Length: %d\r\n\r\n%b" % (len(message), message)

    def request(self) -> bytes:
        self.last_id += 1
        return self.frame(b'{"jsonrpc":"2.0","id":%d,"method":"%b"}' % (self.last_id, METHOD.encode()))

    def take(self, answers: int) -> None:
        """Read until *answers* more have begun; what comes beside counts for the next time."""
        while self.begun < answers:
            data = self.connection.recv(1 << 18)
            if not data:
                raise ConnectionError("the server closed the connection")
            cut = self.tail[1 - len(self.mark) :] if len(self.mark) > 1 else b""
            self.begun += (cut + data).count(self.mark)
            self.tail = self.tail[-4096:] + data
        self.begun -= answers

    def settle(self) -> None:
        """Read the rest of the last answer, so that nothing is on its way."""
        while not self.is_whole(self.tail):
            self.tail += self.connection.recv(1 << 18)

    def is_whole(self, data: bytes) -> bool:
        """Tell whether the last answer in *data* is there to its end."""
        if self.framing == "lines":
            return data.endswith(b"\n")
        head, ended, body = data[data.rindex(self.mark) :].partition(b"\r\n\r\n")
        return bool(ended) and len(body) == int(head.split(b"\r\n")[0].split(b":")[1])

    def round_trips(self, count: int) -> list[float]:
        """Return the microseconds of each of *count* calls, one after another."""
        spans = []
        requests = [self.request() for _ in range(count)]
        sendall, recv, now = self.connection.sendall, self.connection.recv, time.perf_counter_ns
        is_whole = self.is_whole
        for request in requests:
            begin = now()
            sendall(request)
            data = recv(65536)
            while not is_whole(data):
                data += recv(65536)
            spans.append((now() - begin) / 1000)
        return spans

    def pipelined(self, count: int, window: int) -> float:
        """Return calls per second with up to two windows of calls on their way."""
        windows = [b"".join(self.request() for _ in range(window)) for _ in range(count // window)]
        begin = time.perf_counter()
        self.connection.sendall(windows[0])
        for following in windows[1:]:
            self.connection.sendall(following)
            self.take(window)
        self.take(window)
        self.settle()
        return count / (time.perf_counter() - begin)


# -- the servers


def serve_floor(fd: int) -> None:
    """Serve the bare echo: one asyncio protocol, one msgspec decoder and encoder, nothing checked."""
    import asyncio

    import msgspec
    from dragoman_protocol.auth import AuthStatusResult

    class Request(msgspec.Struct):
        id: int
        method: str
        params: msgspec.Raw = msgspec.Raw(b"{}")

    class Response(msgspec.Struct):
        jsonrpc: str
        id: int
        result: AuthStatusResult

    decode = msgspec.json.Decoder(Request).decode
    encode = msgspec.json.Encoder().encode
    result = auth_status()

    class Echo(asyncio.Protocol):
        def __init__(self, over: asyncio.Future[None]) -> None:
            self.over = over

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.rest = b""

        def data_received(self, data: bytes) -> None:
            lines = (self.rest + data).split(b"\n")
            self.rest = lines.pop()
            replies = [encode(Response("2.0", decode(line).id, result)) for line in lines]
            self.transport.write(b"\n".join(replies) + b"\n" if replies else b"")  # type: ignore[attr-defined]

        def connection_lost(self, exc: Exception | None) -> None:
            self.over.set_result(None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        await loop.connect_accepted_socket(lambda: Echo(over), socket.socket(fileno=fd))
        await over

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main())


def serve_pygls(fd: int) -> None:
    """Serve with pygls, over its own stdio."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    from pygls.lsp.server import LanguageServer

    logging.disable(logging.ERROR)
    server = LanguageServer("bench", "1")
    result = json.loads(_encoded_status())

    @server.feature(METHOD)
    def status(_server: LanguageServer, _params: object) -> object:
        return result

    server.start_io(os.fdopen(fd, "rb"), os.fdopen(os.dup(fd), "wb"))


def auth_status() -> "AuthStatusResult":
    """Return what the daemon answers without a credential."""
    from dragoman_protocol.auth import AuthStatusResult

    return AuthStatusResult(
        authenticated=False,
        source="none",
        provider="anthropic",
        token_present=False,
        next_step="Set ANTHROPIC_API_KEY where the daemon is started and run `dragoman daemon restart`, "
        "or log in once with `claude`.",
    )


def _encoded_status() -> bytes:
    import msgspec

    return msgspec.json.encode(auth_status())


def _loop_factory() -> "Callable[[], asyncio.AbstractEventLoop] | None":
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextlib.contextmanager
def child(kind: str, framing: str) -> Iterator[Caller]:
    """Start the server *kind* of this file on one end of a socket pair."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, __file__, "--serve", kind, "--fd", str(theirs.fileno())]
    with (
        ours,
        subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        ) as process,
    ):
        theirs.close()
        try:
            yield Caller(ours, framing, process.pid)
        finally:
            ours.close()
            try:
                process.wait(TIMEOUT_S)
            finally:
                process.kill()


@contextlib.contextmanager
def daemon(framings: list[str]) -> Iterator[list[Caller]]:
    """Start the real daemon in folders of its own, with a connection for each of *framings*."""
    from dragoman.launch import ensure_daemon
    from dragoman.locate import connect, find_paths, peer_pid

    with tempfile.TemporaryDirectory() as home:
        env = {"HOME": home, "PATH": os.environ.get("PATH", os.defpath)}
        paths = find_paths(env)
        connections = [ensure_daemon(paths, env)]
        pid = peer_pid(connections[0])
        try:
            connections += [connect(paths) for _ in framings[1:]]
            yield [Caller(made, framing, pid) for made, framing in zip(connections, framings, strict=True)]
        finally:
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(OSError):
                while connections[0].recv(65536):
                    pass
            for made in connections:
                made.close()


# -- the measurement


@dataclass
class Figures:
    """What was measured of one server."""

    spans_us: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Return the row of the table: microseconds, calls per second (in the least disturbed round)."""
        spans = sorted(self.spans_us)
        return {
            "p50_us": round(spans[len(spans) // 2], 1),
            "p99_us": round(spans[int(len(spans) * 0.99)], 1),
            "pipelined_per_s": round(max(self.rates)),
        }


def measure(rounds: int, scale: float) -> dict[str, dict[str, float]]:
    """Ask all servers in turns and return one row for each."""
    counts = {"pygls": (300, 1_000)}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    pin(os.getpid(), {cores[0]})
    with (
        child("floor", "lines") as floor,
        daemon(["lines", "headers"]) as (lines, headers),
        child("pygls", "headers") as pygls,
    ):
        callers = {"floor": floor, "dragoman": lines, "dragoman (headers)": headers, "pygls": pygls}
        figures = {name: Figures() for name in callers}
        for round_ in range(-1, rounds):
            for name, caller in callers.items():
                single, many = counts.get(name, (3_000, 40_000))
                pin(caller.server_pid, {cores[0]})
                spans = caller.round_trips(max(100, int(single * scale)))
                pin(caller.server_pid, {cores[-1]})
                rate = caller.pipelined(max(1_000, int(many * scale)), WINDOW)
                if round_ >= 0:  # the first one warms up
                    figures[name].spans_us += spans
                    figures[name].rates.append(rate)
        return {name: figure.row() for name, figure in figures.items()}


def pin(pid: int, cores: set[int]) -> None:
    """Keep every thread of a process on *cores*, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), cores)


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return what the aims are about."""
    floor, ours, pygls = rows["floor"], rows["dragoman"], rows["pygls"]
    return {
        "p50": round(ours["p50_us"] / floor["p50_us"], 2),
        "p99": round(ours["p99_us"] / floor["p99_us"], 2),
        "pipelined": round(ours["pipelined_per_s"] / floor["pipelined_per_s"], 3),
        "over_pygls": round(ours["pipelined_per_s"] / pygls["pipelined_per_s"], 1),
    }


def missed(found: dict[str, float]) -> list[str]:
    """Return the aims that were missed."""
    reached = {
        "p50": found["p50"] <= AIMS["p50"],
        "pipelined": found["pipelined"] >= AIMS["pipelined"],
        "over_pygls": found["over_pygls"] >= AIMS["over_pygls"],
    }
    return [name for name, well in reached.items() if not well]


def show(rows: dict[str, dict[str, float]], found: dict[str, float]) -> None:
    """Print the table."""
    print(f"{METHOD:20} {'p50 µs':>8} {'p99 µs':>8} {'pipelined/s':>12}")
    for name, row in rows.items():
        print(f"{name:20} {row['p50_us']:8.1f} {row['p99_us']:8.1f} {row['pipelined_per_s']:12,.0f}")
    print(
        f"\nround trip p50 {found['p50']} × the floor (aim ≤ {AIMS['p50']:g}), "
        f"p99 {found['p99']} ×; pipelined {found['pipelined']} × the floor (aim ≥ {AIMS['pipelined']:g}), "
        f"{found['over_pygls']} × pygls (aim ≥ {AIMS['over_pygls']:g})"
    )


def main() -> int:
    """Measure and print; with `--serve`, be one of the servers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer calls in a round")
    parser.add_argument("--serve", choices=["floor", "pygls"], help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        {"floor": serve_floor, "pygls": serve_pygls}[arguments.serve](arguments.fd)
        return 0
    rows = measure(arguments.rounds, arguments.scale)
    found = ratios(rows)
    if arguments.json:
        print(json.dumps({"rows": rows, "ratios": found, "missed": missed(found)}))
    else:
        show(rows, found)
    return 1 if arguments.check and missed(found) else 0


if __name__ == "__main__":
    sys.exit(main())
