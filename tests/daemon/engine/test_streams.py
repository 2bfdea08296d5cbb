"""Open sessions (00.38, 00.39): one process for many turns, and every way in which it, or a turn of it, ends.
"""

import asyncio
from typing import Any

import pytest
from dragoman_protocol.stream import (
    StreamSendParams,
    TurnCompleted,
    TurnStarted,
    UserMessage,
    Waiting,
)
from dragomand.engine import turn as turn_module
from dragomand.engine.admission import explained
from dragomand.store.errors import StorageFullError
from dragomand.upstream.interface import Failure, TurnOutcome, UpstreamError


async def opened(engine: Any, kit: Any, who: Any = None, **chosen: Any) -> tuple[str, Any]:
    """Open a stream and watch it."""
    session_id, channel = await engine.streams.open(engine.opening(**chosen), who or kit.caller())
    watcher = kit.Watcher()
    watcher.leave = channel.subscribe(watcher)
    return session_id, watcher


async def send(
    engine: Any, kit: Any, session_id: str, prompt: Any = "hi", who: Any = None, message_id: str | None = None
) -> str:
    params = StreamSendParams(session_id=session_id, prompt=prompt, message_id=message_id)
    turn_id: str = await engine.streams.send(params, who or kit.caller())
    return turn_id


async def test_one_process_for_many_turns(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit, title="T", tags=["x"], model="opus")
        assert await engine.store.session(session_id) is None, "a session begins with its first turn"
        assert (engine.sessions.open, engine.streams.count, engine.streams.busy) == (1, 1, False)
        turns = []
        for number in range(3):
            turns.append(await send(engine, kit, session_id, f"prompt {number}"))
            await watcher.sees(TurnCompleted, times=number + 1)
            assert not engine.streams.busy
        assert len(set(turns)) == 3
        (run,) = engine.upstream.runs
        assert (run.turns, run.closed, run.spec.model) == (3, False, "opus")
        assert engine.upstream.prompts == ["prompt 0", "prompt 1", "prompt 2"]
        session = await engine.store.session(session_id)
        assert (session.title, session.tags, session.model, session.turn_count) == ("T", ("x",), "opus", 3)
        assert (engine.admission.running, engine.admission.queued) == (0, 0)
        watcher.leave()
        await engine.streams.close(session_id)
        assert run.closed
        await engine.check_whole(session_id)
        (record,) = await engine.store.runs(session_id)
        assert record.ended_at is not None
        engine.check_idle()


async def test_a_stream_without_a_turn_leaves_nothing(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        watcher.leave()
        await engine.streams.close(session_id)
        assert (await engine.store.counts())["sessions"] == 0
        engine.check_idle()


async def test_the_answer_to_send_comes_when_the_turn_has_begun(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id)
        (row,) = await engine.store.turns(session_id)
        assert (row.turn_id, row.status) == (turn_id, "running")
        assert engine.streams.turn_of(session_id).turn_id == turn_id
        assert engine.streams.turn_of("other") is None
        gate.go.set()
        await watcher.sees(TurnCompleted)


async def test_a_stored_session_is_continued(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        session_id, watcher = await opened(engine, kit, session_id=first.session_id)
        assert session_id == first.session_id
        assert engine.upstream.runs[1].spec.resume == first.session_id
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted)
        assert [event.params.seq for event in watcher.seen if event.params.seq] == [6, 7, 8, 9, 10]
        watcher.leave()
        await engine.streams.close(session_id)
        # And by a query again, on the same conversation.
        await engine.queries.run(engine.params(session_id=session_id), kit.caller())
        await engine.check_whole(session_id)
        engine.check_idle()


# -- what cannot be opened


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        ("session_not_found", {"session_id": "nothing"}),
        ("invalid_params", {"cwd": None}),
        ("invalid_cwd", {"cwd": "relative"}),
        ("invalid_params", {"max_turns": 0}),
        ("scope_required", {"permission_mode": "bypassPermissions"}),
    ],
)
async def test_what_is_refused(kit: Any, kind: str, chosen: dict[str, Any]) -> None:
    async with kit.engine() as engine:
        await kit.refused(kind, engine.streams.open(engine.opening(**chosen), kit.caller()))
        assert not engine.upstream.opening.is_set()
        await kit.until(lambda: engine.streams.count == 0)
        engine.check_idle()


