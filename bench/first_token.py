"""Time to the first token: through the daemon (cold, warm, warm for any folder), bare CLI, bare Python SDK.

    python bench/first_token.py [--rounds 8] [--json]

All get their answer from the same simulator; the rounds are interleaved, so that whatever else the machine
does falls on all. Cold ways start a Claude Code process for the question. Warm ways find one that has been
started and initialised and has answered nothing yet, and wait for it to be ready before the clock starts.
What counts is the ratio.
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
from dragoman_protocol.stream import TextDelta
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
        (folder / "work").mkdir()
        env = environment(folder / "home", sim.url)
        cold = started(stack, environment(folder / "cold", sim.url), max_spare=0)
        fixed = started(stack, environment(folder / "fixed", sim.url), max_spare=1)
        generic = started(stack, environment(folder / "generic", sim.url), max_spare=2)
        reuse = started(stack, environment(folder / "reuse", sim.url), max_spare=1, reuse="on")
        sdk = stack.enter_context(WarmSdk(env, folder / "work"))
        ways: dict[str, Callable[[], float]] = {
            "daemon": lambda: through_daemon(cold, folder / "work"),
            "bare CLI": lambda: bare_cli(env, folder / "work"),
            "bare SDK": lambda: bare_sdk(env, folder / "work"),
            "daemon, warm": lambda: warm(fixed, folder / "work"),
            "daemon, any folder": lambda: anywhere(generic, folder),
            "daemon, reused": lambda: reused(reuse, folder / "work"),
            "SDK, warm": sdk.first_token,
        }
        through_daemon(fixed, folder / "work")
        through_daemon(generic, folder / "work")
        through_daemon(reuse, folder / "work")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for round_ in range(given.rounds + 1):
            for name, way in ways.items():
                seconds = way()
                if round_:  # the first is for the page cache
                    times[name].append(seconds)
        rates = {name: rate(client, folder / "work") for name, client in (("new", cold), ("reused", reuse))}
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
    medians = {name: statistics.median(values) * 1000 for name, values in times.items()}
    p95 = {name: statistics.quantiles(values, n=20)[-1] * 1000 for name, values in times.items()}
    result = {
        "rounds": rounds,
        "firstTokenMs": {name: round(value, 1) for name, value in medians.items()},
        "firstTokenP95Ms": {name: round(value, 1) for name, value in p95.items()},
        "daemonToCli": round(medians["daemon"] / medians["bare CLI"], 2),
        "daemonToSdk": round(medians["daemon"] / medians["bare SDK"], 2),
        "warmToCli": round(medians["daemon, warm"] / medians["bare CLI"], 2),
        "anyFolderToCli": round(medians["daemon, any folder"] / medians["bare CLI"], 2),
        "reusedToCli": round(medians["daemon, reused"] / medians["bare CLI"], 3),
        "conversationsPerSecond": {name: round(value, 1) for name, value in rates.items()},
        "reusedToNew": round(rates["reused"] / rates["new"], 1),
        "warmAddedMs": round(medians["daemon, warm"] - medians["SDK, warm"], 1),
        "warmAddedP95Ms": round(p95["daemon, warm"] - p95["SDK, warm"], 1),
    }
    if as_json:
        print(json.dumps(result))
        return
    for name, values in times.items():
        low, high = min(values) * 1000, max(values) * 1000
        print(f"{name:18} median {medians[name]:6.0f} ms   ({low:.0f} to {high:.0f})")
    print(f"daemon : CLI {result['daemonToCli']}   daemon : SDK {result['daemonToSdk']}   (all cold)")
    print(f"warm : CLI {result['warmToCli']}   any folder : CLI {result['anyFolderToCli']}")
    print(f"reused process : CLI {result['reusedToCli']}")
    print(f"fresh conversations a second: {result['conversationsPerSecond']}, {result['reusedToNew']} times")
    print(f"warm daemon over warm SDK: {result['warmAddedMs']} ms, p95 {result['warmAddedP95Ms']} ms")


def environment(home: Path, url: str) -> dict[str, str]:
    home.mkdir(mode=0o700)
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


def started(stack: ExitStack, env: dict[str, str], *, max_spare: int, reuse: str = "off") -> dragoman.Client:
    env = {**env, "DRAGOMAN_POOL__MAX_SPARE": str(max_spare), "DRAGOMAN_POOL__REUSE": reuse}
    return stack.enter_context(dragoman.connect("bench", env=env, scopes=["query", "admin"]))


def warm(client: dragoman.Client, work: Path) -> float:
    wait_for_spares(client, 1)
    return through_daemon(client, work)


def anywhere(client: dragoman.Client, folder: Path) -> float:
    wait_for_spares(client, 2)
    return through_daemon(client, Path(tempfile.mkdtemp(dir=folder)))


def reused(client: dragoman.Client, work: Path) -> float:
    through_daemon(client, work)  # so that there is a process that has worked for this client just now
    return through_daemon(client, work)


def wait_for_spares(client: dragoman.Client, count: int) -> None:
    """Wait until so many spares are ready, and until what was ended meanwhile is out of the way."""
    until = time.monotonic() + SPARE_S
    while sum(spare.state == "ready" for spare in client.daemon_pool().spares) < count:
        if time.monotonic() > until:
            raise SystemExit(f"there were no {count} spares after {SPARE_S:.0f} s: {client.daemon_pool()}")
        time.sleep(0.05)
    time.sleep(0.3)


class WarmSdk:
    """A program with the bare SDK, which connects ahead when told to, and asks when told to."""

    CODE = """
import asyncio, sys, time
from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient
async def main():
    options = ClaudeAgentOptions(cwd={work!r}, include_partial_messages=True, setting_sources=["user"])
    while sys.stdin.readline():
        async with ClaudeSDKClient(options) as client:
            await asyncio.sleep(0.3)
            began = time.perf_counter()
            first = None
            await client.query({prompt!r})
            async for message in client.receive_response():
                event = getattr(message, "event", None)
                if first is None and event and event.get("delta", {{}}).get("type") == "text_delta":
                    first = time.perf_counter() - began
        print(first, flush=True)
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

    def first_token(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


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
