"""The Messages API through the daemon, beside a bare HTTP client, the `anthropic` SDK and LiteLLM's proxy.

All ask one simulator (a process of its own) for streams of 50 deltas, so many at once, each by as many
workers as there are streams; the workers of one contender are one process (`--load`). A call's time is from
its request to its end, as its own client sees it. The contenders take turns in rounds; what is shown is the
median of the rounds, and a ratio is the median of the ratios within each round, so that what else the
machine does falls on both. CPU and memory are those of the process that does the work: the client's for the
bare client and the SDK, the daemon's, the proxy's. On a busy machine compare the CPU.

`dragoman` wants the answer alone; `dragoman, watched` gets every event as `$/progress` too. A call through
the daemon is a stored turn, begun and ended by a commit that is on the disk; the others store nothing. So one
at a time is compared with `bare, two commits`, too: the bare client, which commits a row of SQLite
(`synchronous=FULL`, in the same folder) before the call and another after it. `DRAGOMAN_BENCH_DIR` names the
folder for both, e.g. one in memory to leave the disk out.

The rows `live` are 1000 streams at once of 250 deltas, one every 20 ms, from their start to their end.

    python bench/direct.py                  a table
    python bench/direct.py --json           one JSON object a row
    python bench/direct.py --litellm FILE   the `litellm` program to compare with (default: the one on PATH)
    python bench/direct.py --scale 0.2      a shorter run
    python bench/direct.py --rounds 5       more rounds
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

KEY = "sk-ant-api03-for-the-simulator"
MODEL = "claude-sonnet-5-5"
WORDS = "word " * 50
PER_CONNECTION = 50
"""Calls at once on one connection to the daemon."""
CALLS = {1: 150, 10: 600, 100: 1500, 1000: 3000}
"""Calls of a round, by how many are made at once."""
SLOW = {"anthropic SDK": 0.4, "LiteLLM": 0.1}
"""Share of the calls that slow contenders make."""
LIVE = 1000
LIVE_DELTAS = 250
DEADLINE_S = 180
FOLDER = os.environ.get("DRAGOMAN_BENCH_DIR")
"""Where what is stored is stored; None: the folder for temporary files."""

Call = Callable[[], Awaitable[None]]


# -- the load: one process that calls, and says how long each call took


def body(kind: str) -> bytes:
    """Return the request to the Messages API that all send."""
    asked = {"role": "user", "content": kind}
    return json.dumps({"model": MODEL, "max_tokens": 1000, "stream": True, "messages": [asked]}).encode()


@contextlib.asynccontextmanager
async def http_calls(url: str, kind: str) -> AsyncIterator[Call]:
    """Call with aiohttp and read the stream's bytes, no more."""
    import aiohttp

    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    headers["authorization"] = f"Bearer {KEY}"
    data = body(kind)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as http:

        async def call() -> None:
            async with http.post(f"{url}/v1/messages", data=data, headers=headers) as answer:
                text = await answer.read()
                if answer.status != 200 or b"message_stop" not in text:
                    raise RuntimeError(f"HTTP status {answer.status}: {text[:200]!r}")

        yield call


@contextlib.asynccontextmanager
async def stored_calls(url: str, kind: str) -> AsyncIterator[Call]:
    """Call with aiohttp between two commits, in a thread of their own."""

    def open_database(folder: str) -> sqlite3.Connection:
        database = sqlite3.connect(f"{folder}/bench.db", isolation_level=None)
        for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
            database.execute(f"PRAGMA {setting}")
        database.execute("CREATE TABLE call (at REAL, what TEXT)")
        return database

    def commit(what: str) -> None:
        database.execute("INSERT INTO call VALUES (?, ?)", (time.time(), what))

    with tempfile.TemporaryDirectory(dir=FOLDER) as folder, ThreadPoolExecutor(1) as thread:
        loop = asyncio.get_running_loop()
        database = await loop.run_in_executor(thread, open_database, folder)
        async with http_calls(url, kind) as bare:

            async def call() -> None:
                await loop.run_in_executor(thread, commit, "begun")
                await bare()
                await loop.run_in_executor(thread, commit, "ended")

            yield call
        await loop.run_in_executor(thread, database.close)


@contextlib.asynccontextmanager
async def sdk_calls(url: str, kind: str) -> AsyncIterator[Call]:
    """Call with the official SDK and take every event."""
    import anthropic

    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0) as client:

        async def call() -> None:
            stream = await client.messages.create(
                model=MODEL, max_tokens=1000, stream=True, messages=[{"role": "user", "content": kind}]
            )
            length = 0
            async for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    length += len(event.delta.text)
            if length != len(WORDS):
                raise RuntimeError("not the whole answer")

        yield call


