"""Sessions that begin with another one's turns: what they take over, and how their first turn resumes it."""

import asyncio
import uuid
from typing import Any

import pytest
from dragoman_protocol.query import ForkChoice
from dragoman_protocol.session import SessionForkParams
from dragoman_protocol.stream import StreamSendParams, TurnCompleted, TurnStarted
from dragomand.engine.history import load_history
from dragomand.upstream.interface import Failure, UpstreamError

MISMATCH = UpstreamError(Failure("mismatch", "not that one"))


async def two_turns(engine: Any, kit: Any, **chosen: Any) -> list[Any]:
    """Run "a" and "b" in one session; their results."""
    engine.upstream.scripts = [
        kit.answering("one", cost_usd=0.25),
        kit.answering("two", message_count=4, cost_usd=0.5),
    ]
    first = await engine.queries.run(engine.params("a", **chosen), kit.caller())
    second = await engine.queries.run(engine.params("b", session_id=first.session_id), kit.caller())
    return [first, second]


def at(result: Any, turn: str | None = None) -> ForkChoice:
    return ForkChoice(session_id=result.session_id, at_turn_id=turn)


async def test_a_query_goes_on_from_a_turn(kit: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit, title="T", tags=["x"])
        seen: list[str] = []
        watcher = kit.Watcher()
        params = engine.params("c", fork=at(one, one.turn_id))
        forked = await engine.queries.run(params, kit.caller(), started=seen.append, subscriber=watcher)
        assert seen == [forked.session_id]
        assert forked.session_id != one.session_id
        spec = engine.upstream.runs[-1].spec
        assert (spec.resume, spec.fork, spec.resume_holds) == (one.claude_session_id, True, "leaf of one")
        assert (spec.resume_message_count, spec.session_id) == (2, forked.session_id)
        assert str(spec.cwd) == str(engine.cwd)
        # Who watches the query sees its own events, numbered after those that were taken over.
        numbers = [event.params.seq for event in watcher.seen if event.params.seq]
        got = await engine.sessions.get(forked.session_id)
        assert got.session.forked_from.session_id == one.session_id
        assert (got.session.forked_from.turn_id, got.session.forked_from.seq) == (one.turn_id, numbers[0] - 1)
        assert (got.session.title, got.session.tags) == ("T", ["x"])
        assert [turn.forked_from for turn in got.turns] == [one.turn_id, None]
        await engine.check_whole(forked.session_id)
        texts = [message.content for message in await load_history(engine.store, forked.session_id)]
        assert texts == ["a", "one", "c", "hello"]
        events = await engine.events(forked.session_id)
        named = [event.turn_id for event in events if isinstance(event, TurnStarted | TurnCompleted)]
        assert named == [turn.turn_id for turn in got.turns for _ in range(2)], "its own turns, everywhere"
        # The original has not changed, and each cost is counted once.
        original = await engine.sessions.get(one.session_id)
        assert (original.session.turn_count, original.session.cost_usd) == (2, 0.75)
        assert got.session.cost_usd is None
        assert [turn.cost_usd for turn in got.turns] == [0.25, None]
        # From now on it is a session like any other.
        await engine.queries.run(engine.params("d", session_id=forked.session_id), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.resume, spec.fork, spec.resume_holds) == (forked.session_id, False, None)
        engine.check_idle()


async def test_a_session_that_runs_is_forked_at_its_last_end(kit: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)
        gate = kit.Gated()
        engine.upstream.scripts = [gate]
        running = asyncio.create_task(
            engine.queries.run(engine.params("slow", session_id=one.session_id), kit.caller())
        )
        await kit.soon(gate.reached)
        turn = engine.queries.turn_of(one.session_id).turn_id
        refused = engine.queries.run(engine.params("x", fork=at(one, turn)), kit.caller())
        error = await kit.refused("invalid_params", refused)
        assert error.data["path"] == "$.fork.atTurnId"
        forked = await engine.queries.run(engine.params("c", fork=at(one)), kit.caller())
        assert engine.upstream.runs[-1].spec.resume_holds == "leaf of two"
        assert (await engine.sessions.get(forked.session_id)).session.turn_count == 3
        gate.go.set()
        await kit.ended(running)
        assert (await engine.sessions.get(one.session_id)).session.turn_count == 3
        engine.check_idle()


