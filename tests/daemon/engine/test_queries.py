"""The life of a query: its order, its errors, its session, the door."""

import asyncio
from typing import Any

import msgspec
import pytest
from dragoman_protocol.content import TextBlock
from dragoman_protocol.query import ApiOptions
from dragoman_protocol.stream import UserMessage, Waiting
from dragomand.upstream.interface import Failure, TurnOutcome, UpstreamError


async def test_the_life_of_a_query(kit: Any) -> None:
    async with kit.engine() as engine:
        watcher, started = kit.Watcher(), []
        result = await engine.queries.run(
            engine.params("what is up?\nreally", tags=["x"]),
            kit.caller(),
            started=started.append,
            subscriber=watcher,
        )
        assert (result.text, result.model, result.stop_reason, result.replayed) == (
            "hello",
            "claude-x",
            "end_turn",
            False,
        )
        assert (result.usage.input_tokens, result.usage.output_tokens) == (3, 5)
        assert (result.upstream, result.claude_session_id) == ("claudeCode", result.session_id)
        assert started == [result.session_id]
        assert watcher.kinds == [
            "TurnStarted",
            "UserMessage",
            "TextDelta",
            "AssistantText",
            "UsageReported",
            "TurnCompleted",
        ]
        assert [event.params.seq for event in watcher.seen] == [1, 2, None, 3, 4, 5]
        session = await engine.store.session(result.session_id)
        assert (session.title, session.owner, session.tags) == ("what is up?", "name of client-1", ("x",))
        assert (session.cwd, session.turn_count, session.last_turn_status) == (
            str(engine.cwd),
            1,
            "completed",
        )
        assert (session.claude_session_id, session.claude_message_count) == (result.session_id, 2)
        (turn,) = await engine.store.turns(result.session_id)
        assert (turn.turn_id, turn.status, turn.upstream) == (result.turn_id, "completed", "claude_code")
        (run,) = await engine.store.runs(result.session_id)
        assert (run.claude_session_id, run.claude_version) == (result.session_id, "9.9.9")
        assert run.ended_at is not None
        assert engine.runs.version == "9.9.9"
        await engine.check_whole(result.session_id)
        engine.check_idle()


async def test_the_row_is_there_before_anything_is_sent(kit: Any) -> None:
    async with kit.engine() as engine:
        found: list[Any] = []

        async def look(turn: Any) -> TurnOutcome:
            found.extend(await engine.store.turns(turn.run.spec.session_id))
            return TurnOutcome(status="completed", text="ok")

        engine.upstream.scripts.append(look)
        result = await engine.queries.run(engine.params(message_id="m"), kit.caller())
        assert [(row.turn_id, row.status, row.message_id) for row in found] == [
            (result.turn_id, "running", "m")
        ]


async def test_the_permit_and_the_claim_are_held_until_the_process_is_gone(kit: Any) -> None:
    async with kit.engine() as engine:
        at_close: list[tuple[int, int]] = []
        close = type(engine.upstream).open

        async def opened(spec: Any, ask: Any) -> Any:
            run = await close(engine.upstream, spec, ask)
            whole = run.close

            async def closing() -> None:
                at_close.append((engine.admission.running, engine.sessions.open))
                await whole()

            run.close = closing
            return run

        engine.upstream.open = opened
        await engine.queries.run(engine.params(), kit.caller())
        assert at_close == [(1, 1)]
        engine.check_idle()


@pytest.mark.parametrize("prompt", ["hi", [TextBlock(text="hi"), TextBlock(text="there")]])
async def test_the_prompt_reaches_the_upstream_as_it_is(kit: Any, prompt: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(prompt, title="T", model="opus"), kit.caller())
        assert engine.upstream.prompts == [prompt]
        assert engine.upstream.runs[0].spec.model == "opus"
        session = await engine.store.session(result.session_id)
        assert (session.title, session.model) == ("T", "opus")
        events = await engine.events(result.session_id)
        assert [event.content for event in events if isinstance(event, UserMessage)] == [prompt]


# -- before anything happens


@pytest.mark.parametrize(
    ("kind", "chosen", "scopes"),
    [
        ("invalid_params", {"upstream": "messagesApi", "permission_mode": "plan"}, "query tools"),
        ("invalid_params", {"api": ApiOptions(max_tokens=5)}, "query tools"),
        ("invalid_params", {"output_schema": {"type": "nonsense"}}, "query tools"),
        ("invalid_params", {"output_schema": {}, "output_attempts": 0}, "query tools"),
        ("scope_required", {"permission_mode": "bypassPermissions"}, "query tools"),
        ("invalid_params", {"env": {"LD_PRELOAD": "x"}}, "query tools"),
        ("invalid_params", {"timeout_ms": 0}, "query tools"),
        ("invalid_params", {"cwd": None}, "query tools"),
        ("invalid_cwd", {"cwd": "relative"}, "query tools"),
        ("invalid_cwd", {"cwd": "/"}, "query tools"),
        ("session_not_found", {"session_id": "nothing"}, "query tools"),
    ],
)
async def test_what_is_refused_starts_nothing(
    kit: Any, kind: str, chosen: dict[str, Any], scopes: str
) -> None:
    async with kit.engine() as engine:
        await kit.refused(kind, engine.queries.run(engine.params(**chosen), kit.caller(scopes=scopes)))
        assert not engine.upstream.opening.is_set()
        assert (await engine.store.counts())["sessions"] == 0
        engine.check_idle()


