"""Control requests in both directions: ours, with a deadline each, and Claude Code's questions.

An incoming request that is not known is answered with an error, so that Claude Code never waits for us. A
question to a person is a task of its own; it is cancelled when Claude Code withdraws it.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from dragomand.upstream.claude_code.wire import ControlAnswer, ControlRequest, encode
from dragomand.upstream.interface import AskPermission, PermissionAnswer, PermissionAsk

SETTLE_S = 1.0
"""How long, in seconds, a question that was taken back may take to end."""

_DENIED = "The person who was asked did not allow it."
_FAILED = "Nobody could be asked, so it is not allowed."


class ControlError(Exception):
    """Claude Code answered a control request with an error, or not at all."""


class ControlLostError(ControlError):
    """Claude Code ended, or closed its input, before it answered."""


class Control:
    """The control channel of one process."""

    def __init__(self, write: Callable[[bytes], bool], ask: AskPermission) -> None:
        """Send with *write* (False: nobody listens), and put questions to *ask*."""
        self._write = write
        self._ask = ask
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._questions: dict[str, asyncio.Task[None]] = {}

    @property
    def asking(self) -> bool:
        """Whether somebody is being asked."""
        return bool(self._questions)

    def ask_with(self, ask: AskPermission) -> None:
        """Put questions to *ask* from now on."""
        self._ask = ask

    async def request(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send *request* at once and return its answer; raises `ControlError`, `TimeoutError`."""
        answer = self.send(request)
        async with asyncio.timeout(timeout_s):
            return await answer

    def send(self, request: dict[str, Any]) -> "asyncio.Future[dict[str, Any]]":
        """Send *request* at once; the future, which may be ignored, gets its answer or `ControlError`."""
        request_id = f"dragoman-{next(self._numbers)}"
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: self._forget(request_id, done))
        self._waiting[request_id] = answer
        frame = {"type": "control_request", "request_id": request_id, "request": request}
        if not self._write(encode(frame)):
            answer.set_exception(ControlLostError("Claude Code does not listen any more."))
        return answer

    def answered(self, answer: ControlAnswer) -> None:
        """Take an answer to a request of ours; one that nobody waits for any more is ignored."""
        waiting = self._waiting.get(answer.request_id)
        if waiting is None or waiting.done():
            return
        if answer.subtype == "success":
            waiting.set_result(answer.response or {})
        else:
            waiting.set_exception(ControlError(answer.error or "Claude Code gave no reason."))

    def asked(self, frame: ControlRequest) -> None:
        """Take a request of Claude Code's."""
        subtype = frame.request.get("subtype")
        if subtype != "can_use_tool":
            self._refuse(frame.request_id, f"Unsupported control request subtype: {subtype}")
            return
        question = self._question(frame.request)
        task = asyncio.get_running_loop().create_task(self._permission(frame.request_id, question))
        self._questions[frame.request_id] = task
        task.add_done_callback(lambda _: self._questions.pop(frame.request_id, None))

    def withdrawn(self, request_id: str) -> None:
        """Take back a question; it is not answered."""
        if (task := self._questions.get(request_id)) is not None:
            task.cancel()

    def withdraw_questions(self) -> None:
        """Take back every question: the turn is over."""
        for task in list(self._questions.values()):
            task.cancel()

    def lost(self) -> None:
        """Fail every request and take back every question: the process is gone."""
        self.withdraw_questions()
        for waiting in list(self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(ControlLostError("Claude Code ended before it answered."))

    async def settle(self) -> None:
        """Wait, for a second at most, for the ends of the questions that were taken back."""
        if self._questions:
            await asyncio.wait(self._questions.values(), timeout=SETTLE_S)

    def _forget(self, request_id: str, done: "asyncio.Future[dict[str, Any]]") -> None:
        self._waiting.pop(request_id, None)
        if not done.cancelled():
            done.exception()  # looked at here, so that one nobody waits for is not complained about

    @staticmethod
    def _question(request: dict[str, Any]) -> PermissionAsk:
        given, tool_use_id = request.get("input"), request.get("tool_use_id")
        reason = request.get("decision_reason")
        return PermissionAsk(
            tool_name=str(request.get("tool_name", "")),
            input=given if isinstance(given, dict) else {},
            tool_use_id=tool_use_id if isinstance(tool_use_id, str) else None,
            reason=reason if isinstance(reason, str) else None,
        )

    async def _permission(self, request_id: str, question: PermissionAsk) -> None:
        try:
            answer = await self._ask(question)
        except Exception:  # noqa: BLE001 (whatever went wrong: fail closed)
            answer = PermissionAnswer(allow=False, message=_FAILED)
        response: dict[str, Any]
        if answer.allow is True:
            updated = question.input if answer.updated_input is None else answer.updated_input
            response = {"behavior": "allow", "updatedInput": updated}
        else:
            response = {"behavior": "deny", "message": answer.message or _DENIED}
            if answer.interrupt:
                response["interrupt"] = True
        self._respond({"subtype": "success", "request_id": request_id, "response": response})

    def _refuse(self, request_id: str, why: str) -> None:
        self._respond({"subtype": "error", "request_id": request_id, "error": why})

    def _respond(self, response: dict[str, Any]) -> None:
        self._write(encode({"type": "control_response", "response": response}))