class Wire(asyncio.Protocol):
    """A connection to the daemon that knows which call each response ends."""

    def __init__(self) -> None:
        self.rest = b""
        self.waiting: dict[int, asyncio.Future[None]] = {}
        self.last = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            if line.startswith(b'{"jsonrpc":"2.0","id":'):
                number = int(line[22 : line.index(b",", 22)])
                ended = self.waiting.pop(number, None)
                if ended is not None and not ended.done():
                    if b'"error":' in line[:60]:
                        ended.set_exception(RuntimeError(line.decode()))
                    else:
                        ended.set_result(None)

    def call(self, method: str, params: dict[str, Any]) -> "asyncio.Future[None]":
        self.last += 1
        ended = self.waiting[self.last] = asyncio.get_running_loop().create_future()
        request = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}
        self.transport.write(json.dumps(request).encode() + b"\n")  # type: ignore[attr-defined]
        return ended


@contextlib.asynccontextmanager
async def daemon_calls(path: str, kind: str, concurrent: int, watched: bool) -> AsyncIterator[Call]:
    """Call through the daemon, over as many connections as that needs."""
    loop = asyncio.get_running_loop()
    wires: list[Wire] = []
    for _ in range(-(-concurrent // PER_CONNECTION)):
        _, wire = await loop.create_unix_connection(Wire, path)
        await wire.call("initialize", {"clientInfo": {"name": "bench"}})
        wires.append(wire)
    turn = 0

    async def call() -> None:
        nonlocal turn
        turn += 1
        params: dict[str, Any] = {"prompt": kind, "upstream": "messagesApi", "model": MODEL}
        if watched:
            params["partialResultToken"] = turn
        await wires[turn % len(wires)].call("query/run", params)

    yield call
    for wire in wires:
        wire.transport.close()  # type: ignore[attr-defined]


async def load(kind: str, where: str, reply: str, concurrent: int, calls: int) -> dict[str, Any]:
    """Make *calls* calls, so many at once; return their times in milliseconds and what was used."""
    if kind == "http":
        contender = http_calls(where, reply)
    elif kind == "stored":
        contender = stored_calls(where, reply)
    elif kind == "sdk":
        contender = sdk_calls(where, reply)
    else:
        contender = daemon_calls(where, reply, concurrent, kind == "watched")
    spans: list[float] = []
    errors: list[str] = []
    async with contender as call:
        for _ in range(min(3, concurrent)):
            await call()  # connections, imports
        left = calls

        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                begin = time.perf_counter()
                try:
                    await call()
                except Exception as failed:  # noqa: BLE001
                    errors.append(f"{type(failed).__name__}: {failed}"[:300])
                else:
                    spans.append((time.perf_counter() - begin) * 1000)

        cpu, begin = time.process_time(), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(concurrent)))
        took, cpu = time.perf_counter() - begin, time.process_time() - cpu
    used = {"took_s": took, "cpu_s": cpu, "mib": peak_mib(os.getpid())}
    return {"spans": sorted(spans), "errors": errors, **used}


# -- the processes


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has had, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextlib.contextmanager
def simulator() -> Iterator[tuple[str, int]]:
    """Run the simulator (`fast`: 50 deltas at once, `live`: one every 20 ms); gives its URL and process."""
    from dragoman_sim import Reply, Rule, When
    from dragoman_sim.remote import in_process

    rules = [
        Rule(When(text="fast"), Reply([WORDS], piece_chars=5)),
        Rule(When(text="live"), Reply(["word " * LIVE_DELTAS], piece_chars=5, delay_ms=20)),
    ]
    with in_process(rules) as sim:
        assert sim.pid is not None
        yield sim.url, sim.pid


@contextlib.contextmanager
def daemon(url: str) -> Iterator[tuple[str, int]]:
    """Run a daemon in folders of its own; gives its socket and process."""
    from dragoman.launch import ensure_daemon
    from dragoman.locate import find_paths, peer_pid

    with tempfile.TemporaryDirectory(dir=FOLDER) as home:
        env = {
            "HOME": home,
            "PATH": os.environ.get("PATH", os.defpath),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": KEY,
            "DRAGOMAN_LIMITS__MAX_RUNNING": "1000",
            "DRAGOMAN_LIMITS__MAX_CALLS": "1000",
            "DRAGOMAN_LIMITS__CALLS_AT_START": "1000",
            "DRAGOMAN_LIMITS__QUERIES_PER_MINUTE": "0",
            "DRAGOMAN_LIMITS__QUERIES_PER_HOUR": "0",
            "DRAGOMAN_LIMITS__MAX_QUEUED": "4000",
            "DRAGOMAN_LIMITS__MAX_QUEUED_PER_CLIENT": "1000",
            "DRAGOMAN_DIRECT__MAX_CONNECTIONS": "1000",
        }
        paths = find_paths(env)
        connection = ensure_daemon(paths, env)
        pid = peer_pid(connection)
        try:
            yield paths.socket, pid
        finally:
            os.kill(pid, signal.SIGTERM)
            with contextlib.suppress(OSError):
                while connection.recv(65536):
                    pass
            connection.close()


