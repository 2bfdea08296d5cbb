"""One turn, from its opened row to its closed one, whoever asked for it and on whichever run.

The row is written before anything is sent, so a crash leaves a visible unfinished turn. The last event is
always `turnCompleted`, stored together with the closed row.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import anyio
import msgspec
from dragoman_protocol.content import Prompt
from dragoman_protocol.session import TurnStatus
from dragoman_protocol.stream import (
    AssistantText,
    Event,
    TextDelta,
    TurnCompleted,
    TurnStarted,
    UsageReported,
    UserMessage,
)

from dragomand.store.errors import StorageError
from dragomand.store.rows import SessionRow, TurnRow
from dragomand.store.store import Store
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk, TurnOutcome, UpstreamRun

from .caller import Caller
from .channel import Channel
from .deadline import Deadline
from .errors import EngineError, from_failure, from_storage
from .permissions import Permissions

StopReason = Literal["client", "shutdown"]
"""Who stopped a turn: somebody who may, or the end of the daemon."""

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class TurnEnd:
    """How a turn ended; `error` None means completed."""

    row: TurnRow
    text: str
    error: EngineError | None


class Turn:
    """A turn that runs or is about to."""

    def __init__(
        self,
        *,
        turn_id: str,
        session: SessionRow,
        new_session: bool,
        prompt: Prompt,
        message_id: str,
        given_message_id: str | None,
        request_digest: str | None,
        caller: Caller,
        channel: Channel,
        deadline: Deadline,
    ) -> None:
        """Describe the turn; nothing happens yet. *given_message_id* is the client's own, *message_id* never empty."""
        self.turn_id = turn_id
        self.session = session
        self.new_session = new_session
        self.prompt = prompt
        self.message_id = message_id
        self.given_message_id = given_message_id
        self.request_digest = request_digest
        self.caller = caller
        self.channel = channel
        self.deadline = deadline
        self.run: UpstreamRun | None = None
        self.stopped: StopReason | None = None
        self._text_item = ""
        self._text_parts: list[str] = []
        self._stop = anyio.Event()

    @property
    def text(self) -> str:
        """What the newest text item of the answer says so far."""
        return "".join(self._text_parts)

    def stop(self, why: StopReason) -> None:
        """Ask the turn to end; it ends by itself soon after, with its terminal event. The first reason counts."""
        if self.stopped is None:
            self.stopped = why
            self._stop.set()

    async def execute(
        self,
        store: Store,
        open_run: Callable[["Turn"], Awaitable[UpstreamRun]],
        *,
        queued_ms: int,
        clock: Callable[[], float],
        logger: logging.Logger,
    ) -> TurnEnd:
        """Run the whole turn. Raises `EngineError` only if it could not be opened (nothing was sent then)."""
        row = await self._open(store, queued_ms, clock())
        channel = self.channel
        outcome: TurnOutcome | EngineError = EngineError("internal_error")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channel.pump)
            tasks.start_soon(self._interrupt_when_stopped)
            try:
                with self.deadline.scope:
                    outcome = await self._answer(open_run)
            except Exception as unexpected:  # the turn must be closed whatever happened
                logger.exception("turn failed", extra={"turn": self.turn_id})
                outcome = EngineError("internal_error", detail=type(unexpected).__name__)
            finally:
                channel.finish()
                self._stop.set()
        return await self._close(store, row, outcome, clock())

    def sink(self, event: Event) -> None:
        """Take an event of the upstream's."""
        if isinstance(event, TextDelta):
            self._note(event.item_id, event.text, whole=False)
        elif isinstance(event, AssistantText):
            self._note(event.item_id, event.text, whole=True)
        self.channel.publish(event)
        if self.channel.failure is not None:
            self._stop.set()

    async def ask(self, permissions: Permissions, ask: PermissionAsk) -> PermissionAnswer:
        """Ask the caller's person; the turn's deadline stands still meanwhile."""
        with self.deadline.paused():
            return await permissions.ask(
                ask,
                caller=self.caller,
                session_id=self.session.session_id,
                turn_id=self.turn_id,
                publish=self.sink,
            )

    # -- inside

    async def _open(self, store: Store, queued_ms: int, now: float) -> TurnRow:
        row = TurnRow(
            turn_id=self.turn_id,
            session_id=self.session.session_id,
            status="running",
            started_at=now,
            message_id=self.given_message_id,
            request_digest=self.request_digest,
            queued_ms=queued_ms,
            upstream="claude_code",
        )
        started: list[Event] = [
            TurnStarted(turn_id=self.turn_id, message_id=self.given_message_id, queued_ms=queued_ms),
            UserMessage(item_id=self.message_id, content=self.prompt),
        ]
        self.channel.begin(self.turn_id)
        try:
            await self.channel.commit(
                started, lambda items: store.open_turn(row, items, self.session if self.new_session else None)
            )
        except StorageError as error:
            self.channel.end()
            raise from_storage(error, session_id=self.session.session_id) from error
        return row

    async def _answer(
        self, open_run: Callable[["Turn"], Awaitable[UpstreamRun]]
    ) -> TurnOutcome | EngineError:
        if self.stopped is not None:
            return TurnOutcome(status="interrupted")
        try:
            self.run = await open_run(self)
        except EngineError as error:
            return error
        if self.stopped is not None:
            return TurnOutcome(status="interrupted")
        return await self.run.send(self.prompt, self.message_id, self.sink)

    async def _interrupt_when_stopped(self) -> None:
        await self._stop.wait()
        if self.stopped is None and self.channel.failure is None:
            return
        if self.run is None:
            self.deadline.scope.cancel()
        else:
            await self.run.interrupt()

    async def _close(
        self, store: Store, row: TurnRow, outcome: TurnOutcome | EngineError, now: float
    ) -> TurnEnd:
        end = TurnEnd(row=row, text=self.text, error=self._error(outcome))
        row.completed_at = now
        row.duration_ms = round((now - row.started_at) * 1000)
        events: list[Event] = []
        if isinstance(outcome, TurnOutcome):
            _note_usage(row, outcome)
            end.text = outcome.text or self.text
            events.append(UsageReported(usage=outcome.usage, cost_usd=outcome.cost_usd))
        row.status = status = self._status(end.error)
        facts = None if end.error is None or status == "cancelled" else end.error.facts()
        row.error = None if facts is None else _encode(facts)
        events.append(
            TurnCompleted(turn_id=self.turn_id, status=status, stop_reason=row.stop_reason, error=facts)
        )
        try:
            await self.channel.commit(events, lambda items: store.close_turn(row, items))
        except StorageError as error:
            # The row stays `running` and is found at the next start. Watchers still learn that it is over.
            end.error = from_storage(error, session_id=row.session_id, turn_id=row.turn_id)
        self.channel.end()
        return end

    def _error(self, outcome: TurnOutcome | EngineError) -> EngineError | None:
        session_id, turn_id = self.session.session_id, self.turn_id
        said = self.text or None
        if self.channel.failure is not None:
            return from_storage(self.channel.failure)
        if isinstance(outcome, TurnOutcome) and outcome.status == "completed":
            return None
        if self.stopped == "shutdown":
            return EngineError(
                "draining", "The daemon stopped before the turn ended; continue the session with a new turn."
            )
        if self.stopped == "client":
            return EngineError("request_cancelled", session_id=session_id, turn_id=turn_id, text=said)
        if self.deadline.expired:
            return EngineError("deadline_exceeded", session_id=session_id, turn_id=turn_id, text=said)
        if isinstance(outcome, EngineError):
            return EngineError(
                outcome.kind,
                outcome.message,
                **{"session_id": session_id, "turn_id": turn_id, **outcome.data},
            )
        if outcome.failure is None:
            return EngineError("request_cancelled", session_id=session_id, turn_id=turn_id, text=said)
        return from_failure(outcome.failure, session_id=session_id, turn_id=turn_id, text=said)

    def _status(self, error: EngineError | None) -> TurnStatus:
        if error is None:
            return "completed"
        if error.kind == "request_cancelled":
            return "cancelled"
        return "interrupted" if self.stopped == "shutdown" else "failed"

    def _note(self, item_id: str, text: str, *, whole: bool) -> None:
        if whole or item_id != self._text_item:
            self._text_parts.clear()
        self._text_parts.append(text)
        self._text_item = item_id


def _note_usage(row: TurnRow, outcome: TurnOutcome) -> None:
    usage = outcome.usage
    row.input_tokens = usage.input_tokens
    row.output_tokens = usage.output_tokens
    row.cache_read_tokens = usage.cache_read_tokens
    row.cache_creation_tokens = usage.cache_creation_tokens
    row.cost_usd = outcome.cost_usd
    row.model = outcome.model
    row.stop_reason = outcome.stop_reason