async def test_a_fork_may_be_made_before_anything_is_asked(kit: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)
        made = await engine.queries._choice._forks.fork(
            SessionForkParams(session_id=one.session_id, title="other", tags=["y"]), "me"
        )
        assert (made.title, made.tags, made.state, made.turn_count) == ("other", ["y"], "idle", 2)
        assert engine.upstream.runs[-1].turns == 1, "nobody was asked"
        # The original goes on, and the fork begins where it was forked nevertheless.
        await engine.queries.run(engine.params("more", session_id=one.session_id), kit.caller())
        await engine.queries.run(engine.params("c", session_id=made.session_id), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.fork, spec.resume, spec.resume_holds) == (True, one.claude_session_id, "leaf of two")
        assert (spec.session_id, spec.resume_message_count) == (made.session_id, 4)
        engine.check_idle()


async def test_a_fork_that_was_asked_nothing_can_be_forked(kit: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)
        forks = engine.queries._choice._forks
        first = await forks.fork(SessionForkParams(session_id=one.session_id), None)
        turns = (await engine.sessions.get(first.session_id)).turns
        at_one = SessionForkParams(session_id=first.session_id, at_turn_id=turns[0].turn_id)
        second = await forks.fork(at_one, None)
        await engine.queries.run(engine.params("c", session_id=second.session_id), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.fork, spec.resume, spec.resume_holds) == (True, one.claude_session_id, "leaf of one")
        # One that has a conversation of its own is forked there.
        third = await forks.fork(SessionForkParams(session_id=second.session_id), None)
        await engine.queries.run(engine.params("d", session_id=third.session_id), kit.caller())
        assert engine.upstream.runs[-1].spec.resume == second.session_id
        engine.check_idle()


async def test_a_stream_goes_on_from_a_turn(kit: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)
        session_id, channel = await engine.streams.open(
            engine.opening(fork=at(one, one.turn_id), title="S"), kit.caller()
        )
        got = await engine.sessions.get(session_id)
        assert (got.session.turn_count, got.session.title) == (1, "S")
        assert channel.last_seq == got.session.forked_from.seq
        watcher = kit.Watcher()
        channel.subscribe(watcher)
        await engine.streams.send(StreamSendParams(session_id=session_id, prompt="c"), kit.caller())
        await watcher.sees(TurnCompleted)
        assert engine.upstream.runs[-1].spec.fork
        await engine.streams.close(session_id)
        await engine.check_whole(session_id)


async def test_a_stream_whose_fork_cannot_be_written_leaves_no_process(kit: Any, monkeypatch: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)

        async def fails(_row: Any) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(engine.store, "fork_session", fails)
        await kit.refused("internal_error", engine.streams.open(engine.opening(fork=at(one)), kit.caller()))
        assert engine.upstream.runs[-1].closed
        engine.check_idle()


async def test_an_attempt_that_was_cut_off_is_made_again(kit: Any) -> None:
    """Whatever the first attempt had written is gone on with if it is whole, else it is forked anew."""
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)
        engine.upstream.scripts = [kit.answering("half", message_count=None, leaf_id=None)]
        forked = await engine.queries.run(engine.params("c", fork=at(one)), kit.caller())
        await engine.queries.run(engine.params("d", session_id=forked.session_id), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.resume, spec.fork, spec.resume_holds) == (forked.session_id, False, "leaf of two")


