"""A stored conversation as the messages that an upstream without a memory needs."""

from dragoman_protocol.stream import AssistantText, TurnCompleted, UserMessage

from dragomand.store.store import Store
from dragomand.upstream.interface import HistoryMessage

from .records import to_event

_PAGE = 500


async def load_history(store: Store, session_id: str) -> tuple[HistoryMessage, ...]:
    """Return the messages of the session's completed turns, oldest first.

    A turn that failed or was stopped is left out: it has a question without an answer. So is thinking, which
    the API does not want back.
    """
    history: list[HistoryMessage] = []
    turn: list[HistoryMessage] = []
    after = 0
    while rows := await store.items(session_id, after_seq=after, limit=_PAGE):
        after = rows[-1].seq
        for row in rows:
            event = to_event(row)
            if isinstance(event, UserMessage):
                turn.append(HistoryMessage("user", event.content))
            elif isinstance(event, AssistantText) and event.text:
                turn.append(HistoryMessage("assistant", event.text))
            elif isinstance(event, TurnCompleted):
                if event.status == "completed":
                    history += turn
                turn = []
    return tuple(history)
