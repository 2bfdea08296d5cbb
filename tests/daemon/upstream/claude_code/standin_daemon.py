"""Stands in for a daemon that is going to be killed: one run, one turn, a word on stdout half-way."""

import asyncio
import sys
import uuid
from pathlib import Path

from dragoman_protocol.stream import Event, TextDelta
from dragomand.process.ledger import Ledger
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk, RunSpec


async def main(root: str, url: str) -> None:
    home = f"{root}/home"
    upstream = ClaudeCode(
        ledger=Ledger(root),
        environment={"HOME": home, "PATH": "/usr/bin:/bin", "CLAUDE_CONFIG_DIR": f"{home}/.claude"},
        api_key=lambda: "sk-ant-api03-of-the-standin",
        api=ApiSettings(base_url=url),
    )

    async def allow(_: PermissionAsk) -> PermissionAnswer:
        return PermissionAnswer(allow=True)

    def sink(event: Event) -> None:
        if isinstance(event, TextDelta):
            print("half", flush=True)

    run = await upstream.open(RunSpec(session_id=str(uuid.uuid4()), cwd=Path(root, "project")), allow)
    await run.send("hide", str(uuid.uuid4()), sink)


asyncio.run(main(*sys.argv[1:]))
