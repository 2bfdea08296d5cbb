"""What the gateway adds to an API call: Claude Code through it against Claude Code straight to the simulator.

    python bench/gateway.py [--rounds 200] [--json]

Two Claude Code processes, one each way, take turns in turn (who begins alternates), one API call a turn; what
counts is the time of the call as Claude Code itself measures it (whole milliseconds), since a turn's own time
varies by far more. Then the call that Claude Code made (some 50 kB) is made again by a bare HTTP client, each
way in turn, four times as often: there parts of a millisecond can be seen. The simulator is another process.

On a machine that has other work, a call waits for a processor longer than the gateway takes. The kernel
counts those waits (Linux, `/proc/<pid>/schedstat`), so of the rounds that quarter counts in which the
processes waited least; how long at most is told. `added p95` is the difference of the two p95, with the
interval in which nine of ten resamplings put it. CPU is what the daemon's process used for a turn or a
call, its client included.
"""

import argparse
import asyncio
import contextlib
import glob
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from dragoman_sim import remote
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.calls import Calls
from dragomand.gateway.gateway import Gateway, GatewaySettings
from dragomand.process.ledger import Ledger
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode
from dragomand.upstream.interface import ApiAccess, PermissionAnswer, PermissionAsk, RunSpec

KEY = "sk-ant-api03-bench"
PROMPT = "Say something."
AIM_MS = 3.0
CALM = 0.25
"""The share of the rounds that counts."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200, help="of Claude Code; of bare calls four times")
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder, remote.in_process([]) as sim:
        found = run(bench(Path(folder), sim, given.rounds))
    if given.as_json:
        print(json.dumps(found))
    else:
        for what, part in found.items():
            print(
                f"{what}: the calmest {part['kept']} of {part['rounds']} rounds, "
                f"at most {part['waited']:.2f} ms of waiting for a processor in each"
            )
            for way in ("straight", "gateway", "added"):
                numbers = [f"{name} {n:7.2f} ms" for name, n in part[way].items() if name != "range"]
                print(f"  {way:9} " + "  ".join(numbers))
            low, high = part["added"]["range"]
            print(f"  added p95 is between {low:.2f} and {high:.2f} ms (aim: at most {AIM_MS:g})")
    return 0


def run(work: Any) -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def bench(folder: Path, sim: remote.Remote, rounds: int) -> dict[str, Any]:
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
        pids = [os.getpid(), sim.pid, *descendants(straight.pid), *descendants(through.pid)]
        of_turns = await alternate(ways, pids, rounds, warm=3)
        made = next(each for each in reversed(sim.requests()) if each["path"] == "/v1/messages")
        access = await gateway.open_access(unix=True)
        assert access is not None
        body = json.dumps(made["body"]).encode()
        of_calls = await bare_calls(sim, access, body, rounds * 4)
    finally:
        await upstream.close()
        await gateway.close()
    return {"Claude Code": of_turns, "bare call": of_calls}


async def bare_calls(sim: remote.Remote, access: ApiAccess, body: bytes, rounds: int) -> dict[str, Any]:
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
            "straight": call(straight, sim.url, KEY),
            "gateway": call(through, access.base_url, access.token),
        }
        return await alternate(ways, [os.getpid(), sim.pid], rounds, warm=20)


class Sample(NamedTuple):
    """One call, in milliseconds."""

    took: float
    cpu: float
    waited: float


async def alternate(
    ways: dict[str, Callable[[], Awaitable[float]]], pids: list[int | None], rounds: int, warm: int
) -> dict[str, Any]:
    """Make rounds, each way once in each; return what those tell in which the processes waited least."""
    made: list[dict[str, Sample]] = []
    for number in range(rounds + warm):
        names = list(ways) if number % 2 else list(reversed(ways))
        made.append({name: await sample(ways[name], pids) for name in names})
    calm = sorted(made[warm:], key=waited)[: max(1, round(rounds * CALM))]
    return {"rounds": rounds, "kept": len(calm), "waited": waited(calm[-1]), **told(calm)}


def waited(round_: dict[str, Sample]) -> float:
    return max(each.waited for each in round_.values())


async def sample(way: Callable[[], Awaitable[float]], pids: list[int | None]) -> Sample:
    waits, cpu = waited_ms(pids), time.process_time()
    took = await way()
    return Sample(took, (time.process_time() - cpu) * 1000, waited_ms(pids) - waits)


def told(kept: list[dict[str, Sample]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("straight", "gateway"):
        times = [each[name].took for each in kept]
        cpu = statistics.median(each[name].cpu for each in kept)
        found[name] = {"p50": statistics.median(times), "p95": p95(times), "CPU p50": cpu}
    names = ("p50", "p95", "CPU p50")
    found["added"] = {each: found["gateway"][each] - found["straight"][each] for each in names}
    chance = random.Random(1)
    again = sorted(added_p95(chance.choices(kept, k=len(kept))) for _ in range(500))
    found["added"]["range"] = [again[25], again[474]]
    return found


def added_p95(kept: list[dict[str, Sample]]) -> float:
    gateway, straight = ([each[name].took for each in kept] for name in ("gateway", "straight"))
    return p95(gateway) - p95(straight)


def waited_ms(pids: list[int | None]) -> float:
    """Return how long the threads of the processes have waited for a processor; 0 where nobody counts."""
    nanoseconds = 0
    for pid in pids:
        for stat in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError):
                nanoseconds += int(Path(stat).read_text().split()[1])
    return nanoseconds / 1e6


def descendants(pid: int | None) -> list[int]:
    """Return the process *pid* and everything below it."""
    if pid is None:
        return []
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = children.read_text().split() if children.exists() else []
    return [pid, *(each for child in below for each in descendants(int(child)))]


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
