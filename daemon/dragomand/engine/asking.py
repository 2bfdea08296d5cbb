"""What a turn asks the door for."""

from dragomand.policy.fair_queue import Priority
from dragomand.store.rows import SessionRow

from .admission import Asked, family_of
from .caller import Caller


def turn_asked(
    caller: Caller,
    session: SessionRow,
    turn_id: str,
    *,
    model: str | None,
    credential: str,
    timeout_s: float | None,
    priority: Priority = "interactive",
) -> Asked:
    """Return it, for a turn of *caller*'s in *session*; *model*: as chosen, None for the session's own."""
    return Asked(
        client=caller.id,
        name=caller.name,
        priority=priority,
        timeout_s=timeout_s,
        credential=credential,
        models=family_of(model or session.model),
        session_id=session.session_id,
        turn_id=turn_id,
        parent=caller.parent_turn,
    )
