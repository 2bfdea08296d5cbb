"""After a crash: every turn that was cut off gets its terminal event, so that watchers learn of it."""

from collections.abc import Callable

from dragoman_protocol.stream import TurnCompleted

from dragomand.store.errors import StorageError
from dragomand.store.store import Store

from .records import to_row


async def complete_interrupted(store: Store, clock: Callable[[], float]) -> int:
    """Append `turnCompleted` (`interrupted`) to each session that the store found cut off; returns how many.

    A store that cannot be written to (a full disk) stops nothing: the turns are `interrupted` all the same.
    """
    for session_id in store.recovered:
        session = await store.session(session_id)
        turns = await store.turns(session_id, limit=1)
        if session is None or not turns:
            continue
        event = TurnCompleted(turn_id=turns[-1].turn_id, status="interrupted")
        seq = session.last_seq + 1
        row = to_row(event, session_id=session_id, turn_id=event.turn_id, seq=seq, created_at=clock())
        try:
            await store.append_items([row])
        except StorageError:
            break
    return len(store.recovered)
