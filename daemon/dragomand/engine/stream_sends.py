"""A message that is sent into a stream: whether it was taken, and when two of them are the same."""

import hashlib
from collections.abc import Callable

import anyio
import msgspec
from dragoman_protocol.stream import StreamSendParams, TurnCompleted

from dragomand.store.store import Store

from . import answers
from .errors import EngineError
from .turn import Turn


def digest(params: StreamSendParams) -> str:
    """Return what tells two messages with one `messageId` apart."""
    return hashlib.sha256(msgspec.json.encode([params.session_id, params.prompt])).hexdigest()


async def sent_before(
    params: StreamSendParams, given: str, store: Store, running: Callable[[], Turn | None]
) -> str | None:
    """Return the id of the turn that this message began, with the digest *given*, if it was sent before.

    Raises `message_conflict` for another message with its id.
    """
    if params.message_id is None:
        return None
    known = _is_running(params, given, running())
    if known is not None:
        return known
    row = await answers.stored_turn(store, params.message_id, given)
    # While the store was asked, the same message may have come in over another connection.
    return _is_running(params, given, running()) if row is None else row.turn_id


def _is_running(params: StreamSendParams, given: str, turn: Turn | None) -> str | None:
    if turn is None or params.message_id is None or turn.given_message_id != params.message_id:
        return None
    answers.check_same(params.message_id, turn.request_digest, given)
    return turn.turn_id


class Accepted:
    """Whether a message was taken, and why not."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.event = anyio.Event()
        self.error: EngineError | None = None

    def refuse(self, error: EngineError, turn: Turn) -> None:
        """Tell whoever waits; after the turn's id was given out, tell whoever watches."""
        if not self.event.is_set():
            self.error = error
        elif not turn.begun:
            end = TurnCompleted(turn_id=turn.turn_id, status="failed", error=error.told())
            turn.channel.announce(end)
