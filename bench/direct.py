"""The Messages API through the daemon, beside a bare HTTP client, the `anthropic` SDK and LiteLLM's proxy.

All ask one simulator (a process of its own) for streams of 50 deltas, so many at once, each by as many
workers as there are streams; the workers of one contender are one process (`--load`). A call's time is from
its request to its end, as its own client sees it. CPU and memory are those of the process that does the
work: the client's for the bare client and the SDK, the daemon's, the proxy's. On a busy machine compare the
CPU: times then say how many others want the cores.

`dragoman` wants the answer alone; `dragoman, watched` gets every event as `$/progress` too. A call through
the daemon is a stored turn (begun and ended in the database); the others store nothing. The rows `live` are
1000 streams of one delta every 20 ms.

    python bench/direct.py                  a table
    python bench/direct.py --json           one JSON object
    python bench/direct.py --litellm FILE   the `litellm` program to compare with (default: the one on PATH)
    python bench/direct.py --scale 0.2      a shorter run
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

KEY = "sk-ant-api03-for-the-simulator"
MODEL = "claude-sonnet-5-5"
WORDS = "word " * 50
PER_CONNECTION = 50
"""Calls at once on one connection to the daemon."""
CALLS = {1: 200, 10: 600, 100: 1500, 1000: 3000}
SLOW = {"anthropic SDK": 0.4, "LiteLLM": 0.1}
"""Share of the calls that slow contenders make."""
LIVE = 1000
DEADLINE_S = 120

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
def simulator() -> Iterator[str]:
    """Run the simulator: `fast` sends 50 deltas at once, `live` one every 20 ms."""
    from dragoman_sim import Reply, Rule, When
    from dragoman_sim.remote import in_process

    rules = [
        Rule(When(text="fast"), Reply([WORDS], piece_chars=5)),
        Rule(When(text="live"), Reply([WORDS], piece_chars=5, delay_ms=20)),
    ]
    with in_process(rules) as sim:
        yield sim.url


@contextlib.contextmanager
def daemon(url: str) -> Iterator[tuple[str, int]]:
    """Run a daemon in folders of its own; gives its socket and process."""
    from dragoman.launch import ensure_daemon
    from dragoman.locate import find_paths, peer_pid

    with tempfile.TemporaryDirectory() as home:
        env = {
            "HOME": home,
            "PATH": os.environ.get("PATH", os.defpath),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": KEY,
            "DRAGOMAN_LIMITS__MAX_RUNNING": "1000",
            "DRAGOMAN_LIMITS__MAX_CALLS": "1000",
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
                    time.sleep(0.5)
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


def row(
    name: str, concurrent: int, found: dict[str, Any], worker: int | None, before: float
) -> dict[str, Any]:
    """Return one row of the table."""
    spans = found["spans"]
    done = max(1, len(spans))
    cpu = found["cpu_s"] if worker is None else cpu_s(worker) - before
    return {
        "name": name,
        "concurrent": concurrent,
        "calls": len(spans),
        "errors": len(found["errors"]),
        "first_error": found["errors"][0] if found["errors"] else None,
        "per_s": round(len(spans) / found["took_s"], 1),
        "p50_ms": round(spans[done // 2], 2) if spans else None,
        "p99_ms": round(spans[min(done - 1, int(done * 0.99))], 2) if spans else None,
        "cpu_us_per_call": round(cpu / done * 1e6),
        "cores": round(cpu / found["took_s"], 2),
        "mib": round(found["mib"] if worker is None else peak_mib(worker), 1),
    }


def measure(program: str | None, scale: float, sizes: list[int]) -> list[dict[str, Any]]:
    """Let the contenders take turns at each size."""
    rows: list[dict[str, Any]] = []
    with simulator() as url, contextlib.ExitStack() as stack:
        path, ours = stack.enter_context(daemon(url))
        contenders: list[tuple[str, str, str, int | None]] = [
            ("bare HTTP client", "http", url, None),
            ("dragoman", "plain", path, ours),
            ("dragoman, watched", "watched", path, ours),
            ("anthropic SDK", "sdk", url, None),
        ]
        if program:
            where, theirs = stack.enter_context(litellm(program, url))
            contenders.append(("LiteLLM", "http", where, theirs))
        for concurrent in sizes:
            for name, kind, where, worker in contenders:
                calls = max(concurrent, int(CALLS[concurrent] * scale * SLOW.get(name, 1.0)))
                if name == "LiteLLM":
                    calls = max(20, min(calls, int(400 * scale)), min(concurrent, 1000))
                before = 0.0 if worker is None else cpu_s(worker)
                found = run_load(kind, where, "fast", concurrent, calls)
                rows.append(row(name, concurrent, found, worker, before))
                print(json.dumps(rows[-1]), file=sys.stderr)
        for name, kind in (("dragoman, live", "plain"), ("dragoman, live, watched", "watched")):
            path, ours = stack.enter_context(daemon(url))
            before = cpu_s(ours)
            found = run_load(kind, path, "live", LIVE, LIVE * 3)
            rows.append(row(name, LIVE, found, ours, before))
            print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table, and what the aims are about."""
    heads = ("calls/s", "p50 ms", "p99 ms", "µs CPU", "cores", "MiB", "errors")
    print(f"{'at once':>7}  {'':24}", *(f"{each:>8}" for each in heads))
    for each in rows:
        figures = (
            f"{each['per_s']:8,.0f} {each['p50_ms'] or 0:8.2f} {each['p99_ms'] or 0:8.2f} "
            f"{each['cpu_us_per_call']:8,} {each['cores']:8.2f} {each['mib']:8.0f} {each['errors']:8}"
        )
        print(f"{each['concurrent']:7}  {each['name']:24} {figures}")
    print()
    by = {(each["name"], each["concurrent"]): each for each in rows}
    for concurrent in sorted({each["concurrent"] for each in rows}):
        bare, ours = by.get(("bare HTTP client", concurrent)), by.get(("dragoman", concurrent))
        if bare is None or ours is None:
            continue
        said = [f"{concurrent} at once: p50 {ours['p50_ms'] - bare['p50_ms']:+.2f} ms over the bare client"]
        for other in ("anthropic SDK", "LiteLLM"):
            theirs = by.get((other, concurrent))
            if theirs and theirs["p50_ms"]:
                said.append(
                    f"{ours['per_s'] / theirs['per_s']:.1f} × the calls/s of {other} "
                    f"({theirs['p50_ms'] - bare['p50_ms']:+.2f} ms) at "
                    f"1/{theirs['cpu_us_per_call'] / max(1, ours['cpu_us_per_call']):.1f} of its CPU"
                )
        print("; ".join(said))
    print("\naims: +0.3 ms; 5 × the SDK (8 × at 1000); 30 × LiteLLM; live: half a core, 150 MB, no error")


def main() -> int:
    """Measure and print; with `--load`, be the load."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer calls")
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
    rows = measure(arguments.litellm, arguments.scale, arguments.sizes)
    if arguments.json:
        print(json.dumps(rows))
    else:
        show(rows)
    ours = [each for each in rows if each["name"].startswith("dragoman")]
    return 1 if any(each["errors"] for each in ours) else 0


if __name__ == "__main__":
    sys.exit(main())
