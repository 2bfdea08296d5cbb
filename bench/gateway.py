"""What the gateway adds to an API call: Claude Code through it against Claude Code straight to the simulator.

    python bench/gateway.py [--turns 60] [--calls 400] [--json]

Two Claude Code processes, one each way, take turns in turn, one API call a turn; what counts is the time of
the call as Claude Code itself measures it (whole milliseconds), since a turn's own time varies by far more.
Then the call that Claude Code made (some 50 kB) is made again by a bare HTTP client, each way in turn, where
a difference of parts of a millisecond can be seen. The simulator is a process of its own.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from dragoman_sim import remote
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.calls import Calls
from dragomand.gateway.gateway import Gateway, GatewaySettings
from dragomand.process.ledger import Ledger
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode
from dragomand.upstream.interface import ApiAccess, PermissionAnswer, PermissionAsk, RunSpec

KEY = "sk-ant-api03-bench"
PROMPT = "Say something."


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder, remote.in_process([]) as sim:
        found = run(bench(Path(folder), sim, given.turns, given.calls))
    if given.as_json:
        print(json.dumps(found))
    else:
        for what, ways in found.items():
            for way, numbers in ways.items():
                print(f"{what:12} {way:9} " + "  ".join(f"{name} {n:8.2f} ms" for name, n in numbers.items()))
    return 0


def run(work: Any) -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def bench(folder: Path, sim: remote.Remote, turns: int, calls: int) -> dict[str, Any]:
    home, work, sockets = folder / "home", folder / "work", folder / "run"
    for each in (home, work, sockets):
        each.mkdir(mode=0o700)
    gateway = Gateway(
        calls=Calls(
            Admission(DoorSettings(), clock=time.monotonic),
            clock=time.time,
            queue_timeout_s=60,
        ),
        api_key=lambda: KEY,
        settings=GatewaySettings(base_url=sim.url),
        runtime_dir=str(sockets),
        clock=time.time,
        logger=logging.getLogger("bench"),
    )
    upstream = ClaudeCode(
        ledger=Ledger(str(folder)),
        environment={"HOME": str(home), "PATH": os.environ["PATH"], "CLAUDE_CONFIG_DIR": f"{home}/.claude"},
        api_key=lambda: KEY,
        api=ApiSettings(base_url=sim.url),
    )
    try:
        straight = await upstream.open(spec(work), deny)
        upstream.open_access = gateway.open_access
        through = await upstream.open(spec(work), deny)
        ways = {"straight": Turns(straight).one, "gateway": Turns(through).one}
        of_turns = await alternate(ways, turns, warm=3)
        made = next(each for each in reversed(sim.requests()) if each["path"] == "/v1/messages")
        access = await gateway.open_access(unix=True)
        assert access is not None
        of_calls = await bare_calls(sim.url, access, json.dumps(made["body"]).encode(), calls)
    finally:
        await upstream.close()
        await gateway.close()
    return {"Claude Code": of_turns, "bare call": of_calls}


async def bare_calls(url: str, access: ApiAccess, body: bytes, calls: int) -> dict[str, dict[str, float]]:
    import aiohttp

    assert access.unix_socket is not None
    async with (
        aiohttp.ClientSession() as straight,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(access.unix_socket)) as through,
    ):

        def call(session: aiohttp.ClientSession, base_url: str, key: str) -> Callable[[], Awaitable[float]]:
            async def once() -> float:
                began = time.perf_counter()
                headers = {"x-api-key": key, "content-type": "application/json"}
                async with session.post(f"{base_url}/v1/messages", data=body, headers=headers) as answer:
                    assert answer.status == 200, await answer.text()
                    await answer.read()
                return (time.perf_counter() - began) * 1000

            return once

        ways = {
            "straight": call(straight, url, KEY),
            "gateway": call(through, access.base_url, access.token),
        }
        return await alternate(ways, calls, warm=20)


async def alternate(
    ways: dict[str, Callable[[], Awaitable[float]]], rounds: int, warm: int
) -> dict[str, dict[str, float]]:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + warm):
        for name, way in ways.items():
            took = await way()
            if round_ >= warm:
                times[name].append(took)
    found = {name: {"p50": statistics.median(values), "p95": p95(values)} for name, values in times.items()}
    found["added"] = {each: found["gateway"][each] - found["straight"][each] for each in ("p50", "p95")}
    return found


class Turns:
    """The turns of one process, which tells the time of all its calls so far."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self.so_far = 0.0

    async def one(self) -> float:
        """Run a turn; return how long its call took."""
        outcome = await self.run.send(PROMPT, str(uuid.uuid4()), lambda _event: None)
        assert outcome.status == "completed", outcome
        before, self.so_far = self.so_far, outcome.duration_api_ms
        return self.so_far - before


def spec(work: Path) -> RunSpec:
    return RunSpec(session_id=str(uuid.uuid4()), cwd=work)


async def deny(_ask: PermissionAsk) -> PermissionAnswer:
    return PermissionAnswer(allow=False)


def p95(values: list[float]) -> float:
    return sorted(values)[max(0, round(len(values) * 0.95) - 1)]


if __name__ == "__main__":
    sys.exit(main())