async def test_without_a_credential_nothing_is_started(kit: Any) -> None:
    """01.32"""
    async with kit.engine(api_key=None) as engine:
        error = await kit.refused("auth_required", engine.queries.run(engine.params(), kit.caller()))
        assert error.data["next_step"]
        assert not engine.upstream.opening.is_set()


# -- failures


@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("missing", "claude_not_found"),
        ("crash", "claude_crashed"),
        ("auth", "auth_failed"),
        ("mismatch", "resume_mismatch"),
    ],
)
async def test_a_run_that_does_not_open(kit: Any, category: Any, kind: str) -> None:
    async with kit.engine() as engine:
        failure = UpstreamError(Failure(category, "no way", detail="tail"))
        engine.upstream.open_errors = [failure, failure]
        started: list[str] = []
        error = await kit.refused(
            kind, engine.queries.run(engine.params(), kit.caller(), started=started.append)
        )
        (turn,) = await engine.store.turns(started[0])
        assert (str(error), error.data["detail"]) == ("no way", "tail")
        assert (error.data["session_id"], error.data["turn_id"]) == (started[0], turn.turn_id)
        assert turn.status == "failed"
        assert msgspec.json.decode(turn.error)["kind"] == kind
        end = (await engine.events(started[0]))[-1]
        assert (end.status, end.error["kind"], end.error["turnId"]) == ("failed", kind, turn.turn_id)
        await engine.check_whole(started[0])
        engine.check_idle()


@pytest.mark.parametrize(
    ("category", "kind"),
    [
        ("throttle", "throttled"),
        ("quota", "quota_exhausted"),
        ("overload", "upstream_overloaded"),
        ("auth", "auth_failed"),
        ("caller", "upstream_rejected"),
        ("crash", "claude_crashed"),
        ("protocol", "claude_protocol"),
    ],
)
async def test_a_turn_that_fails(kit: Any, category: Any, kind: str) -> None:
    async with kit.engine() as engine:

        async def script(turn: Any) -> TurnOutcome:
            turn.say("so far")
            failure = Failure(category, "why", status=429, retry_after_ms=7, resets_at=9.5)
            return TurnOutcome(status="failed", failure=failure, cost_usd=0.25)

        engine.upstream.scripts.append(script)
        error = await kit.refused(kind, engine.queries.run(engine.params(), kit.caller()))
        assert (error.data["text"], error.data["status"], error.data["retry_after_ms"]) == ("so far", 429, 7)
        (turn,) = await engine.store.turns(error.data["session_id"])
        assert (turn.status, turn.cost_usd) == ("failed", 0.25)
        await engine.check_whole(turn.session_id)
        engine.check_idle()


async def test_an_upstream_that_interrupts_by_itself_is_a_cancellation(kit: Any) -> None:
    async with kit.engine() as engine:

        async def script(turn: Any) -> TurnOutcome:
            return TurnOutcome(status="interrupted")

        engine.upstream.scripts.append(script)
        error = await kit.refused("request_cancelled", engine.queries.run(engine.params(), kit.caller()))
        assert (await engine.store.session(error.data["session_id"])).last_turn_status == "cancelled"


@pytest.mark.parametrize("where", ["open", "send", "close"])
async def test_a_bug_in_the_upstream_ends_the_turn_in_order(kit: Any, where: str) -> None:
    async with kit.engine() as engine:
        started: list[str] = []

        async def script(turn: Any) -> TurnOutcome:
            if where == "send":
                raise LookupError("bug")
            return TurnOutcome(status="completed", text="ok")

        engine.upstream.scripts.append(script)
        if where == "open":
            engine.upstream.open_errors = [LookupError("bug")]
        if where == "close":
            engine.upstream.close_error = LookupError("bug")
        query = engine.queries.run(engine.params(), kit.caller(), started=started.append)
        if where == "close":
            assert (await query).text == "ok"
            engine.upstream.close_error = None
        else:
            assert (await kit.refused("internal_error", query)).data["detail"] == "LookupError"
        await engine.check_whole(started[0])
        engine.check_idle()