async def test_without_a_credential(kit: Any) -> None:
    async with kit.engine(api_key=None) as engine:
        await kit.refused("auth_required", engine.streams.open(engine.opening(), kit.caller()))
        await kit.refused("auth_required", send(engine, kit, "s"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UpstreamError(Failure("missing", "no claude")), "claude_not_found"),
        (LookupError("bug"), "internal_error"),
    ],
)
async def test_a_process_that_does_not_start(kit: Any, error: Exception, kind: str) -> None:
    async with kit.engine() as engine:
        engine.upstream.open_errors = [error]
        await kit.refused(kind, engine.streams.open(engine.opening(), kit.caller()))
        engine.check_idle()
        await opened(engine, kit)


async def test_only_so_many(kit: Any) -> None:
    async with kit.engine(max_open=2) as engine:
        engine.upstream.hold_open = asyncio.Event()
        opening = [asyncio.create_task(engine.streams.open(engine.opening(), kit.caller())) for _ in range(2)]
        await kit.until(lambda: engine.streams.count == 2)
        error = await kit.refused("queue_full", engine.streams.open(engine.opening(), kit.caller()))
        assert error.data == {"limit": 2}
        assert "stream/close" in str(error)
        engine.upstream.hold_open.set()
        for task in opening:
            await engine.streams.close((await task)[0])
        await opened(engine, kit)


async def test_one_stream_a_session(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        await opened(engine, kit, session_id=first.session_id)
        again = engine.streams.open(engine.opening(session_id=first.session_id), kit.caller())
        await kit.refused("session_busy", again)
        query = engine.queries.run(engine.params(session_id=first.session_id), kit.caller())
        assert "use stream/send" in str(await kit.refused("session_busy", query))
        deletion = engine.sessions.delete(first.session_id)
        await kit.refused("session_busy", deletion)


async def test_not_while_a_query_runs_in_it(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        engine.upstream.scripts.append(gate := kit.Gated())
        query = asyncio.create_task(
            engine.queries.run(engine.params(session_id=first.session_id), kit.caller())
        )
        await kit.soon(gate.reached)
        opening = engine.streams.open(engine.opening(session_id=first.session_id), kit.caller())
        await kit.refused("session_busy", opening)
        gate.go.set()
        assert (await query).text == "half and half"
        await engine.check_whole(first.session_id)


@pytest.mark.parametrize("how", ["cancelled", "closed", "stopped"])
async def test_given_up_while_it_starts(kit: Any, how: str) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        engine.upstream.hold_open = asyncio.Event()
        engine.upstream.opening.clear()
        opening = asyncio.create_task(
            engine.streams.open(engine.opening(session_id=first.session_id), kit.caller())
        )
        await kit.soon(engine.upstream.opening)
        if how == "cancelled":
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        elif how == "closed":
            await engine.streams.close(first.session_id)
            await kit.refused("stream_not_open", opening)
        else:
            engine.streams.stop_all()
            await kit.refused("draining", opening)
        await kit.until(lambda: engine.streams.count == 0)
        engine.check_idle()


# -- messages


async def test_not_open(kit: Any) -> None:
    async with kit.engine() as engine:
        await kit.refused("stream_not_open", send(engine, kit, "nothing"))
        await kit.refused("stream_not_open", engine.streams.close("nothing"))
        engine.upstream.hold_open = asyncio.Event()
        first = asyncio.create_task(engine.streams.open(engine.opening(), kit.caller()))
        await kit.soon(engine.upstream.opening)
        await kit.refused("stream_not_open", send(engine, kit, next(iter(engine.streams._open))))
        first.cancel()
        await asyncio.wait([first])


async def test_one_message_at_a_time(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id)
        error = await kit.refused("session_busy", send(engine, kit, session_id, "another"))
        assert error.data["turn_id"] == turn_id
        gate.go.set()
        await watcher.sees(TurnCompleted)
        await send(engine, kit, session_id, "another")
        await watcher.sees(TurnCompleted, times=2)


async def test_whoever_writes_must_be_allowed_what_it_was_opened_with(kit: Any) -> None:
    async with kit.engine() as engine:
        admin = kit.caller(scopes="query tools approve admin")
        session_id, _ = await opened(engine, kit, who=admin, permission_mode="bypassPermissions")
        assert (await kit.refused("scope_required", send(engine, kit, session_id))).data["needed"] == "admin"
        assert await send(engine, kit, session_id, who=admin)


async def test_a_question_goes_to_whoever_sent_the_message(kit: Any) -> None:
    async with kit.engine() as engine:
        person, answers = kit.Person(), []

        async def script(turn: Any) -> TurnOutcome:
            answers.append(await turn.may())
            return TurnOutcome(status="completed", text="ok")

        engine.upstream.scripts = [script, script]
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id, who=kit.caller("other", approver=person))
        await kit.soon(person.was_asked)
        person.says("allow")
        await watcher.sees(TurnCompleted)
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted, times=2)
        assert [answer.allow for answer in answers] == [True, False]


