"""Runs: started for a session, recorded so that they can be resumed, and only what has changed."""

from typing import Any

from dragoman_protocol.query import TurnOptions
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
