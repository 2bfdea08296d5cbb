"""Time to the first token, cold: through the daemon, from the bare CLI, from the bare Python SDK.

    python bench/first_token.py [--rounds 8] [--json]

All three start a Claude Code process for the question and get their answer from the same simulator; the
rounds are interleaved, so that whatever else the machine does falls on all. What counts is the ratio.
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
from pathlib import Path

import dragoman
from dragoman_protocol.stream import TextDelta
from dragoman_sim import remote

KEY = "sk-ant-api03-bench"
PROMPT = "Say something."


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder, remote.in_process([]) as sim:
        home, work = Path(folder, "home"), Path(folder, "work")
        home.mkdir(mode=0o700)
        work.mkdir()
        env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "CLAUDE_CONFIG_DIR": str(home / ".claude"),
            "ANTHROPIC_BASE_URL": sim.url,
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        with dragoman.connect("bench", env=env, scopes=["query", "admin"]) as client:
            ways: dict[str, Callable[[], float]] = {
                "daemon": lambda: through_daemon(client, work),
                "bare CLI": lambda: bare_cli(env, work),
                "bare SDK": lambda: bare_sdk(env, work),
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for round_ in range(given.rounds + 1):
                for name, way in ways.items():
                    seconds = way()
                    if round_:  # the first is for the page cache
                        times[name].append(seconds)
            client.daemon_stop(grace_ms=0)
    medians = {name: statistics.median(values) * 1000 for name, values in times.items()}
    result = {
        "rounds": given.rounds,
        "firstTokenMs": {name: round(value, 1) for name, value in medians.items()},
        "daemonToCli": round(medians["daemon"] / medians["bare CLI"], 2),
        "daemonToSdk": round(medians["daemon"] / medians["bare SDK"], 2),
    }
    if given.as_json:
        print(json.dumps(result))
    else:
        for name, values in times.items():
            low, high = min(values) * 1000, max(values) * 1000
            print(f"{name:10} median {medians[name]:6.0f} ms   ({low:.0f} to {high:.0f})")
        print(f"daemon : CLI {result['daemonToCli']}   daemon : SDK {result['daemonToSdk']}")
    return 0


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