async def test_the_same_message_twice_runs_once(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        session_id, watcher = await opened(engine, kit)
        ends = await asyncio.gather(*(send(engine, kit, session_id, message_id="m") for _ in range(3)))
        assert len(set(ends)) == 1
        assert await send(engine, kit, session_id, message_id="m") == ends[0]
        await kit.refused("message_conflict", send(engine, kit, session_id, "other", message_id="m"))
        gate.go.set()
        await watcher.sees(TurnCompleted)
        assert await send(engine, kit, session_id, message_id="m") == ends[0]
        await kit.refused("message_conflict", send(engine, kit, session_id, "other", message_id="m"))
        watcher.leave()
        await engine.streams.close(session_id)
        assert await send(engine, kit, session_id, message_id="m") == ends[0], "known even when it is closed"
        assert len(engine.upstream.prompts) == 1


async def test_a_message_of_a_query(kit: Any) -> None:
    async with kit.engine() as engine:
        await engine.queries.run(engine.params(message_id="m"), kit.caller())
        session_id, watcher = await opened(engine, kit)
        await kit.refused("message_conflict", send(engine, kit, session_id, message_id="m"))
        # Even when it came in the same instant.
        whole = engine.store.turn_by_message

        async def not_yet(_message_id: str) -> None:
            engine.store.turn_by_message = whole

        engine.store.turn_by_message = not_yet
        await kit.refused("message_conflict", send(engine, kit, session_id, message_id="m"))
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted)
        await engine.check_whole(session_id)


async def test_one_who_gives_up_before_the_message_is_accepted(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        whole, opening, go = engine.store.open_turn, asyncio.Event(), asyncio.Event()

        async def slow(*args: Any) -> None:
            opening.set()
            await go.wait()
            await whole(*args)

        engine.store.open_turn = slow
        sending = asyncio.create_task(send(engine, kit, session_id))
        await kit.soon(opening)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        go.set()
        await watcher.sees(TurnCompleted)
        assert watcher.seen[-1].params.event.status == "cancelled"
        assert engine.upstream.prompts == []
        await engine.check_whole(session_id)
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted, times=2)
        await engine.check_whole(session_id)


# -- the door


async def test_a_message_that_waits_is_accepted_and_told_so(kit: Any) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id)
        assert watcher.kinds == ["Waiting"]
        assert engine.streams.turn_of(session_id).turn_id == turn_id
        gate.go.set()
        await query
        await watcher.sees(TurnCompleted)
        assert watcher.kinds[:3] == ["Waiting", "TurnStarted", "UserMessage"]
        await engine.check_whole(session_id)


async def test_a_full_queue_refuses_the_message(kit: Any) -> None:
    async with kit.engine(max_running=1, max_queued=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        queries = [asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))]
        await kit.soon(gate.reached)
        queries.append(asyncio.create_task(engine.queries.run(engine.params(), kit.caller())))
        await kit.until(lambda: engine.admission.queued == 1)
        session_id, watcher = await opened(engine, kit)
        await kit.refused("queue_full", send(engine, kit, session_id))
        assert watcher.seen == []
        assert not engine.streams.busy
        gate.go.set()
        await asyncio.gather(*queries)
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted)
        await engine.check_whole(session_id)


