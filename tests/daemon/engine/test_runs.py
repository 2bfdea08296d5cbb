"""Runs: started for a session, recorded so that they can be resumed, and only what has changed."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from dragoman_protocol.query import TurnOptions
from dragoman_protocol.stream import Waiting
from dragomand.engine.call import NOBODY, Payer
from dragomand.store.rows import SessionRow
from dragomand.upstream.interface import ApiAccess, TurnOutcome


async def stored(engine: Any) -> SessionRow:
    """A session with one completed turn."""
    from dragomand.store.rows import TurnRow

    row = SessionRow(session_id="s", created_at=1, updated_at=1, epoch="e", cwd=str(engine.cwd))
    await engine.store.open_turn(
        TurnRow(turn_id="t", session_id="s", status="completed", started_at=1), [], row
    )
    return row


async def test_only_what_has_changed_is_written(kit: Any) -> None:
    async with kit.engine() as engine:
        session = await stored(engine)
        written: list[str] = []
        for name in ("update_session", "record_run"):
            whole = getattr(engine.store, name)

            def noting(*args: Any, name: str = name, whole: Any = whole, **more: Any) -> Any:
                written.append(name)
                return whole(*args, **more)

            setattr(engine.store, name, noting)
        run = await engine.runs.open(session, TurnOptions(), kit.caller())
        await engine.runs.record(run)
        assert sorted(written) == ["record_run", "update_session"]
        await engine.runs.record(run)
        assert len(written) == 2, "nothing new to write"
        run.ended(TurnOutcome(status="completed", cost_total_usd=0.5, message_count=2))
        run.ended(TurnOutcome(status="failed", cost_total_usd=0.75))
        run.ended(None)
        await engine.runs.record(run)
        assert written[2:] == ["update_session"]
        await engine.runs.close(run)
        assert written[3:] == ["record_run"]
        row = await engine.store.session("s")
        assert (row.claude_session_id, row.claude_message_count) == ("s", 2)
        (record,) = await engine.store.runs("s")
        assert (record.cost_total_usd, record.claude_session_id, record.claude_version) == (
            0.75,
            "s",
            "9.9.9",
        )
        assert record.started_at < record.ended_at


async def test_a_run_that_no_turn_was_on_is_not_recorded(kit: Any) -> None:
    async with kit.engine() as engine:
        session = SessionRow(session_id="new", created_at=1, updated_at=1, epoch="e", cwd=str(engine.cwd))
        run = await engine.runs.open(session, TurnOptions(), kit.caller())
        await engine.runs.close(run)
        assert await engine.store.runs("new") == []
        assert engine.upstream.runs[0].closed


async def test_the_version_is_known_when_claude_code_has_told_it(kit: Any) -> None:
    async with kit.engine() as engine:
        session = await stored(engine)
        assert engine.runs.version is None
        run = await engine.runs.open(session, TurnOptions(), kit.caller())
        assert engine.runs.version == "9.9.9"
        engine.upstream.runs[0].version = None
        await engine.runs.close(run)
        assert engine.runs.version == "9.9.9"


async def test_what_a_run_calls_is_its_turns(kit: Any) -> None:
    async with kit.engine() as engine:
        grant, token = engine.calls.grant()
        engine.upstream.api_access = ApiAccess(grant.grant_id, "http://x", None, token, lambda: None)
        payers = [grant.payer()]

        async def script(turn: Any) -> TurnOutcome:
            payers.append(grant.payer())
            return TurnOutcome(status="completed", text="done")

        engine.upstream.scripts.append(script)
        ann = kit.caller("ann")
        result = await engine.queries.run(engine.params(priority="batch", max_budget_usd=0.5), ann)
        session = await engine.store.session(result.session_id)
        await engine.runs.open(session, TurnOptions(), ann)
        payers.append(grant.payer())  # no turn has begun
        assert payers == [
            NOBODY,
            Payer(ann.id, ann.name, result.turn_id, "batch", result.session_id, max_cost_usd=0.5),
            Payer(ann.id, ann.name, None, "interactive"),
        ]


async def test_who_watches_a_turn_is_told_that_a_call_of_claude_codes_waits(kit: Any) -> None:
    async with kit.engine(max_calls=1) as engine:
        grant, token = engine.calls.grant()
        program, _ = engine.calls.grant("a program")
        engine.upstream.api_access = ApiAccess(grant.grant_id, "http://x", None, token, lambda: None)
        watcher = kit.Watcher()
        told: list[Any] = []

        async def script(turn: Any) -> TurnOutcome:
            call = asyncio.create_task(one_call())
            await watcher.sees(Waiting)
            await held.aclose()
            await call
            return TurnOutcome(status="completed", text="done")

        async def one_call() -> None:
            async with engine.calls.call(grant, "claude-opus-4-5") as call:
                call.status, call.finished = 200, True

        engine.upstream.scripts.append(script)
        async with AsyncExitStack() as held:
            await held.enter_async_context(engine.calls.call(program))
            ann = replace(kit.caller("ann"), on_waiting=told.append)
            result = await engine.queries.run(engine.params(), ann, subscriber=watcher)
        assert [(each.turn_id, each.reason) for each in told] == [(result.turn_id, "concurrency")]
        engine.check_idle()


async def test_a_turn_never_waits_behind_the_one_that_waits_for_it(kit: Any) -> None:
    """One place for turns, and a tool of the turn that holds it asks the daemon: it gets one of its own."""
    descends = {77: (76, 50), 88: (87, 60)}
    async with kit.engine(max_running=1, max_calls=1, ancestors=lambda pid: descends[pid]) as engine:
        engine.upstream.pid = 50
        outer = kit.Gated()
        engine.upstream.scripts.append(outer)
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller("editor")))
        await kit.soon(outer.reached)
        engine.upstream.pid = None
        stranger = replace(kit.caller("stranger"), peer_pid=88)
        waits = asyncio.create_task(engine.queries.run(engine.params(), stranger))
        await kit.until(lambda: engine.admission.queued == 1)
        tool = replace(kit.caller("tool"), peer_pid=77)
        async with asyncio.timeout(kit.PATIENCE_S):
            inner = await engine.queries.run(engine.params(), tool)
        assert inner.text == "hello"
        assert not waits.done()
        outer.go.set()
        await first
        await waits
        assert engine.runs.turn_above(tool) is None, "its turn is over"
        engine.check_idle()


async def test_a_turn_whose_calls_are_not_seen_takes_one_permit_for_all(kit: Any) -> None:
    """A subscription: what Claude Code's turn ends with is what the door hears."""
    async with kit.engine(max_calls=1) as engine:
        slow = kit.Gated()
        engine.upstream.scripts += [slow, kit.failing("auth", "invalid token", status=401)]
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller("ann")))
        await kit.soon(slow.reached)
        assert engine.admission.calls_running == 1
        watcher = kit.Watcher()
        second = asyncio.create_task(
            engine.queries.run(engine.params(), kit.caller("bob"), subscriber=watcher)
        )
        await watcher.sees(Waiting)
        third = asyncio.create_task(engine.queries.run(engine.params(), kit.caller("cid")))
        await kit.until(lambda: engine.admission.calls_queued == 2)
        third.cancel()
        assert (await kit.ended(third)).kind == "request_cancelled"
        slow.go.set()
        await first
        assert (await kit.ended(second)).kind == "auth_failed"
        error = await kit.refused("auth_failed", engine.queries.run(engine.params(), kit.caller("dan")))
        assert "invalid token" in str(error)
        assert engine.calls.total.calls == 0, "it counts turns' calls that it has seen"
        engine.check_idle()
