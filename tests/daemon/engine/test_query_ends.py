"""A query that is cancelled, in every state, stopped from elsewhere, or late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from dragoman_protocol.stream import TurnCompleted, TurnStarted, Waiting
from dragomand.engine import queries as module
from dragomand.engine import turn as turn_module
from dragomand.engine.errors import EngineError
from dragomand.upstream.interface import Failure, TurnOutcome

# -- cancellation: of an asyncio task (what the server does) and of an anyio scope (what a plan does)


@asynccontextmanager
async def cancellable(how: str, work: Any) -> AsyncIterator[Any]:
    """Start *work* and give its canceller and an awaitable of its end."""
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    scope = anyio.CancelScope()

    async def carry_out() -> None:
        with scope:
            try:
                ended.set_result(await work)
            except Exception as error:
                ended.set_result(error)
            except BaseException:
                ended.set_result("cancelled")
                raise

    task = asyncio.create_task(carry_out())
    try:
        yield (task.cancel if how == "task" else scope.cancel), ended
    finally:
        await asyncio.wait([task], timeout=30)
        assert task.done()


HOW = pytest.mark.parametrize("how", ["task", "scope"])


@HOW
async def test_cancelled_while_queued(kit: Any, how: str) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        watcher, started = kit.Watcher(), []
        work = engine.queries.run(engine.params(), kit.caller(), subscriber=watcher, started=started.append)
        async with cancellable(how, work) as (cancel, ended):
            await watcher.sees(Waiting)
            cancel()
            error = await ended
        assert (error.kind, error.data["session_id"]) == ("request_cancelled", started[0])
        assert await engine.store.session(started[0]) is None, "it never began"
        assert engine.admission.queued == 0
        gate.go.set()
        await first
        engine.check_idle()


@HOW
async def test_cancelled_in_the_instant_of_the_grant(kit: Any, how: str) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        watcher = kit.Watcher()
        work = engine.queries.run(engine.params(), kit.caller(), subscriber=watcher)
        async with cancellable(how, work) as (cancel, ended):
            await watcher.sees(Waiting)
            gate.go.set()
            await kit.until(lambda: engine.admission.queued == 0)  # granted, not yet running
            cancel()
            error = await ended
        assert error.kind == "request_cancelled"
        await first
        engine.check_idle()
        assert (await engine.queries.run(engine.params(), kit.caller())).text == "hello"


@HOW
async def test_cancelled_while_the_process_starts(kit: Any, how: str) -> None:
    async with kit.engine() as engine:
        engine.upstream.hold_open = asyncio.Event()
        started: list[str] = []
        work = engine.queries.run(engine.params(), kit.caller(), started=started.append)
        async with cancellable(how, work) as (cancel, ended):
            await kit.soon(engine.upstream.opening)
            cancel()
            error = await ended
        (turn,) = await engine.store.turns(started[0])
        assert (error.kind, error.data["turn_id"]) == ("request_cancelled", turn.turn_id)
        assert turn.status == "cancelled"
        assert engine.upstream.runs == []
        await engine.check_whole(started[0])
        engine.check_idle()


@HOW
async def test_cancelled_mid_stream(kit: Any, how: str) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated("half an answer"))
        watcher = kit.Watcher()
        work = engine.queries.run(engine.params(), kit.caller(), subscriber=watcher)
        async with cancellable(how, work) as (cancel, ended):
            await kit.soon(gate.reached)
            cancel()
            error = await ended
        assert (error.kind, error.data["text"]) == ("request_cancelled", "half an answer")
        (turn,) = await engine.store.turns(error.data["session_id"])
        assert (turn.turn_id, turn.status, turn.error) == (error.data["turn_id"], "cancelled", None)
        assert engine.upstream.interrupts == 1
        assert not engine.upstream.runs[0].cancelled, "it was asked to stop, not cut off"
        end = (await engine.events(turn.session_id))[-1]
        assert (end.status, end.error) == ("cancelled", None)
        # The one who cancelled sees no more; others do.
        await engine.check_whole(turn.session_id)
        engine.check_idle()


async def test_cancelled_when_it_had_just_ended(kit: Any) -> None:
    async with kit.engine() as engine:
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.until(lambda: engine.queries.live == 1)
        await kit.until(lambda: engine.queries.live == 0)  # the one who waits has not been woken yet
        work.cancel()
        error = await kit.ended(work)
        assert (error.kind, error.data["text"]) == ("request_cancelled", "hello")
        (turn,) = await engine.store.turns(error.data["session_id"])
        assert (turn.status, turn.turn_id) == ("completed", error.data["turn_id"])
        engine.check_idle()


async def test_cancelled_while_its_process_is_being_closed(kit: Any) -> None:
    async with kit.engine() as engine:
        watcher = kit.Watcher()
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), subscriber=watcher))
        await watcher.sees(TurnCompleted)
        work.cancel()
        error = await kit.ended(work)
        assert (error.kind, error.data["text"]) == ("request_cancelled", "hello")
        await engine.check_whole(error.data["session_id"])
        engine.check_idle()


async def test_cancelled_after_a_failure_tells_the_failure(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(kit.failing("overload"))
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.until(lambda: engine.queries.live == 1)
        await kit.until(lambda: engine.queries.live == 0)
        work.cancel()
        assert (await kit.ended(work)).kind == "upstream_overloaded"


async def test_an_upstream_that_does_not_stop_is_cut_off(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "INTERRUPT_PATIENCE_S", 0)
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated(stubborn=True))
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        work.cancel()
        error = await kit.ended(work)
        assert (error.kind, error.data["text"]) == ("request_cancelled", "half")
        assert engine.upstream.runs[0].cancelled
        await engine.check_whole(error.data["session_id"])
        engine.check_idle()


async def test_an_interrupt_that_fails_cuts_the_turn_off(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated(stubborn=True))
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)

        async def broken() -> bool:
            raise LookupError("bug")

        engine.upstream.runs[0].interrupt = broken
        work.cancel()
        assert (await kit.ended(work)).kind == "request_cancelled"
        engine.check_idle()


async def test_who_cancelled_does_not_wait_for_ever(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_PATIENCE_S", 0)
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated(stubborn=True))
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        work.cancel()
        error = await kit.ended(work)
        assert (error.kind, error.data["text"]) == ("request_cancelled", "half")
        assert engine.queries.live == 1
        gate.go.set()
        await kit.until(lambda: engine.queries.live == 0)
        engine.check_idle()


async def test_cancelled_twice(kit: Any) -> None:
    """`$/cancelRequest`, and then the connection closes while the turn is being stopped."""
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated(stubborn=True))
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        work.cancel()
        await kit.until(lambda: engine.upstream.interrupts == 1)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        gate.go.set()
        await kit.until(lambda: engine.queries.live == 0)
        engine.check_idle()


# -- stopped from elsewhere


async def test_interrupted_by_somebody_else(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        started: list[str] = []
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.soon(gate.reached)
        engine.queries.turn_of(started[0]).stop("client")
        error = await kit.ended(work)
        assert (error.kind, error.data["text"]) == ("request_cancelled", "half")


@pytest.mark.parametrize("state", ["queued", "opening", "streaming"])
async def test_the_daemon_stops(kit: Any, state: str) -> None:
    async with kit.engine(max_running=1) as engine:
        gate = kit.Gated()
        first = None
        if state == "opening":
            engine.upstream.hold_open = asyncio.Event()
        else:
            engine.upstream.scripts.append(gate)
        watcher = kit.Watcher()
        if state == "queued":
            first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
            await kit.soon(gate.reached)
        work = asyncio.create_task(
            engine.queries.run(engine.params(message_id="m"), kit.caller(), subscriber=watcher)
        )
        await watcher.sees(Waiting if state == "queued" else TurnStarted)
        if state == "streaming":
            await kit.soon(gate.reached)
        engine.queries.stop_all()
        error = await kit.ended(work)
        session_id = watcher.seen[0].params.session_id
        if state == "queued":
            assert error.kind == "draining"
            assert (await kit.ended(first)).kind == "turn_interrupted"
        else:
            assert (error.kind, error.data["message_id"]) == ("turn_interrupted", "m")
            assert "continue the session with a new turn" in str(error)
            (turn,) = await engine.store.turns(session_id)
            assert turn.status == "interrupted"
            end = (await engine.events(session_id))[-1]
            assert (end.status, end.error["kind"]) == ("interrupted", "turn_interrupted")
            await engine.check_whole(session_id)
        await kit.refused("draining", engine.queries.run(engine.params(), kit.caller()))
        engine.check_idle()


async def test_the_engine_is_torn_down(kit: Any) -> None:
    """Its tasks are cancelled outright: whoever waits is told, and the turn is found at the next start."""
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        started: list[str] = []
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.soon(gate.reached)
        engine.tasks.cancel_scope.cancel()
        error = await kit.ended(work)
        assert error.kind == "draining"
        assert engine.upstream.runs[0].closed
        (turn,) = await engine.store.turns(started[0])
        assert turn.status == "running"


# -- the deadline


async def test_the_deadline_of_a_turn(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(kit.Gated("too slow", stubborn=True))
        error = await kit.refused(
            "deadline_exceeded", engine.queries.run(engine.params(timeout_ms=20), kit.caller())
        )
        assert error.data["text"] in (None, "too slow")
        (turn,) = await engine.store.turns(error.data["session_id"])
        assert (turn.status, msgspec.json.decode(turn.error)["kind"]) == ("failed", "deadline_exceeded")
        await engine.check_whole(turn.session_id)
        engine.check_idle()


async def test_the_default_deadline(kit: Any) -> None:
    async with kit.engine(timeout_ms=20) as engine:
        engine.upstream.scripts.append(kit.Gated(stubborn=True))
        await kit.refused("deadline_exceeded", engine.queries.run(engine.params(), kit.caller()))


async def test_time_spent_on_a_permission_does_not_count(kit: Any) -> None:
    async with kit.engine() as engine:
        person = kit.Person()
        asking, go = asyncio.Event(), asyncio.Event()

        async def script(turn: Any) -> TurnOutcome:
            asking.set()
            answer = await turn.may("Write", path="x")
            await go.wait()
            return TurnOutcome(status="completed", text="allowed" if answer.allow else "denied")

        engine.upstream.scripts.append(script)
        started: list[str] = []
        work = asyncio.create_task(
            engine.queries.run(
                engine.params(timeout_ms=3000), kit.caller(approver=person), started=started.append
            )
        )
        await kit.soon(person.was_asked)
        turn = engine.queries.turn_of(started[0])
        assert turn.deadline.scope.deadline == float("inf")
        person.says("allow")
        await kit.until(lambda: engine.permissions.pending == 0)
        go.set()
        assert (await work).text == "allowed"


async def test_cancelled_while_its_run_is_being_recorded(kit: Any) -> None:
    async with kit.engine() as engine:
        writing, go, whole = asyncio.Event(), asyncio.Event(), engine.store.record_run

        async def slow(run: Any) -> None:
            writing.set()
            await go.wait()
            await whole(run)

        engine.store.record_run = slow
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(writing)
        work.cancel()
        await kit.until(lambda: engine.upstream.closed != [])
        go.set()
        error = await kit.ended(work)
        assert error.kind == "request_cancelled"
        assert engine.upstream.prompts == []
        await engine.check_whole(error.data["session_id"])
        engine.check_idle()


async def test_stopped_in_the_step_in_which_its_run_opens(kit: Any) -> None:
    """Cancelled before the writes of the record have even begun."""
    async with kit.engine() as engine:
        started: list[str] = []
        real_open = type(engine.upstream).open

        async def opened(spec: Any, ask: Any) -> Any:
            run = await real_open(engine.upstream, spec, ask)
            engine.queries.turn_of(started[0]).stop("client")
            engine.queries.turn_of(started[0]).deadline.scope.cancel()
            return run

        engine.upstream.open = opened
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        error = await kit.ended(work)
        assert error.kind == "request_cancelled"
        assert engine.upstream.runs[0].closed
        await engine.check_whole(started[0])
        engine.check_idle()


async def test_stopped_before_it_had_to_wait_for_anything(kit: Any) -> None:
    """It is let in without waiting, so nothing tells it that it was stopped: no turn may begin."""
    async with kit.engine() as engine:
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await asyncio.sleep(0)
        assert engine.queries.live == 1
        engine.queries.stop_all()
        assert (await kit.ended(work)).kind == "draining"
        assert (await engine.store.counts())["turns"] == 0
        engine.check_idle()


async def test_what_nobody_was_told_of_is_in_the_error(kit: Any) -> None:
    """Deltas are made only while somebody watches; what had come of the answer is kept all the same."""
    async with kit.engine() as engine:
        for told, known, text in (("", "half an answer", "half an answer"), ("half", "half an", "half an"),
                                  ("newer", "older", "newer"), ("", "", None)):  # fmt: skip

            async def script(turn: Any, told: str = told, known: str = known) -> TurnOutcome:
                if told:
                    turn.say(told)
                failure = Failure("overload", "broken off")
                return TurnOutcome(status="failed", text=known, failure=failure, message_count=1)

            engine.upstream.scripts.append(script)
            with pytest.raises(EngineError) as failed:
                await engine.queries.run(engine.params(), kit.caller())
            assert failed.value.data["text"] == text
