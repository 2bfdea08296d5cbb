"""Files put back as they were when a message came: one of Claude Code's own control requests."""

from typing import Any

from dragomand.upstream.claude_code.control import Control, ControlError, ControlLostError
from dragomand.upstream.interface import Failure, Rewound, UpstreamError

TIMEOUT_S = 30.0
"""How long, in seconds, Claude Code may take for it."""


async def rewind_files(control: Control, message_uuid: str, *, dry_run: bool) -> Rewound:
    """Put the files back, or only say which they are; raises `UpstreamError` if it cannot be done."""
    asked = {"subtype": "rewind_files", "user_message_id": message_uuid}
    # What the request itself answers with does not say which files they were.
    plan = await _ask(control, {**asked, "dry_run": True})
    if not dry_run:
        await _ask(control, asked)
    files = plan.get("filesChanged")
    return Rewound(
        files=tuple(str(file) for file in files) if isinstance(files, list) else (),
        insertions=_count(plan.get("insertions")),
        deletions=_count(plan.get("deletions")),
    )


async def _ask(control: Control, request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = await control.request(request, TIMEOUT_S)
    except ControlLostError as lost:
        raise UpstreamError(Failure("crash", str(lost))) from lost
    except TimeoutError as late:
        text = f"Claude Code did not answer for {TIMEOUT_S:g} s; files may have been changed."
        raise UpstreamError(Failure("crash", text)) from late
    except ControlError as refused:
        raise UpstreamError(Failure("caller", str(refused))) from refused
    if answer.get("canRewind") is not True:
        raise UpstreamError(Failure("caller", str(answer.get("error") or "Claude Code gave no reason.")))
    return answer


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