@contextlib.contextmanager
def litellm(program: str, url: str) -> Iterator[tuple[str, int]]:
    """Run LiteLLM's proxy with one worker; gives its URL and process."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        parameters = {"model": f"anthropic/{MODEL}", "api_base": url, "api_key": KEY}
        config = {
            "model_list": [{"model_name": MODEL, "litellm_params": parameters}],
            "general_settings": {"master_key": KEY},
        }
        file = Path(folder, "config.yaml")
        file.write_text(json.dumps(config))
        env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "NO_PROXY": "*"}
        env["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched
        command = [program, "--config", str(file), "--port", str(port), "--host", "127.0.0.1"]
        with subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            try:
                where = f"http://127.0.0.1:{port}"
                until = time.monotonic() + DEADLINE_S
                while not answers(f"{where}/health/liveliness"):
                    if process.poll() is not None or time.monotonic() > until:
                        raise RuntimeError("LiteLLM's proxy did not start")
                    time.sleep(0.5)  # it tells nobody that it is ready
                yield where, process.pid
            finally:
                os.killpg(process.pid, signal.SIGKILL)


def answers(url: str) -> bool:
    """Tell whether somebody answers there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as got:
            return bool(got.status == 200)
    except OSError:
        return False


def run_load(kind: str, where: str, reply: str, concurrent: int, calls: int) -> dict[str, Any]:
    """Run `--load` in a process of its own and return what it says."""
    command = [sys.executable, __file__, "--load", kind, where, reply, str(concurrent), str(calls)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=DEADLINE_S, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- rounds, and what they say


@dataclass
class Contender:
    """Who is measured, and how."""

    name: str
    kind: str
    where: str
    worker: int | None
    """The process that does the work; None: the client's own."""


@dataclass
class Row:
    """What one contender did in one round."""

    name: str
    concurrent: int
    calls: int
    errors: list[str]
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU of the process that does the work, for each call."""
    cores: float
    sim_cores: float
    """What the simulator used meanwhile."""
    mib: float


def measured(contender: Contender, reply: str, concurrent: int, calls: int, sim: int) -> Row:
    """Let one contender make its calls."""
    worker = contender.worker
    before, sim_before = 0.0 if worker is None else cpu_s(worker), cpu_s(sim)
    found = run_load(contender.kind, contender.where, reply, concurrent, calls)
    spans, done, took = found["spans"] or [0.0], len(found["spans"]), found["took_s"]
    cpu = found["cpu_s"] if worker is None else cpu_s(worker) - before
    return Row(
        name=contender.name,
        concurrent=concurrent,
        calls=done,
        errors=found["errors"],
        per_s=done / took,
        p50_ms=spans[len(spans) // 2],
        p99_ms=spans[min(len(spans) - 1, int(len(spans) * 0.99))],
        cpu_us=cpu / max(1, done) * 1e6,
        cores=cpu / took,
        sim_cores=(cpu_s(sim) - sim_before) / took,
        mib=found["mib"] if worker is None else peak_mib(worker),
    )


def calls_of(name: str, concurrent: int, scale: float) -> int:
    """Return how many calls a contender makes in a round."""
    calls = max(concurrent, int(CALLS[concurrent] * scale * SLOW.get(name, 1.0)))
    return min(calls, 200) if name == "LiteLLM" else calls


def measure(program: str | None, scale: float, sizes: list[int], rounds: int) -> Iterator[list[Row]]:
    """Give the rows of one contender at one size, for each."""
    with simulator() as (url, sim), contextlib.ExitStack() as stack:
        path, ours = stack.enter_context(daemon(url))
        contenders = [
            Contender("bare HTTP client", "http", url, None),
            Contender("bare, two commits", "stored", url, None),
            Contender("dragoman", "plain", path, ours),
            Contender("dragoman, watched", "watched", path, ours),
            Contender("anthropic SDK", "sdk", url, None),
        ]
        if program:
            where, theirs = stack.enter_context(litellm(program, url))
            contenders.append(Contender("LiteLLM", "http", where, theirs))
        for each in contenders:
            run_load(each.kind, each.where, "fast", 1, 5)  # it loads what it needs
        for concurrent in sizes:
            # One connection to a database does not serve many at once: that is what the daemon is for.
            those = [each for each in contenders if concurrent == 1 or each.kind != "stored"]
            found: dict[str, list[Row]] = {each.name: [] for each in those}
            for _ in range(rounds):
                for each in those:
                    calls = calls_of(each.name, concurrent, scale)
                    found[each.name].append(measured(each, "fast", concurrent, calls, sim))
            yield from found.values()
        for name, kind in (("dragoman, live", "plain"), ("dragoman, live, watched", "watched")):
            with daemon(url) as (path, ours):  # a new one, for its memory
                live = Contender(name, kind, path, ours)
                yield [measured(live, "live", LIVE, LIVE, sim)]


def median(rows: list[Row], what: str) -> float:
    """Return the median of one figure over the rounds."""
    return statistics.median(getattr(row, what) for row in rows)


HEADS = ("calls/s", "p50 ms", "p99 ms", "µs CPU", "cores", "sim", "MiB", "errors")
COLUMNS = ("per_s", "p50_ms", "p99_ms", "cpu_us", "cores", "sim_cores", "mib")


def show(rows: list[Row]) -> None:
    """Print one line of the table."""
    figures = [median(rows, what) for what in COLUMNS]
    said = [f"{figure:8,.0f}" if figure >= 100 else f"{figure:8.2f}" for figure in figures]
    errors = sum(len(row.errors) for row in rows)
    print(f"{rows[0].concurrent:7}  {rows[0].name:24}", *said, f"{errors:8}", flush=True)
    for error in sorted({error for row in rows for error in row.errors})[:3]:
        print(f"         {error}")


def compare(table: dict[tuple[str, int], list[Row]]) -> None:
    """Print what the aims are about."""

    def ratio(one: list[Row], other: list[Row], what: str) -> float:
        pairs = zip(one, other, strict=True)
        return statistics.median(getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs)

    def added(one: list[Row], other: list[Row]) -> float:
        return statistics.median(ours.p50_ms - theirs.p50_ms for ours, theirs in zip(one, other, strict=True))

    for concurrent in sorted({size for _, size in table}):
        ours, bare = table.get(("dragoman", concurrent)), table.get(("bare HTTP client", concurrent))
        if ours is None or bare is None:
            continue
        print(f"{concurrent} at once: p50 {added(ours, bare):+.2f} ms over the bare client", end="")
        stored = table.get(("bare, two commits", concurrent))
        if stored is not None:
            print(f", {added(ours, stored):+.2f} ms over one with two commits", end="")
        for name in ("anthropic SDK", "LiteLLM"):
            theirs = table.get((name, concurrent))
            if theirs is not None and any(row.errors for row in theirs):
                print(f"; {name} could not do it all", end="")
            elif theirs is not None:
                said = f"{ratio(ours, theirs, 'per_s'):.1f} × the calls/s of {name} (which adds "
                said += f"{added(theirs, bare):+.2f} ms) at 1/{ratio(theirs, ours, 'cpu_us'):.1f} of its CPU"
                print(f"; {said}", end="")
        print()
    print("\naims: +0.3 ms; 5 × the SDK (8 × at 1000); 30 × LiteLLM at 1/20 of what it adds; live: half a")
    print("core, 150 MB, no error")


def main() -> int:
    """Measure and print; with `--load`, be the load."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer calls")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(CALLS), default=list(CALLS))
    parser.add_argument("--litellm", metavar="FILE", default=shutil.which("litellm"))
    parser.add_argument("--load", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        kind, where, reply, concurrent, calls = arguments.load
        try:
            import uvloop

            factory = uvloop.new_event_loop
        except ImportError:
            factory = None
        with asyncio.Runner(loop_factory=factory) as runner:
            print(json.dumps(runner.run(load(kind, where, reply, int(concurrent), int(calls)))))
        return 0
    table: dict[tuple[str, int], list[Row]] = {}
    if not arguments.json:
        print(f"{'at once':>7}  {'':24}", *(f"{each:>8}" for each in HEADS))
    for rows in measure(arguments.litellm, arguments.scale, arguments.sizes, arguments.rounds):
        table[rows[0].name, rows[0].concurrent] = rows
        if arguments.json:
            print(json.dumps([asdict(row) for row in rows]), flush=True)
        else:
            show(rows)
    if not arguments.json:
        print()
        compare(table)
    ours = [row for (name, _), rows in table.items() if name.startswith("dragoman") for row in rows]
    return 1 if any(row.errors for row in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
