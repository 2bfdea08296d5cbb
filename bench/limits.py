"""One limit shared by many processes: through the daemon, beside the same load by SDK clients on their own.

The simulator (a process of its own) enforces so many requests a minute, as the API does: it answers 429 with
`retry-after` above that. When all clients are ready its bucket is emptied, and a second later they begin,
so that what counts is the rate, over the time from then until the last client has ended. (A daemon that
begins just when somebody else has emptied the bucket finds that out with its first calls, four at once:
those are 429s.) Eight client processes offer ten times the limit, evenly; of each at most so many calls
wait at once, what is offered beyond is left out. Shared: each process speaks to one daemon. Unshared: each
has an `anthropic` client with its usual two retries and knows nothing of the others.

    python bench/limits.py                     a table
    python bench/limits.py --seconds 60        a longer run
    python bench/limits.py --only shared       one of the two
    python bench/limits.py --json              a JSON list

Aims, shared: 429s at most 0.5 % of the calls, at least 90 % of the limit used, nothing sent before
`retry-after`, no client starved (the least served has at least nine tenths of its share).
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from dragoman_sim import Reply, Rule
from dragoman_sim.remote import Remote, in_process
from dragoman_sim.script import Limits, Script

KEY = "sk-ant-api03-for-the-simulator"
MODEL = "claude-sonnet-5-5"
KINDS = ("shared", "unshared")
CLIENTS = 8
OFFERED = 10
"""So many times the limit."""
SETTLE_S = 1.0
"""Between the emptying of the bucket and the begin of the load."""
WAITING = 40
"""Calls of one process that wait at once."""

Call = Callable[[], Awaitable[None]]


# -- one client process


@contextlib.asynccontextmanager
async def shared(home: str) -> AsyncIterator[Call]:
    """Ask the daemon of the home folder *home*."""
    import dragoman.aio

    async with dragoman.aio.connect("bench", env={"HOME": home}, start=False) as claude:

        async def call() -> None:
            await claude.query("limits", upstream="messagesApi", model=MODEL, timeout_s=600)

        yield call


@contextlib.asynccontextmanager
async def unshared(url: str) -> AsyncIterator[Call]:
    """Ask the simulator at *url* with the official SDK."""
    import anthropic

    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=url) as client:

        async def call() -> None:
            messages: Any = [{"role": "user", "content": "limits"}]
            await client.messages.create(model=MODEL, max_tokens=100, messages=messages)

        yield call


async def load(kind: str, where: str, seconds: float, per_second: float) -> dict[str, Any]:
    """Offer calls evenly for *seconds*, once told to; return how many were answered, failed, never begun."""
    counts = {"answered": 0, "failed": 0, "left_out": 0}
    spans: list[float] = []
    errors: list[str] = []
    async with (shared if kind == "shared" else unshared)(where) as call:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

        async def one() -> None:
            begin = time.perf_counter()
            try:
                await call()
            except Exception as failed:  # noqa: BLE001 - whatever it is, it is counted and told
                counts["failed"] += 1
                errors.append(f"{type(failed).__name__}: {failed}"[:200])
            else:
                counts["answered"] += 1
                spans.append(time.perf_counter() - begin)

        loop = asyncio.get_running_loop()
        calls: set[asyncio.Task[None]] = set()
        begin, number = loop.time(), 0
        while loop.time() - begin < seconds:
            number += 1
            if len(calls) < WAITING:
                task = asyncio.create_task(one())
                calls.add(task)
                task.add_done_callback(calls.discard)
            else:
                counts["left_out"] += 1
            # The load is open: the next call is offered at its time, whatever became of this one.
            await asyncio.sleep(max(0.0, begin + number / per_second - loop.time()))
        for task in list(calls):
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    spans.sort()
    return {**counts, "p50_s": spans[len(spans) // 2] if spans else None, "first_error": errors[:1]}


# -- the processes


@contextlib.contextmanager
def daemon(url: str) -> Iterator[str]:
    """Run a daemon whose own limits of turns are out of the way; gives its home folder."""
    from dragoman.launch import ensure_daemon
    from dragoman.locate import find_paths

    with tempfile.TemporaryDirectory(prefix="dg-") as home:
        env = {
            "HOME": home,
            "PATH": os.environ.get("PATH", os.defpath),
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": KEY,
            "DRAGOMAN_LIMITS__QUERIES_PER_MINUTE": "0",
            "DRAGOMAN_LIMITS__QUERIES_PER_HOUR": "0",
            "DRAGOMAN_LIMITS__MAX_RUNNING": "400",
            "DRAGOMAN_BUDGET__HOUR_USD": "0",
        }
        paths = find_paths(env)
        connection = ensure_daemon(paths, env)
        try:
            yield home
        finally:
            connection.close()
            subprocess.run(
                [sys.executable, "-m", "dragoman.cli.main", "daemon", "stop", "--grace", "0", "--kill"],
                env=env, stdout=subprocess.DEVNULL, timeout=60, check=True,
            )  # fmt: skip


def drain(sim: Remote) -> None:
    """Use up what the bucket holds, so that only its rate is left."""
    import http.client
    from urllib.parse import urlsplit

    host = urlsplit(sim.url)
    connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=10)
    question = {"model": MODEL, "max_tokens": 10, "messages": [{"role": "user", "content": "limits"}]}
    left = 1
    while left > 0:
        connection.request("POST", "/v1/messages", json.dumps(question), {"x-api-key": KEY})
        answer = connection.getresponse()
        answer.read()
        left = int(answer.headers["anthropic-ratelimit-requests-remaining"])
    connection.close()


def run(kind: str, sim: Remote, where: str, seconds: float, limit: int) -> dict[str, Any]:
    """Let the clients of one kind have their run; return what they and the simulator say."""
    each = limit / 60 * OFFERED / CLIENTS
    command = [sys.executable, __file__, "--load", kind, where, str(seconds), str(each)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    clients = [subprocess.Popen(command, **pipes) for _ in range(CLIENTS)]
    try:
        for client in clients:
            if client.stdout.readline() != b"ready\n":  # type: ignore[union-attr]
                raise RuntimeError("a client process did not start; what it said is above")
        drain(sim)
        begin = time.perf_counter()
        before = sim.limits()["total"]
        time.sleep(SETTLE_S)
        for client in clients:
            client.stdin.write(b"go\n")  # type: ignore[union-attr]
            client.stdin.flush()  # type: ignore[union-attr]
        found = [json.loads(client.communicate(timeout=seconds + 60)[0]) for client in clients]
        took = time.perf_counter() - begin
        after = sim.limits()["total"]
    finally:
        for client in clients:
            client.kill()
            client.wait()
    seen = {name: after[name] - before[name] for name in after if isinstance(after[name], int)}
    answered = sorted(one["answered"] for one in found)
    share = sum(answered) / CLIENTS
    return {
        "name": kind,
        "calls": seen["requests"],
        "answered": sum(answered),
        "failed": sum(one["failed"] for one in found),
        "left_out": sum(one["left_out"] for one in found),
        "refused": seen["throttled"],
        "refused_share": seen["throttled"] / max(1, seen["requests"]),
        "early": seen["early"],
        "used_share": seen["admitted"] / (limit / 60 * took),
        "least_share": answered[0] / share if share else 0.0,
        "most_share": answered[-1] / share if share else 0.0,
        "first_error": next((one["first_error"][0] for one in found if one["first_error"]), None),
    }


def measure(seconds: float, limit: int, kinds: list[str]) -> list[dict[str, Any]]:
    """Run each of *kinds*, on one simulator."""
    rule = Rule(reply=Reply(["done"]))
    script = Script(rules=[rule], limits=Limits(requests_per_minute=limit))
    with in_process(script) as sim, daemon(sim.url) as home:
        where = {"shared": home, "unshared": sim.url}
        return [run(kind, sim, where[kind], seconds, limit) for kind in kinds]


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'':10} {'calls':>8} {'answered':>9} {'failed':>7} {'429s':>8} {'too early':>10} {'used':>7} "
          f"{'least':>6} {'most':>6}")  # fmt: skip
    for row in rows:
        print(f"{row['name']:10} {row['calls']:8} {row['answered']:9} {row['failed']:7} "
              f"{row['refused_share']:8.2%} {row['early']:10} {row['used_share']:7.1%} "
              f"{row['least_share']:6.2f} {row['most_share']:6.2f}")  # fmt: skip
    print("\naims, shared: 429s <= 0.5 %, used >= 90 %, none too early, least >= 0.9 of its share")


def main() -> int:
    """Measure and print; with `--load`, be one client."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--limit", type=int, default=1200, help="requests a minute")
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        kind, where, seconds, per_second = arguments.load
        print(json.dumps(asyncio.run(load(kind, where, float(seconds), float(per_second)))))
        return 0
    rows = measure(arguments.seconds, arguments.limit, [arguments.only] if arguments.only else list(KINDS))
    if arguments.json:
        print(json.dumps(rows))
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