async def test_a_bug_anywhere_else_answers_too(kit: Any) -> None:
    async with kit.engine() as engine:

        def started(_session_id: str) -> None:
            raise LookupError("bug")

        await kit.refused(
            "internal_error", engine.queries.run(engine.params(), kit.caller(), started=started)
        )
        engine.check_idle()


# -- sessions


async def test_a_session_is_continued_on_claudes_own_session(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        seen = kit.Watcher()
        again = engine.params("more", session_id=first.session_id, cwd=str(engine.cwd))
        second = await engine.queries.run(again, kit.caller("other"), subscriber=seen)
        assert second.session_id == first.session_id
        one, two = engine.upstream.runs
        assert (one.spec.resume, one.spec.resume_message_count) == (None, None)
        assert (two.spec.resume, two.spec.resume_message_count) == (first.session_id, 2)
        assert two.spec.cwd == engine.cwd
        assert [event.params.seq for event in seen.seen if event.params.seq] == [6, 7, 8, 9, 10]
        assert (await engine.store.session(first.session_id)).owner == "name of client-1"
        await engine.check_whole(first.session_id)


async def test_a_session_that_claude_gave_another_id_is_resumed_by_that(kit: Any) -> None:
    async with kit.engine() as engine:

        async def cleared(turn: Any) -> TurnOutcome:
            turn.run.upstream_session_id = "claude-2"
            return TurnOutcome(status="completed", text="ok", cost_total_usd=1.5, message_count=4)

        engine.upstream.scripts.append(cleared)
        first = await engine.queries.run(engine.params(), kit.caller())
        assert first.claude_session_id == "claude-2"
        (run,) = await engine.store.runs(first.session_id)
        assert (run.claude_session_id, run.cost_total_usd) == ("claude-2", 1.5)
        second = await engine.queries.run(engine.params(session_id=first.session_id), kit.caller())
        assert (engine.upstream.runs[1].spec.resume, engine.upstream.runs[1].spec.resume_message_count) == (
            "claude-2",
            4,
        )
        assert second.claude_session_id == "claude-2"


async def test_an_id_that_is_not_known_yet_does_not_replace_one_that_is(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        await engine.store.update_session(first.session_id, claude_session_id="claude-7")
        real_open = type(engine.upstream).open

        async def opened(spec: Any, ask: Any) -> Any:
            run = await real_open(engine.upstream, spec, ask)
            run.upstream_session_id = None
            return run

        engine.upstream.open = opened
        second = await engine.queries.run(engine.params(session_id=first.session_id), kit.caller())
        assert second.claude_session_id == "claude-7"
        assert (await engine.store.session(first.session_id)).claude_session_id == "claude-7"


async def test_nothing_to_resume_and_nothing_lost_begins_anew(kit: Any) -> None:
    """A turn was stopped before Claude Code had written anything: its session is not a dead end."""
    async with kit.engine() as engine:
        engine.upstream.scripts.append(kit.Gated(stubborn=True))
        cut_off = engine.queries.run(engine.params(timeout_ms=20), kit.caller())
        session_id = (await kit.refused("deadline_exceeded", cut_off)).data["session_id"]
        engine.upstream.scripts.clear()
        engine.upstream.open_errors = [UpstreamError(Failure("mismatch", "no such conversation"))]
        result = await engine.queries.run(engine.params(session_id=session_id), kit.caller())
        assert result.text == "hello"
        assert engine.upstream.runs[-1].spec.resume is None
        # From now on there is something to lose.
        engine.upstream.open_errors = [UpstreamError(Failure("mismatch", "no such conversation"))]
        await kit.refused(
            "resume_mismatch", engine.queries.run(engine.params(session_id=session_id), kit.caller())
        )


async def test_a_session_keeps_its_folder(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        other = kit.folder / "other"
        other.mkdir()
        refused = engine.queries.run(engine.params(session_id=first.session_id, cwd=str(other)), kit.caller())
        assert (await kit.refused("invalid_cwd", refused)).data["reason"] == "other_session"
        engine.cwd.rmdir()
        gone = engine.queries.run(engine.params(session_id=first.session_id), kit.caller())
        assert (await kit.refused("invalid_cwd", gone)).data["reason"] == "missing"
        engine.check_idle()


async def test_one_turn_at_a_time_in_a_session(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())
        engine.upstream.scripts.append(gate := kit.Gated())
        again = engine.params(session_id=first.session_id)
        running = asyncio.create_task(engine.queries.run(again, kit.caller()))
        await kit.soon(gate.reached)
        told: list[str] = []
        busy = engine.queries.run(again, kit.caller("other"), started=told.append)
        assert "running already" in str(await kit.refused("session_busy", busy))
        assert told == [], "a refused client has not continued the session"
        assert engine.queries.turn_of(first.session_id) is not None
        assert engine.queries.turn_of("other") is None
        gate.go.set()
        await running
        assert engine.queries.turn_of(first.session_id) is None
        assert (await engine.queries.run(again, kit.caller())).text == "hello"
        await engine.check_whole(first.session_id)


async def test_many_continue_one_session_in_turn_and_its_numbers_have_no_gap(kit: Any) -> None:
    async with kit.engine() as engine:
        first = await engine.queries.run(engine.params(), kit.caller())

        ended = asyncio.Event()

        async def insist(number: int) -> None:
            nonlocal ended
            while True:
                end = ended
                work = engine.queries.run(
                    engine.params(str(number), session_id=first.session_id), kit.caller()
                )
                result = await kit.ended(asyncio.ensure_future(work))
                if getattr(result, "kind", "") != "session_busy":
                    assert result.text == "hello"
                    ended, before = asyncio.Event(), ended
                    before.set()
                    return
                await kit.soon(end)

        await asyncio.gather(*(insist(number) for number in range(8)))
        assert len(await engine.store.turns(first.session_id)) == 9
        await engine.check_whole(first.session_id)
        engine.check_idle()


# -- the door


async def test_who_waits_is_told_before_the_turn_starts(kit: Any) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        watcher = kit.Watcher()
        second = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), subscriber=watcher))
        await watcher.sees(Waiting)
        text = "1 turns are running, as many as may (limits.maxRunning = 1)."
        assert watcher.seen[0].params.event == Waiting(reason="concurrency", position=0, text=text)
        assert (engine.admission.running, engine.admission.queued) == (1, 1)
        gate.go.set()
        await first
        await second
        assert watcher.kinds[:3] == ["Waiting", "TurnStarted", "UserMessage"]
        assert (await engine.store.turns((await second).session_id))[0].queued_ms == (await second).queued_ms


