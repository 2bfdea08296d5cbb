"""Time to the first token: through the daemon (cold, warm, warm for any folder), bare CLI, bare Python SDK.

    python bench/first_token.py [--rounds 8] [--json]

All get their answer from the same simulator; the rounds are interleaved, so that whatever else the machine
does falls on all, and each begins when what the ones before have set going (new spares) is done. Cold ways
start a Claude Code process for the question. Warm ways find one that has been started and initialised. The
bare SDK's client is asked twice: its first question is what a warm process is without the daemon, its second
is compared with the second message into an open stream. What counts is the ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import dragoman
from dragoman_protocol.stream import TextDelta, TurnCompleted
from dragoman_sim import remote

KEY = "sk-ant-api03-bench"
PROMPT = "Say something."
SPARE_S = 30.0
RATE_S = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dragoman-bench-")))
        sim = stack.enter_context(remote.in_process([]))
        work = folder / "work"
        work.mkdir()
        env = environment(folder / "home", sim.url)
        cold = started(stack, environment(folder / "cold", sim.url), max_spare=0)
        fixed = started(stack, environment(folder / "fixed", sim.url), max_spare=1)
        generic = started(stack, environment(folder / "generic", sim.url), max_spare=2)
        reuse = started(stack, environment(folder / "reuse", sim.url), max_spare=0, reuse="on")
        sdk = stack.enter_context(WarmSdk(env, work))
        times: dict[str, list[float]] = {}
        ways: list[Callable[[], dict[str, float]]] = [
            lambda: {"CLI, cold": bare_cli(env, work)},
            lambda: {"SDK, cold": bare_sdk(env, work)},
            lambda: {"daemon, cold": through_daemon(cold, work)},
            lambda: warm(fixed, work),
            lambda: anywhere(generic, folder),
            lambda: reused(reuse, work),
            sdk.first_tokens,
        ]
        for client in (fixed, generic, reuse):
            through_daemon(client, work)
        for round_ in range(given.rounds + 1):
            for way in ways:
                for name, seconds in way().items():
                    if round_:  # the first is for the page cache
                        times.setdefault(name, []).append(seconds)
        rates = {"new": rate(cold, work), "pool": rate(fixed, work), "reused": rate(reuse, work)}
        for client in (cold, fixed, generic, reuse):
            client.daemon_stop(grace_ms=0)
    report(times, rates, given.rounds, as_json=given.as_json)
    return 0


def rate(client: dragoman.Client, work: Path) -> float:
    """Return how many fresh conversations of one turn a second one client gets, one after the other."""
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < RATE_S:
        client.query(PROMPT, cwd=work)
        count += 1
    return count / (time.perf_counter() - began)


def report(times: dict[str, list[float]], rates: dict[str, float], rounds: int, *, as_json: bool) -> None:
    p50 = {name: statistics.median(values) * 1000 for name, values in times.items()}
    p95 = {
        name: statistics.quantiles(values, n=20, method="inclusive")[-1] * 1000
        for name, values in times.items()
    }
    ratios = {
        "fixed folder : CLI, cold": (p50["daemon, warm"] / p50["CLI, cold"], "at most 0.10"),
        "any folder : CLI, cold": (p50["daemon, any folder"] / p50["CLI, cold"], "at most 0.50"),
        "reused process : CLI, cold": (p50["daemon, reused"] / p50["CLI, cold"], ""),
        "daemon : SDK, both cold": (p50["daemon, cold"] / p50["SDK, cold"], ""),
        "conversations a second, pool : new": (rates["pool"] / rates["new"], ""),
        "conversations a second, reused : new": (rates["reused"] / rates["new"], "at least 6"),
    }
    added = {
        "warm daemon over warm SDK, first question": ("daemon, warm", "SDK, warm"),
        "open stream over the SDK's client, second question": ("daemon, stream's second", "SDK, second"),
    }
    if as_json:
        result = {
            "rounds": rounds,
            "firstTokenMs": {name: round(value, 1) for name, value in p50.items()},
            "firstTokenP95Ms": {name: round(value, 1) for name, value in p95.items()},
            "conversationsPerSecond": {name: round(value, 1) for name, value in rates.items()},
            "ratios": {name: round(value, 3) for name, (value, _) in ratios.items()},
            "addedMs": {name: round(p50[a] - p50[b], 1) for name, (a, b) in added.items()},
            "addedP95Ms": {name: round(p95[a] - p95[b], 1) for name, (a, b) in added.items()},
        }
        print(json.dumps(result))
        return
    for name, values in times.items():
        low = min(values) * 1000
        print(f"{name:24} median {p50[name]:6.0f} ms   p95 {p95[name]:6.0f}   least {low:6.0f}")
    for name, value in rates.items():
        print(f"{name:24} {value:6.1f} fresh conversations a second")
    for name, (ratio, aim) in ratios.items():
        print(f"{name:52} {ratio:8.3f}   {aim and f'(aim: {aim})'}")
    for name, (a, b) in added.items():
        print(f"{name:52} {p50[a] - p50[b]:+8.1f} ms, p95 {p95[a] - p95[b]:+.1f}   (aim: p95 at most 10)")


def environment(home: Path, url: str) -> dict[str, str]:
    home.mkdir(mode=0o700)
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "DRAGOMAN_LIMITS__QUERIES_PER_MINUTE": "0",
        "DRAGOMAN_LIMITS__QUERIES_PER_HOUR": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def started(stack: ExitStack, env: dict[str, str], *, max_spare: int, reuse: str = "off") -> dragoman.Client:
    env = {**env, "DRAGOMAN_POOL__MAX_SPARE": str(max_spare), "DRAGOMAN_POOL__REUSE": reuse}
    return stack.enter_context(dragoman.connect("bench", env=env, scopes=["query", "admin"]))


def warm(client: dragoman.Client, work: Path) -> dict[str, float]:
    """Measure a query that finds a spare, and the second message into a stream; leave a spare behind."""
    wait_for_spares(client, 1)
    first = through_daemon(client, work)
    stream = client.stream_open(cwd=str(work))
    events = iter(client.events(stream.session_id, stream.cursor))
    for _ in range(2):
        began = time.perf_counter()
        client.stream_send(session_id=stream.session_id, prompt=PROMPT)
        second = 0.0
        for event in events:
            if isinstance(event, TextDelta) and not second:
                second = time.perf_counter() - began
            if isinstance(event, TurnCompleted):
                break
    client.stream_close(session_id=stream.session_id)
    wait_for_spares(client, 1)
    return {"daemon, warm": first, "daemon, stream's second": second}


def anywhere(client: dragoman.Client, folder: Path) -> dict[str, float]:
    wait_for_spares(client, 2)
    seconds = through_daemon(client, Path(tempfile.mkdtemp(dir=folder)))
    wait_for_spares(client, 2)
    return {"daemon, any folder": seconds}


def reused(client: dragoman.Client, work: Path) -> dict[str, float]:
    through_daemon(client, work)  # so that there is a process that has worked for this client just now
    time.sleep(0.3)
    return {"daemon, reused": through_daemon(client, work)}


def wait_for_spares(client: dragoman.Client, count: int) -> None:
    """Wait until so many spares are ready, and until what was ended meanwhile is out of the way."""
    until = time.monotonic() + SPARE_S
    while sum(spare.state == "ready" for spare in client.daemon_pool().spares) < count:
        if time.monotonic() > until:
            raise SystemExit(f"there were no {count} spares after {SPARE_S:.0f} s: {client.daemon_pool()}")
        time.sleep(0.05)
    time.sleep(0.3)


class WarmSdk:
    """A program with the bare SDK, which connects ahead when told to, and then asks twice."""

    CODE = """