async def test_a_message_that_was_accepted_and_not_admitted_in_time_is_a_turn_that_failed(kit: Any) -> None:
    async with kit.engine(max_running=1, queue_timeout_ms=10) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id, message_id="m")
        await watcher.sees(TurnCompleted)
        end = watcher.seen[-1].params
        assert (end.event.turn_id, end.event.status, end.event.error["kind"]) == (
            turn_id,
            "failed",
            "queue_timeout",
        )
        assert end.seq == 3
        assert len(engine.upstream.prompts) == 1, "only the query's"
        assert await send(engine, kit, session_id, message_id="m") == turn_id
        gate.go.set()
        await query
        await send(engine, kit, session_id, "again")
        await watcher.sees(TurnCompleted, times=2)
        assert (await engine.store.session(session_id)).turn_count == 2
        await engine.check_whole(session_id)


async def test_a_stream_may_be_a_batch_whose_turns_wait_as_long_as_it_takes(kit: Any) -> None:
    """A person's turn that waits for the same place ends at `limits.queueTimeoutMs`."""
    async with kit.engine(max_running=1, queue_timeout_ms=10) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        batch, of_batch = await opened(engine, kit, priority="batch")
        person, of_person = await opened(engine, kit, kit.caller("client-2"))
        await send(engine, kit, batch, "of the batch")
        (waiting,) = explained(engine.admission, None).waiting
        assert (waiting.priority, waiting.expires_at) == ("batch", None)
        await send(engine, kit, person, "of the person")
        await of_person.sees(TurnCompleted)
        assert of_person.seen[-1].params.event.error["kind"] == "queue_timeout"
        assert of_batch.kinds == ["Waiting"], "it came before, and waits on"
        gate.go.set()
        await query
        await of_batch.sees(TurnCompleted)
        assert of_batch.seen[-1].params.event.status == "completed"
        await engine.check_whole(batch)


@pytest.mark.parametrize("how", ["interrupt", "close", "shutdown"])
async def test_stopped_while_it_waits(kit: Any, how: str) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id)
        if how == "interrupt":
            engine.streams.turn_of(session_id).stop("client")
        elif how == "close":
            await engine.streams.close(session_id)
        else:
            engine.streams.stop_all()
        await watcher.sees(TurnCompleted)
        end = watcher.seen[-1].params.event
        assert (end.turn_id, end.status) == (turn_id, "interrupted" if how == "shutdown" else "cancelled")
        assert (engine.admission.running, engine.admission.queued) == (1, 0)
        gate.go.set()
        await query
        await engine.check_whole(session_id)
        assert len(engine.upstream.prompts) == 1


async def test_stopped_in_the_instant_before_it_would_wait(kit: Any) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        session_id, watcher = await opened(engine, kit)
        sending = asyncio.create_task(send(engine, kit, session_id))
        await kit.until(lambda: engine.streams.turn_of(session_id) is not None)
        assert engine.admission.queued == 0
        assert not engine.streams.interrupt(session_id, "another")
        assert engine.streams.interrupt(session_id)
        turn_id = await sending
        await watcher.sees(TurnCompleted)
        end = watcher.seen[-1].params.event
        assert (end.turn_id, end.status) == (turn_id, "cancelled")
        assert engine.admission.queued == 0
        assert not engine.streams.interrupt(session_id)
        gate.go.set()
        await query
        assert len(engine.upstream.prompts) == 1


# -- ends of a turn


async def test_interrupted_and_then_used_further(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id)
        await kit.soon(gate.reached)
        engine.streams.turn_of(session_id).stop("client")
        await watcher.sees(TurnCompleted)
        assert watcher.seen[-1].params.event.status == "cancelled"
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted, times=2)
        assert watcher.seen[-1].params.event.status == "completed"
        assert len(engine.upstream.runs) == 1
        await engine.check_whole(session_id)


async def test_a_turn_that_does_not_stop_costs_the_process(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "INTERRUPT_PATIENCE_S", 0)
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated(stubborn=True))
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id)
        await kit.soon(gate.reached)
        engine.streams.turn_of(session_id).stop("client")
        await watcher.sees(TurnCompleted)
        assert watcher.seen[-1].params.event.status == "cancelled"
        watcher.leave()
        await kit.until(lambda: engine.streams.count == 0)
        assert engine.upstream.runs[0].closed
        await engine.check_whole(session_id)
        engine.check_idle()
        # The session itself can be opened again.
        await opened(engine, kit, session_id=session_id)


