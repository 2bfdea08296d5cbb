"""One turn, from its opened row to its closed one, whoever asked for it and on whichever run.

The row is written before anything is sent, so a crash leaves a visible unfinished turn. The last event is
always `turnCompleted`, stored together with the closed row.
"""

import asyncio
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

from .answers import note_usage
from .attempts import Attempts
from .caller import Caller
from .channel import Channel
from .deadline import Deadline
from .errors import EngineError, from_storage
from .permissions import Permissions
from .spend import Spend
from .structured import OutputSchema
from .turn_end import status_of, stored_no_more, why_it_ended
from .turn_tasks import Beside
from .upstream_choice import Choice

StopReason = Literal["client", "shutdown"]
"""Who stopped a turn: somebody who may, or the end of the daemon."""

INTERRUPT_PATIENCE_S = 6.0
"""How long, in seconds, the upstream may take to end an interrupted turn before it is cut off."""

OpenRunFor = Callable[["Turn"], Awaitable[UpstreamRun]]
"""Gives the run that a turn is carried out on; raises `EngineError`."""

InOneCall = Callable[[Callable[[], Awaitable[TurnOutcome]]], Awaitable[TurnOutcome]]

IN_A_STREAM = Choice("claude_code", "an open stream is a Claude Code process")
"""Who answers what is sent into a stream."""

_encode = msgspec.json.Encoder().encode
_OVER = PermissionAnswer(allow=False, message="The turn is over.")


