"""`python -m dragoman_sim`: the simulator as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from dragoman_sim.script import Script, ScriptError, load_script
from dragoman_sim.simulator import Simulator


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (or the end of stdin, if asked for). Returns the exit status.

    When ready it prints one line of JSON: ``{"url": "http://127.0.0.1:PORT", "pid": …}``.
    """
    parser = argparse.ArgumentParser(
        prog="dragoman sim", description="Speak the Messages API on 127.0.0.1, as a script says."
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--script", metavar="FILE", help="JSON; without it every prompt is echoed")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with whoever started this")
    given = parser.parse_args(argv)
    try:
        script = Script() if given.script is None else load_script(given.script)
        simulator = Simulator(script, port=given.port)
        _run(_serve(simulator, until_stdin_closes=given.until_stdin_closes))
    except (ScriptError, OSError) as failed:
        print(f"dragoman sim: {failed}", file=sys.stderr)
        return 1
    return 0


async def _serve(simulator: Simulator, *, until_stdin_closes: bool) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    if until_stdin_closes:
        try:
            loop.add_reader(0, _read_stdin, done)
        except PermissionError:  # a file or /dev/null: nobody holds its other end
            done.set()
    async with simulator:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"url": simulator.url, "pid": os.getpid()}), flush=True)
        await done.wait()


def _read_stdin(done: asyncio.Event) -> None:
    if not os.read(0, 65536):
        asyncio.get_running_loop().remove_reader(0)
        done.set()


def _run(main_coroutine: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main_coroutine)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main_coroutine)


if __name__ == "__main__":
    sys.exit(main())