@pytest.mark.parametrize(
    ("category", "ends"),
    [
        ("overload", False),
        ("throttle", False),
        ("caller", False),
        ("crash", True),
        ("protocol", True),
        ("auth", True),
        ("mismatch", True),
    ],
)
async def test_which_failures_end_the_stream(kit: Any, category: Any, ends: bool) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(kit.failing(category))
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted)
        assert watcher.seen[-1].params.event.status == "failed"
        if ends:
            await kit.refused("stream_not_open", send(engine, kit, session_id))
            await kit.until(lambda: engine.streams.count == 0)
            assert engine.upstream.runs[0].closed
        else:
            await send(engine, kit, session_id)
            await watcher.sees(TurnCompleted, times=2)
        await engine.check_whole(session_id)


async def test_a_turn_goes_on_when_nobody_watches(kit: Any) -> None:
    async with kit.engine(idle_s=0.001) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id)
        watcher.leave()
        await kit.soon(gate.reached)
        gate.go.set()
        await kit.until(lambda: engine.streams.count == 0)
        assert [row.status for row in await engine.store.turns(session_id)] == ["completed"]
        assert engine.upstream.runs[0].closed
        engine.check_idle()


async def test_the_daemon_may_leave_when_the_last_turn_is_over(kit: Any) -> None:
    """Whoever is told that nothing runs any more must find it so."""
    async with kit.engine() as engine:
        told: list[bool] = []
        engine.admission.on_idle = lambda: told.append(engine.streams.busy)
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id)
        assert engine.streams.busy
        await watcher.sees(TurnCompleted)
        await kit.until(lambda: bool(told))
        assert told == [False]


# -- ends of a stream


@pytest.mark.parametrize("how", ["close", "shutdown"])
async def test_closed_in_the_middle_of_a_turn(kit: Any, how: str) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id)
        await kit.soon(gate.reached)
        if how == "close":
            await engine.streams.close(session_id)
        else:
            engine.streams.stop_all()
            await kit.until(lambda: engine.streams.count == 0)
            await kit.refused("draining", engine.streams.open(engine.opening(), kit.caller()))
        end = watcher.seen[-1].params.event
        assert (end.turn_id, end.status) == (turn_id, "cancelled" if how == "close" else "interrupted")
        assert not engine.upstream.runs[0].cancelled, "asked to stop, and only then closed"
        await engine.check_whole(session_id)
        watcher.leave()
        engine.sessions.tidy(session_id)
        engine.check_idle()


@pytest.mark.parametrize("how", ["closed", "unused"])
async def test_no_message_while_it_closes(kit: Any, how: str) -> None:
    async with kit.engine(idle_s=0.01 if how == "unused" else 60) as engine:
        session_id, watcher = await opened(engine, kit)
        closing, go = asyncio.Event(), asyncio.Event()
        run = engine.upstream.runs[0]
        whole = run.close

        async def slow() -> None:
            closing.set()
            await go.wait()
            await whole()

        run.close = slow
        watcher.leave()
        close = asyncio.create_task(engine.streams.close(session_id)) if how == "closed" else None
        await kit.soon(closing)
        await kit.refused("stream_not_open", send(engine, kit, session_id))
        go.set()
        await kit.until(lambda: engine.streams.count == 0)
        if close is not None:
            await close
        engine.check_idle()


async def test_unused_it_closes_by_itself(kit: Any) -> None:
    async with kit.engine(idle_s=0.01) as engine:
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted)
        # As long as somebody watches, it stays: there is no timer at all.
        assert engine.streams.count == 1
        watcher.leave()
        await kit.until(lambda: engine.streams.count == 0)
        assert engine.upstream.runs[0].closed
        engine.check_idle()


async def test_watching_again_keeps_it(kit: Any) -> None:
    async with kit.engine(idle_s=0.05) as engine:
        session_id, channel = await engine.streams.open(engine.opening(), kit.caller())
        for _ in range(3):
            watcher = kit.Watcher()
            leave = channel.subscribe(watcher)
            await send(engine, kit, session_id)
            await watcher.sees(TurnCompleted)
            leave()
        assert engine.streams.count == 1
        await kit.until(lambda: engine.streams.count == 0)
        engine.check_idle()


