"""One turn on its own: what can hardly be brought about from outside."""

import asyncio
import logging
from typing import Any

import pytest
from dragoman_protocol.stream import AssistantText
from dragomand.engine import channel as channel_module
from dragomand.engine.deadline import Deadline
from dragomand.engine.turn import Turn, TurnEnd
from dragomand.store.errors import DuplicateMessageError
from dragomand.store.rows import SessionRow
from dragomand.upstream.interface import TurnOutcome

LOGGER = logging.getLogger("test.turn")


def turn_in(engine: Any, kit: Any, session_id: str = "s", message_id: str | None = None) -> Turn:
    """A turn of a new session."""
    session = SessionRow(session_id=session_id, created_at=1, updated_at=1, epoch="e", cwd=str(engine.cwd))
    return Turn(
        turn_id=f"turn of {session_id}",
        session=session,
        new_session=True,
        prompt="hi",
        message_id=f"message of {session_id}",
        given_message_id=message_id,
        request_digest=None,
        caller=kit.caller(),
        channel=engine.sessions.channel_of(session),
        deadline=Deadline(None),
    )


async def execute(engine: Any, turn: Turn, open_run: Any) -> TurnEnd:
    return await turn.execute(engine.store, open_run, queued_ms=3, clock=lambda: 7.0, logger=LOGGER)


class Run:
    """A run that notes whether it was used."""

    def __init__(self, script: Any = None) -> None:
        self.script = script
        self.sent = self.interrupts = 0

    async def send(self, prompt: Any, message_id: str, sink: Any) -> TurnOutcome:
        self.sent += 1
        if self.script is not None:
            await self.script(sink)
        return TurnOutcome(status="completed", text="ok")

    async def interrupt(self) -> bool:
        self.interrupts += 1
        return False


async def test_stopped_before_it_begins_it_is_written_and_nothing_is_opened(kit: Any) -> None:
    async with kit.engine() as engine:
        turn = turn_in(engine, kit)
        turn.stop("client")
        turn.stop("shutdown")
        assert turn.stopped == "client", "the first reason counts"

        async def open_run(_turn: Turn) -> Any:
            pytest.fail("was opened")

        end = await execute(engine, turn, open_run)
        assert end.error is not None
        assert (end.error.kind, end.row.status, end.cut_off, turn.begun) == (
            "request_cancelled",
            "cancelled",
            False,
            True,
        )
        await engine.check_whole("s")


async def test_stopped_in_the_instant_in_which_the_run_is_there(kit: Any) -> None:
    async with kit.engine() as engine:
        turn, run = turn_in(engine, kit), Run()

        async def open_run(turn: Turn) -> Any:
            turn.stop("client")
            return run

        end = await execute(engine, turn, open_run)
        assert (end.row.status, run.sent) == ("cancelled", 0)
        await engine.check_whole("s")


async def test_events_come_faster_than_they_can_be_written(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn is ended; what was written stays whole."""
    monkeypatch.setattr(channel_module, "MAX_PENDING", 3)
    async with kit.engine() as engine:
        turn = turn_in(engine, kit)

        async def flood(sink: Any) -> None:
            for number in range(10):
                sink(AssistantText(item_id=str(number), text="x"))
            await asyncio.Event().wait()

        run = Run(flood)
        monkeypatch.setattr("dragomand.engine.turn.INTERRUPT_PATIENCE_S", 0)

        async def open_run(_turn: Turn) -> Any:
            return run

        end = await execute(engine, turn, open_run)
        assert end.error is not None
        assert (end.error.kind, end.row.status, run.interrupts, end.cut_off) == (
            "storage_failed",
            "failed",
            1,
            True,
        )
        assert "3 events wait to be written" in str(end.error)
        await engine.check_whole("s")


async def test_it_leaves_its_channel_as_it_found_it_when_it_cannot_be_opened(kit: Any) -> None:
    async with kit.engine() as engine:
        run = Run()

        async def open_run(_turn: Turn) -> Any:
            return run

        await execute(engine, turn_in(engine, kit, "first", "m"), open_run)
        turn = turn_in(engine, kit, "second", "m")
        with pytest.raises(DuplicateMessageError):
            await execute(engine, turn, open_run)
        assert (turn.channel.turn_id, turn.channel.last_seq, turn.begun, run.sent) == ("", 0, False, 1)


async def test_the_row_has_its_times(kit: Any) -> None:
    async with kit.engine() as engine:
        instants = iter([100.0, 102.5])
        run = Run()

        async def open_run(_turn: Turn) -> Any:
            return run

        turn = turn_in(engine, kit)
        end = await turn.execute(
            engine.store, open_run, queued_ms=3, clock=lambda: next(instants), logger=LOGGER
        )
        row = end.row
        assert (row.started_at, row.completed_at, row.duration_ms, row.queued_ms) == (100.0, 102.5, 2500, 3)
        assert await engine.store.turns("s") == [row]
