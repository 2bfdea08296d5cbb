"""What the daemon costs when nothing happens: start to ready, idle memory, idle CPU.

    python bench/footprint.py [--rounds 10] [--json]

The start is also given as a ratio to a bare `python -c pass` in the same run. Ready: a client is connected.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dragoman import launch, locate
from dragoman.cli import stopping


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", dest="as_json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as home:
        os.chmod(home, 0o700)
        env = {"HOME": home, "PATH": os.environ["PATH"]}
        paths = locate.find_paths(env)
        starts, bare, memory = [], [], 0.0
        for _ in range(given.rounds):
            began = time.perf_counter()
            connection = launch.ensure_daemon(paths, env)
            starts.append(time.perf_counter() - began)
            memory = proportional_mib(locate.peer_pid(connection))
            connection.close()
            running = stopping.find_running(paths)
            assert running is not None
            stopping.stop(paths, running, grace_ms=0, timeout_s=20, kill=True)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-I", "-c", "pass"], env=env, check=True)
            bare.append(time.perf_counter() - began)
    result = {
        "startToReadyMs": round(statistics.median(starts) * 1000, 1),
        "barePythonMs": round(statistics.median(bare) * 1000, 1),
        "startToBarePython": round(statistics.median(starts) / statistics.median(bare), 1),
        "idleMemoryMiB": round(memory, 1),
    }
    print(
        json.dumps(result)
        if given.as_json
        else "\n".join(f"{name:20} {value}" for name, value in result.items())
    )
    return 0


def proportional_mib(pid: int) -> float:
    """Memory with shared pages divided among their users, where the system tells us; else resident memory."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) / 1024
    except (OSError, StopIteration):
        text = Path(f"/proc/{pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
