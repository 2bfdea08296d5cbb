"""A message that is sent into a stream: whether it was taken, and when two of them are the same."""

import hashlib

import anyio
import msgspec
from dragoman_protocol.stream import StreamSendParams, TurnCompleted

from .errors import EngineError
from .turn import Turn


def digest(params: StreamSendParams) -> str:
    """Return what tells two messages with one `messageId` apart."""
    return hashlib.sha256(msgspec.json.encode([params.session_id, params.prompt])).hexdigest()


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