async def test_the_queue_is_full(kit: Any) -> None:
    async with kit.engine(max_running=1, max_queued=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        watcher = kit.Watcher()
        second = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), subscriber=watcher))
        await watcher.sees(Waiting)
        await kit.refused("queue_full", engine.queries.run(engine.params(message_id="m"), kit.caller()))
        gate.go.set()
        await asyncio.gather(first, second)
        # It was never run, so it can be sent again.
        assert (await engine.queries.run(engine.params(message_id="m"), kit.caller())).replayed is False
        assert (await engine.store.counts())["sessions"] == 3


@pytest.mark.parametrize(
    ("priority", "chosen"),
    [
        ("interactive", {"queue_timeout_ms": 0}),
        ("batch", {"queue_timeout_ms": 0}),
        ("batch", {"timeout_ms": 1}),
    ],
)
async def test_not_admitted_in_time(kit: Any, priority: str, chosen: dict[str, int]) -> None:
    async with kit.engine(max_running=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        late = engine.queries.run(engine.params(priority=priority, **chosen), kit.caller())
        await kit.refused("queue_timeout", late)
        gate.go.set()
        await first
        engine.check_idle()


async def test_the_default_queue_timeout_is_for_people(kit: Any) -> None:
    async with kit.engine(max_running=1, queue_timeout_ms=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        job = asyncio.create_task(engine.queries.run(engine.params(priority="batch"), kit.caller()))
        await kit.refused("queue_timeout", engine.queries.run(engine.params(), kit.caller()))
        gate.go.set()
        assert (await job).text == "hello"
        await first


async def test_a_process_that_had_died_unnoticed_is_replaced_by_one_that_answers(kit: Any) -> None:
    async def unsent(turn: Any) -> TurnOutcome:
        turn.run.alive = False
        return TurnOutcome(status="failed", failure=Failure("crash", "it had died", unsent=True))

    async with kit.engine() as engine:
        engine.upstream.scripts += [unsent, kit.answering("here", cost_total_usd=0.5)]
        result = await engine.queries.run(engine.params(), kit.caller())
        assert result.text == "here"
        dead, living = engine.upstream.runs
        assert (dead.turns, living.turns) == (1, 1)
        assert [each.cost_total_usd for each in await engine.store.runs(result.session_id)] == [None, 0.5]
        engine.check_idle()


async def test_one_that_is_stopped_while_its_next_process_starts_asks_it_nothing(kit: Any) -> None:
    async def unsent(turn: Any) -> TurnOutcome:
        engine.upstream.opening.clear()
        engine.upstream.hold_open = asyncio.Event()
        return TurnOutcome(status="failed", failure=Failure("crash", "it had died", unsent=True))

    async with kit.engine() as engine:
        engine.upstream.scripts.append(unsent)
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(engine.upstream.sent)
        await kit.soon(engine.upstream.opening)
        (submission,) = engine.queries._live
        submission.stop("client")
        engine.upstream.hold_open.set()
        assert (await kit.ended(query)).kind == "request_cancelled"
        assert sum(run.turns for run in engine.upstream.runs) == 1
        engine.check_idle()
