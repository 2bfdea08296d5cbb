"""Ids of new sessions: the client's own, or one that is made here."""

import uuid
from collections.abc import Callable

from .errors import EngineError


def new_session_id(chosen: str | None, new_id: Callable[[], str]) -> str:
    """Return the id of a new session: *chosen*, in its usual form, else a new one.

    Raises `invalid_params` for what is no UUID: Claude Code takes no other ids.
    """
    if chosen is None:
        return new_id()
    try:
        usual = str(uuid.UUID(chosen))
    except ValueError:
        usual = ""
    if not usual or usual != chosen.lower():
        text = f"newSessionId must be a UUID, e.g. {uuid.UUID(int=0)}; got {chosen[:100]!r}."
        raise EngineError("invalid_params", text, path="$.newSessionId", reason="not a UUID")
    return usual
