"""One query on its way, and all who wait for it: a `messageId` that is sent twice is carried out once."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dragoman_protocol.query import QueryRunParams, QueryRunResult

from .caller import Caller
from .channel import Channel, Published, Subscriber
from .errors import EngineError
from .turn import StopReason, Turn


@dataclass(slots=True, eq=False)
class Submission:
    """Begins when the query arrives; has `result` or `error` when `done` is set."""

    params: QueryRunParams
    caller: Caller
    digest: str | None
    """What is asked, if `messageId` makes it comparable."""
    timeout_ms: int | None = None
    """How long it may take if it does not say; None: as the settings say."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[object] | None" = None
    """What waits before the turn begins, once it does; `stop` ends it."""
    session_id: str = ""
    turn: Turn | None = None
    waiters: int = 0
    subscribers: list[Subscriber] = field(default_factory=list)
    result: QueryRunResult | None = None
    error: EngineError | None = None
    stopped: StopReason | None = None
    _channel: Channel | None = None
    _unsubscribe: Callable[[], None] | None = None
    _started: list[Callable[[str], None]] = field(default_factory=list)

    def hear(self, started: Callable[[str], None]) -> None:
        """Tell *started* the session's id, now or as soon as it is known."""
        if self.session_id:
            started(self.session_id)
        else:
            self._started.append(started)

    def in_session(self, session_id: str) -> None:
        """The session is known."""
        self.session_id = session_id
        for started in self._started:
            started(session_id)
        self._started.clear()

    def watch(self, subscriber: Subscriber) -> None:
        """Hand every event of the session's from now on to *subscriber*, until `unwatch`."""
        self.subscribers.append(subscriber)
        self._subscribe()

    def unwatch(self, subscriber: Subscriber) -> None:
        """Hand no more to *subscriber*."""
        self.subscribers.remove(subscriber)
        if not self.subscribers:
            self._leave()

    def in_channel(self, channel: Channel) -> None:
        """The channel is known. It is subscribed to only while somebody wants to see this query's events."""
        self._channel = channel
        self._subscribe()

    def out_of_channel(self) -> None:
        """The turn is over."""
        self._channel = None
        self._leave()

    def _subscribe(self) -> None:
        if self._channel is not None and self.subscribers and self._unsubscribe is None:
            self._unsubscribe = self._channel.subscribe(self.pass_on)

    def _leave(self) -> None:
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        if unsubscribe is not None:
            unsubscribe()

    def pass_on(self, event: Published) -> None:
        """Hand an event of the session's to everybody who wants to see this query's."""
        for subscriber in self.subscribers:
            subscriber(event)

    def stop(self, why: StopReason) -> None:
        """Stop it wherever it is. The first reason counts."""
        first, self.stopped = self.stopped is None, self.stopped or why
        if self.turn is not None:
            self.turn.stop(why)
        elif first and self.task is not None:
            self.task.cancel()

    def begin(self, turn: Turn) -> None:
        """Its turn begins now: from here on `stop` ends the turn. Raises if it was stopped already.

        Only what waits can be ended: one who was let in without waiting has not noticed yet.
        """
        if self.stopped is not None:
            raise self._unbegun()
        self.turn = turn

    def end(self) -> None:
        """It is over; without result or error it was stopped before its turn began."""
        if self.result is None and self.error is None:
            self.error = self._unbegun()
        self.done.set()

    def _unbegun(self) -> EngineError:
        if self.stopped == "client":
            return EngineError("request_cancelled", session_id=self.session_id or None)
        return EngineError("draining")

    def cancelled(self) -> EngineError:
        """Return the error for one who no longer waits: with what was said until now."""
        if self.error is not None:
            return self.error
        said: dict[str, Any] = {"session_id": self.session_id or None}
        if self.turn is not None:
            text = self.result.text if self.result is not None else self.turn.text
            said |= {"turn_id": self.turn.turn_id, "text": text or None}
        return EngineError("request_cancelled", **said)
