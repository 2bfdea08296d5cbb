"""Control requests in both directions, without a process."""

import asyncio
import json
from typing import Any

import pytest
from dragomand.upstream.claude_code import control
from dragomand.upstream.claude_code.control import Control, ControlError, ControlLostError
from dragomand.upstream.claude_code.wire import ControlAnswer, ControlRequest
from dragomand.upstream.interface import PermissionAnswer, PermissionAsk


class Line:
    """What was written, and who is asked."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.listens = True
        self.asked: list[PermissionAsk] = []
        self.answer: Any = PermissionAnswer(allow=True)
        self.wrote = asyncio.Event()
        self.control = Control(self.write, self.ask)

    def write(self, data: bytes) -> bool:
        if self.listens:
            self.written.append(json.loads(data))
            self.wrote.set()
        return self.listens

    async def ask(self, question: PermissionAsk) -> PermissionAnswer:
        self.asked.append(question)
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: PermissionAnswer = self.answer
        return answer

    async def response(self, **request: Any) -> dict[str, Any]:
        self.wrote.clear()
        self.control.asked(ControlRequest(request_id="q", request=request))
        async with asyncio.timeout(10):
            await self.wrote.wait()
        frame = self.written[-1]
        assert frame["type"] == "control_response"
        assert frame["response"]["request_id"] == "q"
        response: dict[str, Any] = frame["response"]
        return response


@pytest.fixture
async def line() -> Line:
    return Line()


async def test_answers_find_their_requests(line: Line) -> None:
    one, two = line.control.send({"subtype": "a"}), line.control.send({"subtype": "b"})
    first, second = [frame["request_id"] for frame in line.written]
    assert line.written[0] == {"type": "control_request", "request_id": first, "request": {"subtype": "a"}}
    line.control.answered(ControlAnswer("success", second, response={"n": 2}))
    line.control.answered(ControlAnswer("success", first))
    line.control.answered(ControlAnswer("success", first, response={"late": True}))
    line.control.answered(ControlAnswer("success", "never asked"))
    assert (await one, await two) == ({}, {"n": 2})


@pytest.mark.parametrize(("error", "said"), [("not today", "not today"), (None, "no reason")])
async def test_an_error_is_raised(line: Line, error: str | None, said: str) -> None:
    answer = line.control.send({"subtype": "a"})
    line.control.answered(ControlAnswer("error", line.written[0]["request_id"], error=error))
    with pytest.raises(ControlError, match=said):
        await answer


async def test_a_request_has_a_deadline(line: Line) -> None:
    with pytest.raises(TimeoutError):
        await line.control.request({"subtype": "a"}, 0.01)
    line.control.answered(ControlAnswer("success", line.written[0]["request_id"]))


async def test_a_lost_process_fails_what_waits(line: Line) -> None:
    ignored, waiting = line.control.send({"subtype": "a"}), line.control.send({"subtype": "b"})
    line.control.lost()
    line.control.lost()
    with pytest.raises(ControlLostError):
        await waiting
    line.listens = False
    with pytest.raises(ControlLostError):
        await line.control.request({"subtype": "c"}, 10)
    assert ignored.done()


async def test_a_question_is_passed_on_as_it_is(line: Line) -> None:
    response = await line.response(
        subtype="can_use_tool",
        tool_name="Bash",
        input={"command": "ls"},
        tool_use_id="t",
        decision_reason="why",
    )
    assert line.asked == [PermissionAsk("Bash", {"command": "ls"}, "t", "why")]
    assert response["response"] == {"behavior": "allow", "updatedInput": {"command": "ls"}}


async def test_a_question_of_an_odd_shape_is_a_question_still(line: Line) -> None:
    await line.response(subtype="can_use_tool", input=[1], tool_use_id=2, decision_reason=3)
    assert line.asked == [PermissionAsk("", {}, None, None)]


@pytest.mark.parametrize(
    ("answer", "response"),
    [
        (
            PermissionAnswer(allow=True, updated_input={"b": 2}),
            {"behavior": "allow", "updatedInput": {"b": 2}},
        ),
        (PermissionAnswer(allow=False, message="no"), {"behavior": "deny", "message": "no"}),
        (
            PermissionAnswer(allow=False, message="no", interrupt=True),
            {"behavior": "deny", "message": "no", "interrupt": True},
        ),
    ],
)
async def test_answers_to_questions(line: Line, answer: PermissionAnswer, response: dict[str, Any]) -> None:
    line.answer = answer
    assert (await line.response(subtype="can_use_tool", input={"a": 1}))["response"] == response


@pytest.mark.parametrize(
    "answer",
    [PermissionAnswer(allow=False), RuntimeError("no"), PermissionAnswer(allow="yes")],  # type: ignore[arg-type]
)
async def test_anything_but_a_clear_yes_is_a_no_with_a_reason(line: Line, answer: Any) -> None:
    line.answer = answer
    response = (await line.response(subtype="can_use_tool", input={}))["response"]
    assert response["behavior"] == "deny"
    assert response["message"]


@pytest.mark.parametrize("subtype", ["hook_callback", "elicitation", None])
async def test_what_is_not_known_is_refused(line: Line, subtype: str | None) -> None:
    response = await line.response(subtype=subtype)
    assert response["subtype"] == "error"
    assert str(subtype) in response["error"]
    assert not line.asked


async def test_a_question_that_does_not_end_is_not_waited_for_for_ever(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "SETTLE_S", 0.01)
    begun, over = asyncio.Event(), asyncio.Event()

    async def stubborn(_: PermissionAsk) -> PermissionAnswer:
        begun.set()
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue
        return PermissionAnswer(allow=True)

    ours = Control(line.write, stubborn)
    ours.asked(ControlRequest(request_id="q", request={"subtype": "can_use_tool"}))
    await begun.wait()
    ours.withdraw_questions()
    await ours.settle()
    over.set()
    await ours.settle()


async def test_a_question_that_is_withdrawn_is_not_answered(line: Line) -> None:
    line.control.asked(ControlRequest(request_id="q", request={"subtype": "can_use_tool"}))
    line.control.withdrawn("q")
    line.control.withdrawn("never asked")
    await line.control.settle()
    assert line.written == []
