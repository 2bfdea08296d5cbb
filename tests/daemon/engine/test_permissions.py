"""Who may say yes, and everything that means no."""

import asyncio
import logging
from typing import Any

import anyio
import pytest
from dragoman_protocol.lifecycle import PermissionDecision
from dragoman_protocol.stream import Event, PermissionAsked, PermissionResolved
from dragomand.engine import permissions as module
from dragomand.engine.caller import Caller
from dragomand.engine.errors import EngineError
from dragomand.engine.permissions import Permissions
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk

ASK = PermissionAsk("Bash", {"command": "ls"}, "tool-9", "outside the folder")


class Office:
    """Permissions, and the question that is open."""

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        ids = iter(f"p{number}" for number in range(10_000))
        self.permissions = Permissions(
            timeout_s=timeout_s,
            clock=lambda: 1000.0,
            new_id=lambda: next(ids),
            logger=logging.getLogger("test.permissions"),
        )
        self.published: list[Event] = []

    def ask(self, caller: Caller) -> "asyncio.Task[PermissionAnswer]":
        return asyncio.create_task(
            self.permissions.ask(
                ASK, caller=caller, session_id="s", turn_id="t", publish=self.published.append
            )
        )

    def resolved(self) -> tuple[str, str]:
        asked, resolved = self.published
        assert asked == PermissionAsked(permission_id="p0", tool_name="Bash", input={"command": "ls"})
        assert isinstance(resolved, PermissionResolved)
        assert resolved.permission_id == "p0"
        assert self.permissions.pending == 0
        return resolved.decision, resolved.by


async def test_the_question_says_everything(kit: Any) -> None:
    office, person = Office(), kit.Person()
    answer = office.ask(kit.caller(approver=person))
    await kit.soon(person.was_asked)
    assert office.permissions.pending == 1
    (question,) = person.asked
    assert (question.permission_id, question.session_id, question.turn_id) == ("p0", "s", "t")
    assert (question.tool_name, question.input) == ("Bash", {"command": "ls"})
    assert (question.tool_use_id, question.reason, question.expires_at) == (
        "tool-9",
        "outside the folder",
        1060.0,
    )
    person.says("allow")
    assert await answer == PermissionAnswer(allow=True)
    assert office.resolved() == ("allow", "client")
    assert person.withdrawn == 0


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (
            ("allow", {"updated_input": {"command": "pwd"}}),
            PermissionAnswer(True, updated_input={"command": "pwd"}),
        ),
        (("allow", {"message": "sure"}), PermissionAnswer(True)),
        (("deny", {}), PermissionAnswer(False, "The user denied this.")),
        (("deny", {"message": "not that"}), PermissionAnswer(False, "not that")),
        (("deny", {"updated_input": {"command": "pwd"}}), PermissionAnswer(False, "The user denied this.")),
    ],
)
async def test_what_the_person_says(kit: Any, said: Any, answer: PermissionAnswer) -> None:
    office, person = Office(), kit.Person()
    asking = office.ask(kit.caller(approver=person))
    await kit.soon(person.was_asked)
    person.says(said[0], **said[1])
    assert await asking == answer
    assert office.resolved() == (said[0], "client")


async def test_nobody_answers_in_time(kit: Any) -> None:
    office, person = Office(timeout_s=0.01), kit.Person()
    answer = await office.ask(kit.caller(approver=person))
    assert (answer.allow, answer.message) == (False, "Nobody answered in time, so this was denied.")
    assert office.resolved() == ("deny", "timeout")
    assert person.withdrawn == 1, "the client is told that the question is gone"


async def test_the_client_goes(kit: Any) -> None:
    office, person = Office(), kit.Person()
    asking = office.ask(kit.caller(approver=person))
    await kit.soon(person.was_asked)
    person.goes()
    answer = await asking
    assert not answer.allow
    assert "is gone" in str(answer.message)
    assert office.resolved() == ("deny", "disconnect")


@pytest.mark.parametrize("able", [False, True])
async def test_nobody_can_be_asked(kit: Any, able: bool) -> None:
    """Neither a client that answers no questions, nor one without the scope `approve`."""
    office, person = Office(), kit.Person()
    who = kit.caller(
        approver=person if able else None, scopes="query tools" if able else "query tools approve"
    )
    answer = await office.ask(who)
    assert not answer.allow
    assert "allow the tool beforehand" in str(answer.message)
    assert office.resolved() == ("deny", "noClient")
    assert person.asked == []


async def test_the_daemon_stops(kit: Any) -> None:
    office, person = Office(), kit.Person()
    asking = office.ask(kit.caller(approver=person))
    await kit.soon(person.was_asked)
    office.permissions.deny_all()
    answer = await asking
    assert (answer.allow, answer.message) == (False, "The daemon is stopping, so this was denied.")
    assert office.resolved() == ("deny", "shutdown")