async def test_an_attempt_of_which_nothing_is_left_is_made_again(kit: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)
        engine.upstream.scripts = [kit.answering("half", message_count=None, leaf_id=None)]
        forked = await engine.queries.run(engine.params("c", fork=at(one)), kit.caller())
        engine.upstream.open_errors = [MISMATCH]
        await engine.queries.run(engine.params("d", session_id=forked.session_id), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.resume, spec.fork) == (one.claude_session_id, True)
        assert spec.session_id != forked.session_id, "that id is taken"
        got = (await engine.sessions.get(forked.session_id)).session
        assert got.claude_session_id == spec.session_id
        # What it should begin with is lost: no fresh conversation in its place.
        made = await engine.queries._choice._forks.fork(SessionForkParams(session_id=one.session_id), None)
        engine.upstream.open_errors = [MISMATCH, MISMATCH]
        lost = engine.queries.run(engine.params("e", session_id=made.session_id), kit.caller())
        await kit.refused("resume_mismatch", lost)
        engine.check_idle()


async def test_turns_of_an_older_version(kit: Any) -> None:
    """Where they ended in Claude Code's record is not known: the session can be forked whole."""
    async with kit.engine() as engine:
        engine.upstream.scripts = [
            kit.answering("one", leaf_id=None),
            kit.answering("two", leaf_id=None, message_count=4),
        ]
        one = await engine.queries.run(engine.params("a"), kit.caller())
        await engine.queries.run(engine.params("b", session_id=one.session_id), kit.caller())
        early = engine.queries.run(engine.params("c", fork=at(one, one.turn_id)), kit.caller())
        error = await kit.refused("invalid_params", early)
        assert error.data["reason"] == "not known"
        await engine.queries.run(engine.params("c", fork=at(one)), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.fork, spec.resume_holds, spec.resume_message_count) == (True, None, 4)


async def test_a_session_of_which_claude_code_wrote_nothing(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.open_errors = [UpstreamError(Failure("crash", "it ended"))]
        failed = await kit.refused("claude_crashed", engine.queries.run(engine.params("a"), kit.caller()))
        fork = ForkChoice(session_id=failed.data["session_id"])
        forked = await engine.queries.run(engine.params("b", fork=fork), kit.caller())
        spec = engine.upstream.runs[-1].spec
        assert (spec.resume, spec.fork, spec.session_id) == (None, False, forked.session_id)
        assert [turn.status for turn in (await engine.sessions.get(forked.session_id)).turns] == [
            "failed",
            "completed",
        ]


@pytest.mark.parametrize("how", ["query", "stream", "method"])
async def test_what_cannot_be_forked(kit: Any, how: str) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)

        def ask(session_id: str, turn: str | None = None) -> Any:
            fork = ForkChoice(session_id=session_id, at_turn_id=turn)
            if how == "query":
                return engine.queries.run(engine.params("x", fork=fork), kit.caller())
            if how == "stream":
                return engine.streams.open(engine.opening(fork=fork), kit.caller())
            params = SessionForkParams(session_id=session_id, at_turn_id=turn)
            return engine.queries._choice._forks.fork(params, None)

        where = "$" if how == "method" else "$.fork"
        await kit.refused("session_not_found", ask("none"))
        error = await kit.refused("invalid_params", ask(one.session_id, "none"))
        assert (error.data["path"], error.data["reason"]) == (f"{where}.atTurnId", "no such turn")
        empty, _ = await engine.streams.open(engine.opening(), kit.caller())
        await kit.refused("session_not_found", ask(empty))
        await engine.streams.close(empty)
        assert (await engine.store.counts())["sessions"] == 1
        engine.check_idle()


async def test_a_session_without_an_ended_turn(kit: Any) -> None:
    async with kit.engine() as engine:
        gate = kit.Gated()
        engine.upstream.scripts = [gate]
        running = asyncio.create_task(engine.queries.run(engine.params("a"), kit.caller()))
        await kit.soon(gate.reached)
        session_id = gate.turn.run.spec.session_id
        fork = ForkChoice(session_id=session_id)
        error = await kit.refused(
            "invalid_params", engine.queries.run(engine.params("b", fork=fork), kit.caller())
        )
        assert (error.data["path"], error.data["reason"]) == ("$.fork.sessionId", "no turn")
        gate.go.set()
        await kit.ended(running)