@dataclass(slots=True)
class TurnEnd:
    """How a turn ended; `error` None means completed."""

    row: TurnRow
    text: str
    error: EngineError | None
    outcome: TurnOutcome | None = None
    """What the upstream said of it; None if it was never asked, or cut off."""
    cut_off: bool = False
    """The upstream was cancelled in the middle of the turn: its run must be closed."""


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
        choice: Choice = IN_A_STREAM,
        output: OutputSchema | None = None,
    ) -> None:
        """Describe the turn; nothing happens yet.

        *given_message_id* is the client's own, *message_id* never empty; *output* is what the answer has to
        fit.
        """
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
        self.choice = choice
        self.attempts = None if output is None else Attempts(output)
        self.run: UpstreamRun | None = None
        self.queueing: anyio.CancelScope | None = None
        """Where the turn waits to be admitted, if it does; `stop` ends it."""
        self.waits_freely = False
        """Whether its time stands still while a call of it waits: of a batch with no time of its own."""
        self.in_one_call: InOneCall | None = None
        """Holds a permit while the whole turn is carried out, where its calls are not seen one by one."""
        self.stopped: StopReason | None = None
        self.begun = False
        """Whether its row has been written."""
        self.spend: Spend | None = None
        """The money that was put aside for it, once it was admitted."""
        self._sent = False
        """Whether the upstream was asked."""
        self._text_item = ""
        self._text_parts: list[str] = []
        self._halted = False
        self._answered = asyncio.Event()
        self._beside = Beside()
        """Events are stored, the run is interrupted: if anything is."""
        self._logger: logging.Logger | None = None
        """Once the row has been written."""
        self._sending = False
        self._asks: dict[anyio.CancelScope, anyio.Event] = {}
        self._ending = False
        self._over = False

    @property
    def text(self) -> str:
        """What the newest text item of the answer says so far."""
        return "".join(self._text_parts)

    @property
    def start(self) -> Literal["warm", "cold"] | None:
        """Whether its process had been started before it; None where there is none."""
        warm = None if self.run is None else self.run.warm
        return None if warm is None else "warm" if warm else "cold"

    def stop(self, why: StopReason) -> None:
        """Ask the turn to end; soon after it does, with its terminal event. The first reason counts."""
        if self.stopped is None:
            self.stopped = why
            self._halt()
            if self.queueing is not None:
                self.queueing.cancel()

    async def execute(
        self,
        store: Store,
        open_run: OpenRunFor,
        *,
        queued_ms: int,
        clock: Callable[[], float],
        logger: logging.Logger,
    ) -> TurnEnd:
        """Run the whole turn. Raises only if it could not be opened: nothing was sent then."""
        row = await self._open(store, queued_ms, clock())
        outcome: TurnOutcome | EngineError = EngineError("internal_error")
        self._logger = logger
        self.channel.when_pending(lambda: self._beside.begin(self._pump(logger)))
        try:
            with self.deadline.scope:
                outcome = await self._answer(open_run)
        except EngineError as refused:  # a call of the API waited too long for its permit
            outcome, self._sending = refused, False
        except Exception as unexpected:
            logger.exception("turn failed", extra={"turn": self.turn_id})
            outcome = EngineError("internal_error", detail=type(unexpected).__name__)
        finally:
            self._answered.set()
            if self._asks:
                await self._end_asks()
            self._ending = self._over = True
            self.channel.finish()
            await self._beside.end()
        return await self._close(store, row, outcome, clock(), logger)

    def sink(self, event: Event) -> None:
        """Take an event of the upstream's. What comes after the turn's end is not part of it any more."""
        if self._over:
            return
        if isinstance(event, TextDelta):
            self._note(event.item_id, event.text, whole=False)
        elif isinstance(event, AssistantText):
            self._note(event.item_id, event.text, whole=True)
        self.channel.publish(event)
        if self.channel.failure is not None:
            self._halt()

    async def ask(self, permissions: Permissions, ask: PermissionAsk) -> PermissionAnswer:
        """Ask the caller's person; the deadline stands still meanwhile. The turn's end withdraws it."""
        if self._ending:
            return _OVER
        with self.deadline.paused(), anyio.CancelScope() as scope:
            done = self._asks[scope] = anyio.Event()
            try:
                return await permissions.ask(
                    ask,
                    caller=self.caller,
                    session_id=self.session.session_id,
                    turn_id=self.turn_id,
                    publish=self.sink,
                )
            finally:
                del self._asks[scope]
                done.set()
        return _OVER

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
            upstream=self.choice.upstream,
        )
        started: list[Event] = [
            TurnStarted(
                turn_id=self.turn_id,
                message_id=self.given_message_id,
                queued_ms=queued_ms,
                upstream=self.choice.wire,
                upstream_reason=self.choice.reason,
            ),
            UserMessage(item_id=self.message_id, content=self.prompt),
        ]
        new_session = self.session if self.new_session else None
        spend = None if self.spend is None else self.spend.opened(row)
        self.channel.begin(self.turn_id)
        try:
            await self.channel.commit(started, lambda items: store.open_turn(row, items, new_session, spend))
        except BaseException as error:
            self.channel.end()
            if isinstance(error, StorageError):
                raise from_storage(error, session_id=self.session.session_id) from error
            raise
        self.begun = True
        return row

    async def _answer(self, open_run: OpenRunFor) -> TurnOutcome | EngineError:
        if self._is_halted():
            return TurnOutcome(status="interrupted")
        try:
            self.run = await open_run(self)
        except EngineError as error:
            return error
        if self._is_halted():
            return TurnOutcome(status="interrupted")
        self._sending = True
        outcome = await self._send(self.run)
        self._sending = False
        if outcome.failure is None or not outcome.failure.unsent or self._is_halted():
            return outcome
        return await self._answer_anew(open_run)

    async def _answer_anew(self, open_run: OpenRunFor) -> TurnOutcome | EngineError:
        """Its process had died unnoticed and has got nothing: ask another, once."""
        try:
            self.run = await open_run(self)
        except EngineError as error:
            return error
        if self._is_halted():
            return TurnOutcome(status="interrupted")
        self._sending = True
        outcome = await self._send(self.run)
        self._sending = False
        return outcome

    async def _send(self, run: UpstreamRun) -> TurnOutcome:
        if self.in_one_call is None:
            return await self._talk(run)
        return await self.in_one_call(lambda: self._talk(run))

    async def _talk(self, run: UpstreamRun) -> TurnOutcome:
        async def ask(prompt: Prompt, message_id: str) -> TurnOutcome:
            self._sent = True
            return await run.send(prompt, message_id, self.sink)

        if self.attempts is None:
            return await ask(self.prompt, self.message_id)
        return await self.attempts.run(ask, self.prompt, self.message_id, self.sink, self._is_halted)

    async def _pump(self, logger: logging.Logger) -> None:
        await self.channel.pump()
        if self.channel.failure is not None:
            logger.error(
                "events cannot be stored", exc_info=self.channel.failure, extra={"turn": self.turn_id}
            )
            self._halt()

    def _halt(self) -> None:
        """End the answer, if it has begun and has not ended by itself."""
        halted, self._halted = self._halted, True
        if not halted and self._logger is not None and not self._answered.is_set():
            self._beside.begin(self._interrupt(self._logger))

    def _is_halted(self) -> bool:
        return self._halted

    async def _interrupt(self, logger: logging.Logger) -> None:
        if self.run is not None:
            try:
                with anyio.move_on_after(INTERRUPT_PATIENCE_S):
                    await self.run.interrupt()
                    await self._answered.wait()
            except Exception:
                logger.exception("interrupt failed", extra={"turn": self.turn_id})
        if not self._answered.is_set():
            self.deadline.scope.cancel()

    async def _end_asks(self) -> None:
        """Withdraw what is still being asked; nothing of it may be published after the turn's end."""
        self._ending = True
        for scope, done in list(self._asks.items()):
            scope.cancel()
            await done.wait()

    async def _close(
        self,
        store: Store,
        row: TurnRow,
        outcome: TurnOutcome | EngineError,
        now: float,
        logger: logging.Logger,
    ) -> TurnEnd:
        end = TurnEnd(row=row, text=self.text, error=why_it_ended(self, outcome), cut_off=self._sending)
        row.completed_at = now
        row.duration_ms = round((now - row.started_at) * 1000)
        events: list[Event] = []
        if isinstance(outcome, TurnOutcome):
            note_usage(row, outcome)
            end.text = outcome.text or self.text
            end.outcome = outcome
            events += outcome.last_events
            events.append(UsageReported(usage=outcome.usage, cost_usd=outcome.cost_usd))
        row.status = status = status_of(end.error)
        told = end.error if status in ("failed", "interrupted") else None
        events.append(self._completed(status, row.stop_reason, told))
        spend = None if self.spend is None else self.spend.closed(row, sent=self._sent)
        try:
            row.error = None if told is None else _encode(told.facts())
            await self.channel.commit(events, lambda items: store.close_turn(row, items, spend))
        except Exception as error:
            # The row stays `running` and is found at the next start. Watchers learn now that it is over.
            logger.exception("turn could not be closed", extra={"turn": self.turn_id})
            end.error = stored_no_more(self, error)
            self.channel.announce(self._completed("failed", row.stop_reason, end.error))
        finally:
            self.channel.end()
        return end

    def _completed(self, status: TurnStatus, stop_reason: str | None, error: EngineError | None) -> Event:
        told = None if error is None else error.told()
        return TurnCompleted(turn_id=self.turn_id, status=status, stop_reason=stop_reason, error=told)

    def _note(self, item_id: str, text: str, *, whole: bool) -> None:
        if whole or item_id != self._text_item:
            self._text_parts.clear()
        self._text_parts.append(text)
        self._text_item = item_id
