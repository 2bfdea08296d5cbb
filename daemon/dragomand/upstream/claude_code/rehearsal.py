"""A spare goes through one turn that means nothing, so that its first real one is as fast as a later one.

Measured with Claude Code 2.1.331: the first turn of a started process takes 180 ms of CPU, every later one
50 (code that is loaded, compiled and connected only when it is needed). So a spare is sent a message which
the gateway answers itself (nothing is asked of the provider, counted or paid), and takes the turn back
(`rewind_conversation`). What it sends for its first real turn then is, but for ids, byte for byte what a
process that has done nothing would send; `tests/daemon/upstream/claude_code/test_rehearsal.py` compares
them.

It has made up its prompt and its tools by then, so what these depend on cannot be chosen later any more:
model and permission mode become part of a spare's kind, and there is no rehearsal where there are settings
of the client's own, or in plan mode (the plan's file is named after the first prompt).

Hooks are off meanwhile: they are a person's own programs and expect a person's prompt. A Claude Code that
cannot do one of these things is found out by trying, and its spares are not rehearsed.
"""

import asyncio
import os
import secrets
import sys
import uuid
from typing import TYPE_CHECKING

from dragomand.upstream.claude_code.control import ControlError
from dragomand.upstream.claude_code.transcript import REHEARSED
from dragomand.upstream.claude_code.turn import message_uuid
from dragomand.upstream.interface import ApiAccess, RunSpec

if TYPE_CHECKING:
    from dragomand.upstream.claude_code.run import ClaudeCodeRun

PATIENCE_S = 15.0
"""How long, in seconds, it may take; then the process is not used."""

_MANAGED = {
    "linux": "/etc/claude-code",
    "darwin": "/Library/Application Support/ClaudeCode",
}.get(sys.platform, "")
"""Settings in this folder, an administrator's, cannot be switched off; there is no rehearsal beside them."""


def may_rehearse(spec: RunSpec, managed: str = _MANAGED) -> bool:
    """Whether a turn without meaning leaves no trace in a process for *spec*."""
    own = spec.task_budget_tokens is not None or spec.settings or spec.permission_mode == "plan"
    return not own and not (managed and os.path.isdir(managed))


async def rehearse(run: "ClaudeCodeRun", access: ApiAccess) -> bool:
    """Let a fresh process go through a turn and take it back; False if it did not, then it must be closed."""
    mark = f"{REHEARSED}-{secrets.token_hex(8)}"
    message_id = str(uuid.uuid4())
    target = {"target_message_uuid": message_uuid(message_id)}
    access.rehearse(mark)
    run.rehearsed = True
    try:
        async with asyncio.timeout(PATIENCE_S):
            await run.ask(_hooks(off=True))
            outcome = await run.send(f"{mark}: this process warms up.", message_id, lambda _: None)
            taken_back = await run.ask({"subtype": "rewind_conversation", **target})
            await run.ask(_hooks(off=None))
    except (TimeoutError, ControlError):
        return False
    finally:
        access.rehearse(None)
    return outcome.status == "completed" and taken_back.get("rewound") is True


def _hooks(*, off: bool | None) -> dict[str, object]:
    return {"subtype": "apply_flag_settings", "settings": {"disableAllHooks": off}}