import asyncio, sys, time
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient
async def main():
    options = ClaudeAgentOptions(cwd={work!r}, include_partial_messages=True, setting_sources=["user"])
    while sys.stdin.readline():
        async with ClaudeSDKClient(options) as client:
            await asyncio.sleep(0.3)
            found = []
            for _ in range(2):
                began = time.perf_counter()
                first = None
                await client.query({prompt!r})
                async for message in client.receive_response():
                    event = getattr(message, "event", None)
                    if first is None and event and event.get("delta", {{}}).get("type") == "text_delta":
                        first = time.perf_counter() - began
                found.append(first)
        print(*found, flush=True)
asyncio.run(main())
"""

    def __init__(self, env: dict[str, str], work: Path) -> None:
        code = self.CODE.format(work=str(work), prompt=PROMPT)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "WarmSdk":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=30)

    def first_tokens(self) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        first, second = self.process.stdout.readline().split()
        return {"SDK, warm": float(first), "SDK, second": float(second)}


def through_daemon(client: dragoman.Client, work: Path) -> float:
    began = time.perf_counter()
    first = 0.0
    with client.stream(PROMPT, cwd=work) as events:
        for event in events:
            if isinstance(event, TextDelta) and not first:
                first = time.perf_counter() - began
    return first


def bare_cli(env: dict[str, str], work: Path) -> float:
    from claude_agent_sdk import __file__ as sdk

    command = [
        str(Path(sdk).parent / "_bundled" / "claude"),
        *("-p", PROMPT, "--output-format", "stream-json", "--verbose", "--include-partial-messages"),
        *("--setting-sources", "user", "--strict-mcp-config"),
    ]
    began = time.perf_counter()
    first = 0.0
    with subprocess.Popen(
        command, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b'"text_delta"' in line and not first:
                first = time.perf_counter() - began
    return first


def bare_sdk(env: dict[str, str], work: Path) -> float:
    code = f"""
import asyncio, time
from claude_agent_sdk import ClaudeAgentOptions, query
async def main():
    options = ClaudeAgentOptions(cwd={str(work)!r}, include_partial_messages=True, setting_sources=["user"])
    began = time.perf_counter()
    first = None
    async for message in query(prompt={PROMPT!r}, options=options):
        event = getattr(message, "event", None)
        if first is None and event and event.get("delta", {{}}).get("type") == "text_delta":
            first = time.perf_counter() - began
    print(first)
asyncio.run(main())
"""
    # The import of the SDK is not counted: a program that uses it has it loaded.
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return float(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
