"""Questions of a turn: asked of the one who sent the query, and over with the turn."""

import asyncio
from typing import Any

import pytest
from dragoman_protocol.stream import PermissionAsked
from dragomand.upstream.interface import PermissionAsk, TurnOutcome


async def test_a_permission_is_asked_of_the_one_who_asked_and_is_part_of_the_record(kit: Any) -> None:
    async with kit.engine() as engine:
        person = kit.Person()
        answers: list[Any] = []

        async def script(turn: Any) -> TurnOutcome:
            answers.append(await turn.may("Write", path="x"))
            return TurnOutcome(status="completed", text="ok")

        engine.upstream.scripts.append(script)
        work = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(approver=person)))
        await kit.soon(person.was_asked)
        person.says("allow", updated_input={"path": "y"})
        result = await work
        assert (answers[0].allow, answers[0].updated_input) == (True, {"path": "y"})
        (question,) = person.asked
        assert (question.session_id, question.turn_id) == (result.session_id, result.turn_id)
        assert (question.tool_name, question.input, question.tool_use_id) == (
            "Write",
            {"path": "x"},
            "tool-1",
        )
        kinds = [type(event).__name__ for event in await engine.events(result.session_id)]
        assert kinds == [
            "TurnStarted",
            "UserMessage",
            "PermissionAsked",
            "PermissionResolved",
            "UsageReported",
            "TurnCompleted",
        ]


@pytest.mark.parametrize("ends", ["cancel", "outcome", "deadline"])
async def test_the_end_of_the_turn_withdraws_its_questions(kit: Any, ends: str) -> None:
    async with kit.engine() as engine:
        person, answers, watcher = kit.Person(), [], kit.Watcher()

        async def script(turn: Any) -> TurnOutcome:
            async def ask() -> None:
                answers.append(await turn.may())

            asking = asyncio.create_task(ask())
            turn.run.asking = asking
            await person.was_asked.wait()
            if ends == "outcome":
                return TurnOutcome(status="completed", text="ok")
            await turn.interrupted.wait()
            return TurnOutcome(status="interrupted")

        engine.upstream.scripts.append(script)
        chosen = {"timeout_ms": 2_000} if ends == "deadline" else {}
        work = asyncio.create_task(
            engine.queries.run(engine.params(**chosen), kit.caller(approver=person), subscriber=watcher)
        )
        await watcher.sees(PermissionAsked)
        await kit.soon(person.was_asked)
        if ends == "cancel":
            work.cancel()
        if ends == "deadline":
            # It stands still while the question is open: nothing else ends this turn.
            assert not work.done()
            engine.permissions.deny_all()
            engine.queries.turn_of(watcher.seen[0].params.session_id).stop("client")
        end = await kit.ended(work)
        session_id = end.session_id if ends == "outcome" else end.data["session_id"]
        assert engine.permissions.pending == 0
        assert person.withdrawn == 1
        await asyncio.wait([engine.upstream.runs[0].asking], timeout=kit.PATIENCE_S)
        assert [answer.allow for answer in answers] == [False]
        resolved = [
            event for event in await engine.events(session_id) if type(event).__name__ == "PermissionResolved"
        ]
        assert [(event.decision, event.by) for event in resolved] == [
            ("deny", "shutdown" if ends == "deadline" else "withdrawn")
        ]
        await engine.check_whole(session_id)
        engine.check_idle()


async def test_after_the_turn_nobody_is_asked_and_nothing_is_published(kit: Any) -> None:
    async with kit.engine() as engine:
        person, kept, watcher, leave = kit.Person(), [], kit.Watcher(), []

        async def script(turn: Any) -> TurnOutcome:
            kept.append(turn)
            channel = await engine.sessions.channel(turn.run.spec.session_id)
            leave.append(channel.subscribe(watcher))
            return TurnOutcome(status="completed", text="ok")

        engine.upstream.scripts.append(script)
        result = await engine.queries.run(engine.params(), kit.caller(approver=person))
        before = await engine.events(result.session_id)
        seen = len(watcher.seen)
        kept[0].say("late", item="late")
        kept[0].said("too late")
        answer = await kept[0].may()
        assert (answer.allow, answer.message) == (False, "The turn is over.")
        assert person.asked == []
        assert await engine.events(result.session_id) == before
        assert len(watcher.seen) == seen > 0
        leave[0]()
        engine.sessions.tidy(result.session_id)
        engine.check_idle()


async def test_a_question_before_the_turn_is_denied(kit: Any) -> None:
    async with kit.engine() as engine:
        answers: list[Any] = []
        real_open = type(engine.upstream).open

        async def opened(spec: Any, ask: Any) -> Any:
            answers.append(await ask(PermissionAsk("Write", {}, None, None)))
            return await real_open(engine.upstream, spec, ask)

        engine.upstream.open = opened
        await engine.queries.run(engine.params(), kit.caller(approver=kit.Person()))
        assert (answers[0].allow, answers[0].message) == (
            False,
            "No turn is running, so nobody can be asked.",
        )