async def test_new_or_old_not_both(kit: Any) -> None:
    async with kit.engine() as engine:
        one, _ = await two_turns(engine, kit)
        for more in ({"fork": at(one)}, {"new_session_id": str(uuid.uuid4())}):
            params = engine.params("x", session_id=one.session_id, **more)
            error = await kit.refused("invalid_params", engine.queries.run(params, kit.caller()))
            assert error.data["reason"] == "not with sessionId"
            opening = engine.opening(session_id=one.session_id, **more)
            await kit.refused("invalid_params", engine.streams.open(opening, kit.caller()))
        elsewhere = engine.params("x", fork=at(one), cwd=str(kit.folder))
        error = await kit.refused("invalid_cwd", engine.queries.run(elsewhere, kit.caller()))
        assert error.data["reason"] == "other_session"
        engine.check_idle()


async def test_the_client_may_choose_the_id(kit: Any) -> None:
    async with kit.engine() as engine:
        mine = str(uuid.uuid4())
        result = await engine.queries.run(engine.params("a", new_session_id=mine), kit.caller())
        assert result.session_id == mine
        for taken in (
            engine.queries.run(engine.params("b", new_session_id=mine), kit.caller()),
            engine.queries.run(engine.params("b", new_session_id=mine, fork=at(result)), kit.caller()),
            engine.streams.open(engine.opening(new_session_id=mine), kit.caller()),
            engine.queries._choice._forks.fork(
                SessionForkParams(session_id=mine, new_session_id=mine.upper()), None
            ),
        ):
            error = await kit.refused("session_exists", taken)
            assert error.data["session_id"] == mine
        other, third = str(uuid.uuid4()), str(uuid.uuid4())
        forked = await engine.queries.run(
            engine.params("b", new_session_id=other, fork=at(result)), kit.caller()
        )
        assert forked.session_id == other
        opened, _ = await engine.streams.open(engine.opening(new_session_id=third), kit.caller())
        assert opened == third
        await engine.streams.close(third)
        for params in (engine.params("x", new_session_id="mine"), engine.params("x", new_session_id="")):
            await kit.refused("invalid_params", engine.queries.run(params, kit.caller()))
        assert (await engine.store.counts())["sessions"] == 2
        engine.check_idle()


async def test_a_fork_that_waits_at_the_door_is_not_there_yet(kit: Any) -> None:
    """Refused at the door it leaves nothing; and nobody is shown half of it."""
    async with kit.engine(max_running=1) as engine:
        one, _ = await two_turns(engine, kit)
        gate = kit.Gated()
        engine.upstream.scripts = [gate]
        running = asyncio.create_task(engine.queries.run(engine.params("slow"), kit.caller()))
        await kit.soon(gate.reached)
        known: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(
            engine.queries.run(engine.params("c", fork=at(one)), kit.caller(), started=known.set_result)
        )
        fork_id = await known
        await kit.until(lambda: engine.admission.queued == 1)
        await kit.refused("session_not_found", engine.sessions.channel(fork_id))
        await kit.refused("session_not_found", engine.sessions.get(fork_id))
        waiting.cancel()
        error = await kit.ended(waiting)
        assert error.kind == "request_cancelled"
        assert await engine.store.session(fork_id) is None
        again = asyncio.create_task(engine.queries.run(engine.params("c", fork=at(one)), kit.caller()))
        await kit.until(lambda: engine.admission.queued == 1)
        # Deleted while it waits.
        await engine.sessions.delete(one.session_id)
        gate.go.set()
        await kit.ended(running)
        assert (await kit.ended(again)).kind == "session_not_found"
        engine.check_idle()