async def test_never_watched_it_closes_too(kit: Any) -> None:
    async with kit.engine(idle_s=0.01) as engine:
        await engine.streams.open(engine.opening(), kit.caller())
        await kit.until(lambda: engine.streams.count == 0)
        engine.check_idle()


async def test_a_process_that_cannot_be_closed_is_logged(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        engine.upstream.close_error = LookupError("bug")
        watcher.leave()
        await engine.streams.close(session_id)
        engine.upstream.close_error = None
        assert "LookupError: bug" in caplog.text
        engine.check_idle()


@pytest.mark.parametrize("state", ["starting", "resting", "in a turn"])
async def test_the_engine_is_torn_down(kit: Any, state: str) -> None:
    """No process is left over, and whoever waits is told."""
    async with kit.engine() as engine:
        if state == "starting":
            engine.upstream.hold_open = asyncio.Event()
            opening = asyncio.create_task(engine.streams.open(engine.opening(), kit.caller()))
            await kit.soon(engine.upstream.opening)
            engine.tasks.cancel_scope.cancel()
            assert (await kit.ended(opening)).kind == "stream_not_open"
            assert engine.upstream.runs == []
        else:
            engine.upstream.scripts.append(gate := kit.Gated())
            session_id, watcher = await opened(engine, kit)
            if state == "in a turn":
                await send(engine, kit, session_id)
                await kit.soon(gate.reached)
            watcher.leave()
            engine.tasks.cancel_scope.cancel()
            await kit.until(lambda: engine.streams.count == 0)
            assert engine.upstream.runs[0].closed
        assert engine.sessions.open == 0


# -- the store fails


async def test_a_message_that_cannot_be_written_is_refused(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        whole = engine.store.open_turn

        async def full(*_args: Any) -> None:
            engine.store.open_turn = whole
            raise StorageFullError("/db", "no space")

        engine.store.open_turn = full
        await kit.refused("storage_full", send(engine, kit, session_id, message_id="m"))
        assert (watcher.seen, engine.upstream.prompts) == ([], [])
        assert await send(engine, kit, session_id, message_id="m")
        await watcher.sees(TurnCompleted)
        await engine.check_whole(session_id)


async def test_after_it_was_accepted_the_end_is_told_without_a_row(kit: Any) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id)
        whole = engine.store.open_turn

        async def full(*_args: Any) -> None:
            raise StorageFullError("/db", "no space")

        engine.store.open_turn = full
        gate.go.set()
        await query
        await watcher.sees(TurnCompleted)
        end = watcher.seen[-1].params
        assert (end.seq, end.event.turn_id, end.event.error["kind"]) == (None, turn_id, "storage_full")
        engine.store.open_turn = whole
        assert not engine.streams.busy
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted, times=2)


async def test_a_bug_in_the_upstream_is_the_end_of_one_turn(kit: Any) -> None:
    async with kit.engine() as engine:

        async def script(turn: Any) -> TurnOutcome:
            raise LookupError("bug")

        engine.upstream.scripts.append(script)
        session_id, watcher = await opened(engine, kit)
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted)
        assert watcher.seen[-1].params.event.error["kind"] == "internal_error"
        assert watcher.kinds == ["TurnStarted", "UserMessage", "TurnCompleted"]
        await engine.check_whole(session_id)


async def test_a_bug_in_the_engine_is_told(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        whole = engine.store.open_turn

        async def bug(*_args: Any) -> None:
            engine.store.open_turn = whole
            raise LookupError("bug")

        engine.store.open_turn = bug
        assert (await kit.refused("internal_error", send(engine, kit, session_id))).data[
            "detail"
        ] == "LookupError"
        await send(engine, kit, session_id)
        await watcher.sees(TurnCompleted)
        await engine.check_whole(session_id)


async def test_what_everybody_sees(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id, watcher = await opened(engine, kit)
        turn_id = await send(engine, kit, session_id, "what?", message_id="m")
        await watcher.sees(TurnCompleted)
        first, second = (event.params.event for event in watcher.seen[:2])
        assert first == TurnStarted(
            turn_id=turn_id,
            message_id="m",
            queued_ms=first.queued_ms,
            upstream_reason="an open stream is a Claude Code process",
        )
        assert isinstance(second, UserMessage)
        assert second.content == "what?"
        assert not any(isinstance(event.params.event, Waiting) for event in watcher.seen)