@pytest.mark.parametrize("decision", ["allow", "deny"])
async def test_answered_from_another_connection(kit: Any, decision: Any) -> None:
    office, person = Office(), kit.Person()
    asking = office.ask(kit.caller(approver=person))
    await kit.soon(person.was_asked)
    office.permissions.respond("p0", PermissionDecision(decision=decision, updated_input={"command": "id"}))
    answer = await asking
    assert answer.allow is (decision == "allow")
    assert answer.updated_input == ({"command": "id"} if answer.allow else None)
    assert office.resolved() == (decision, "client")
    assert person.withdrawn == 1


async def test_the_first_answer_counts(kit: Any) -> None:
    office, person = Office(), kit.Person()
    asking = office.ask(kit.caller(approver=person))
    await kit.soon(person.was_asked)
    office.permissions.respond("p0", PermissionDecision(decision="deny"))
    person.says("allow")
    with pytest.raises(EngineError) as caught:  # still open, but decided
        office.permissions.respond("p0", PermissionDecision(decision="allow"))
    assert (caught.value.kind, caught.value.data) == (
        "already_resolved",
        {"permission_id": "p0", "by": "client"},
    )
    assert not (await asking).allow
    with pytest.raises(EngineError) as caught:
        office.permissions.respond("p0", PermissionDecision(decision="allow"))
    assert (caught.value.kind, caught.value.data["by"]) == ("already_resolved", "client")
    assert office.resolved() == ("deny", "client")


async def test_an_answer_after_the_deadline_is_told_who_was_first(kit: Any) -> None:
    office = Office(timeout_s=0.01)
    await office.ask(kit.caller(approver=kit.Person()))
    with pytest.raises(EngineError) as caught:
        office.permissions.respond("p0", PermissionDecision(decision="allow"))
    assert (caught.value.kind, caught.value.data["by"]) == ("already_resolved", "timeout")


def test_an_unknown_id() -> None:
    with pytest.raises(EngineError) as caught:
        Office().permissions.respond("nothing", PermissionDecision(decision="allow"))
    assert (caught.value.kind, caught.value.data) == ("permission_not_found", {"permission_id": "nothing"})


async def test_only_so_many_decided_ids_are_remembered(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    office = Office()
    for _ in range(3):
        await office.ask(kit.caller())
    kinds = []
    for number in range(3):
        with pytest.raises(EngineError) as caught:
            office.permissions.respond(f"p{number}", PermissionDecision(decision="allow"))
        kinds.append(caught.value.kind)
    assert kinds == ["permission_not_found", "already_resolved", "already_resolved"]


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_claude_code_withdraws_the_question(kit: Any, how: str) -> None:
    office, person, scope = Office(), kit.Person(), anyio.CancelScope()

    async def ask() -> None:
        with scope:
            await office.permissions.ask(
                ASK,
                caller=kit.caller(approver=person),
                session_id="s",
                turn_id="t",
                publish=office.published.append,
            )

    asking = asyncio.create_task(ask())
    await kit.soon(person.was_asked)
    if how == "task":
        asking.cancel()
    else:
        scope.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled() is (how == "task")
    assert office.resolved() == ("deny", "withdrawn")
    assert person.withdrawn == 1
    with pytest.raises(EngineError) as caught:
        office.permissions.respond("p0", PermissionDecision(decision="allow"))
    assert caught.value.data["by"] == "withdrawn"


async def test_questions_do_not_disturb_each_other(kit: Any) -> None:
    office, people = Office(), [kit.Person() for _ in range(3)]
    asking = [office.ask(kit.caller(f"c{at}", approver=person)) for at, person in enumerate(people)]
    for person in people:
        await kit.soon(person.was_asked)
    assert office.permissions.pending == 3
    people[1].says("allow")
    assert (await asking[1]).allow
    assert [task.done() for task in asking] == [False, True, False]
    people[0].goes()
    assert not (await asking[0]).allow
    office.permissions.respond(people[2].asked[0].permission_id, PermissionDecision(decision="allow"))
    assert (await asking[2]).allow
    assert office.permissions.pending == 0


async def test_every_decision_is_logged_without_the_input(kit: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "test.permissions")
    office = Office()
    await office.ask(kit.caller("ann"))
    (record,) = [record for record in caplog.records if record.message == "permission"]
    facts = {
        name: getattr(record, name) for name in ("permission", "turn", "caller", "tool", "decision", "by")
    }
    assert facts == {
        "permission": "p0",
        "turn": "t",
        "caller": "ann",
        "tool": "Bash",
        "decision": "deny",
        "by": "noClient",
    }
    assert "ls" not in str(record.__dict__.values())
