"""A store that fails in the middle of a query."""

from typing import Any

import msgspec
import pytest
from dragoman_protocol.stream import TurnCompleted
from dragomand.store.errors import StorageError, StorageFullError
from dragomand.upstream.interface import TurnOutcome


def breaking(engine: Any, name: str, error: Exception, *, times: int = 1) -> None:
    """Let the store's method *name* fail."""
    whole = getattr(engine.store, name)
    left = times

    async def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise error
        return await whole(*args, **kwargs)

    setattr(engine.store, name, fails)


FULL = pytest.mark.parametrize("full", [True, False])


def storage_error(full: bool) -> tuple[Exception, str]:
    if full:
        return StorageFullError("/db", "no space"), "storage_full"
    return StorageError("/db", "disk I/O error"), "storage_failed"


@FULL
async def test_a_turn_that_cannot_be_opened_is_not_sent(kit: Any, full: bool) -> None:
    async with kit.engine() as engine:
        error, kind = storage_error(full)
        breaking(engine, "open_turn", error)
        await kit.refused(kind, engine.queries.run(engine.params(message_id="m"), kit.caller()))
        assert not engine.upstream.opening.is_set()
        engine.check_idle()
        assert (await engine.queries.run(engine.params(message_id="m"), kit.caller())).replayed is False


@FULL
async def test_the_store_fails_while_nothing_more_comes(kit: Any, full: bool) -> None:
    """The upstream is silent; the turn must end all the same."""
    async with kit.engine() as engine:
        error, kind = storage_error(full)
        breaking(engine, "append_items", error)

        async def script(turn: Any) -> TurnOutcome:
            turn.said("a text")
            await turn.interrupted.wait()
            return TurnOutcome(status="interrupted")

        engine.upstream.scripts.append(script)
        watcher = kit.Watcher()
        query = engine.queries.run(engine.params(), kit.caller(), subscriber=watcher)
        failed = await kit.refused(kind, query)
        session_id = failed.data["session_id"]
        assert watcher.kinds == ["TurnStarted", "UserMessage", "UsageReported", "TurnCompleted"]
        (turn,) = await engine.store.turns(session_id)
        assert (turn.status, msgspec.json.decode(turn.error)["kind"]) == ("failed", kind)
        await engine.check_whole(session_id)
        engine.check_idle()
        assert (await engine.queries.run(engine.params(session_id=session_id), kit.caller())).text == "hello"
        await engine.check_whole(session_id)


@FULL
async def test_a_turn_that_cannot_be_closed_still_tells_its_end(kit: Any, full: bool) -> None:
    async with kit.engine() as engine:
        error, kind = storage_error(full)
        breaking(engine, "close_turn", error)
        watcher = kit.Watcher()
        query = engine.queries.run(engine.params(message_id="m"), kit.caller(), subscriber=watcher)
        failed = await kit.refused(kind, query)
        last = watcher.seen[-1].params
        assert isinstance(last.event, TurnCompleted)
        assert (last.event.status, last.event.error["kind"], last.seq, last.cursor) == (
            "failed",
            kind,
            None,
            None,
        )
        (turn,) = await engine.store.turns(failed.data["session_id"])
        assert turn.status == "running"
        engine.check_idle()
        # It is not run again, and its session is not lost.
        await kit.refused("turn_interrupted", engine.queries.run(engine.params(message_id="m"), kit.caller()))
        more = engine.params("more", session_id=turn.session_id)
        assert (await engine.queries.run(more, kit.caller())).text == "hello"


async def test_what_a_run_was_cannot_be_recorded(kit: Any) -> None:
    async with kit.engine() as engine:
        error, kind = storage_error(True)
        breaking(engine, "record_run", error)
        failed = await kit.refused(kind, engine.queries.run(engine.params(), kit.caller()))
        assert engine.upstream.prompts == [], "nothing was sent"
        await engine.check_whole(failed.data["session_id"])
        engine.check_idle()


async def test_the_end_of_a_run_is_only_a_note(kit: Any) -> None:
    async with kit.engine() as engine:
        error, _ = storage_error(True)
        whole, calls = engine.store.record_run, []

        async def second_fails(run: Any) -> None:
            calls.append(run)
            if len(calls) == 2:
                raise error
            await whole(run)

        engine.store.record_run = second_fails
        assert (await engine.queries.run(engine.params(), kit.caller())).text == "hello"
        assert len(calls) == 2


async def test_an_event_that_cannot_be_written_down_is_a_bug_of_one_turn(kit: Any) -> None:
    async with kit.engine() as engine:

        async def script(turn: Any) -> TurnOutcome:
            turn.said("\ud800")
            await turn.interrupted.wait()
            return TurnOutcome(status="interrupted")

        engine.upstream.scripts.append(script)
        error = await kit.refused("internal_error", engine.queries.run(engine.params(), kit.caller()))
        assert error.data["detail"] == "UnicodeEncodeError"
        await engine.check_whole(error.data["session_id"])
        engine.check_idle()


async def test_an_end_that_cannot_be_written_down(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(kit.failing("crash", "bad", detail="\ud800"))
        watcher = kit.Watcher()
        query = engine.queries.run(engine.params(), kit.caller(), subscriber=watcher)
        await kit.refused("internal_error", query)
        assert watcher.kinds[-1] == "TurnCompleted"
        engine.check_idle()
