"""May this tool run? Asked of the client that started the turn; anything but a timely yes is a no.

The deadline is armed before the question is published; the id is 128 random bits, single use, and bound to
the exact input that was shown. The first answer wins, whether it comes as the response to
`permission/request` or as `permission/respond` from another connection that may approve.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal

import anyio
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams
from dragoman_protocol.stream import Event, PermissionAsked, PermissionResolved

from dragomand.upstream.interface import PermissionAnswer, PermissionAsk

from .caller import Caller
from .errors import EngineError

By = Literal["client", "timeout", "disconnect", "shutdown", "noClient", "withdrawn"]
"""Who or what decided."""

_WORDS: dict[By, str] = {
    "client": "The user denied this.",
    "timeout": "Nobody answered in time, so this was denied.",
    "disconnect": "The client that could approve this is gone, so this was denied.",
    "shutdown": "The daemon is stopping, so this was denied.",
    "noClient": "No client can approve this, so it was denied. To run unattended, allow the tool beforehand.",
    "withdrawn": "The question was withdrawn.",
}

REMEMBERED = 1000
"""How many decided ids are remembered, to tell `already_resolved` from `permission_not_found`."""


class _Pending:
    """One open question."""

    def __init__(self) -> None:
        self.decided = anyio.Event()
        self.decision: PermissionDecision | None = None
        self.by: By = "timeout"

    @property
    def allowed(self) -> bool:
        """Whether somebody said yes."""
        return self.decision is not None and self.decision.decision == "allow"

    def decide(self, decision: PermissionDecision | None, by: By) -> bool:
        """Take the first answer; tells whether this was it. None denies."""
        if self.decided.is_set():
            return False
        self.decision, self.by = decision, by
        self.decided.set()
        return True


class Permissions:
    """All open questions of the daemon."""

    def __init__(
        self,
        *,
        timeout_s: float,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        logger: logging.Logger,
    ) -> None:
        """Wait at most *timeout_s* seconds for a word; *clock*: Unix seconds, *new_id*: 128 random bits."""
        self._timeout_s = timeout_s
        self._clock = clock
        self._new_id = new_id
        self._logger = logger
        self._pending: dict[str, _Pending] = {}
        self._decided: OrderedDict[str, By] = OrderedDict()

    @property
    def pending(self) -> int:
        """How many questions are open."""
        return len(self._pending)

    async def ask(
        self,
        ask: PermissionAsk,
        *,
        caller: Caller,
        session_id: str,
        turn_id: str,
        publish: Callable[[Event], None],
    ) -> PermissionAnswer:
        """Ask *caller*'s person and return the answer; both are published. Raises only when cancelled."""
        question = PermissionRequestParams(
            permission_id=self._new_id(),
            session_id=session_id,
            turn_id=turn_id,
            tool_name=ask.tool_name,
            input=ask.input,
            tool_use_id=ask.tool_use_id,
            reason=ask.reason,
            expires_at=self._clock() + self._timeout_s,
        )
        pending = self._pending[question.permission_id] = _Pending()
        try:
            await self._wait(pending, question, caller, publish)
        except BaseException:
            pending.decide(None, "withdrawn")
            raise
        finally:
            self._settle(pending, question, caller, publish)
        return _answer(pending)

    def respond(self, permission_id: str, decision: PermissionDecision) -> None:
        """Decide from elsewhere. Raises `permission_not_found`, or `already_resolved` with who did."""
        pending = self._pending.get(permission_id)
        if pending is None or not pending.decide(decision, "client"):
            by: Any = self._decided.get(permission_id) if pending is None else pending.by
            if by is None:
                raise EngineError("permission_not_found", permission_id=permission_id)
            raise EngineError("already_resolved", permission_id=permission_id, by=by)

    def deny_all(self) -> None:
        """The daemon is stopping."""
        for pending in list(self._pending.values()):
            pending.decide(None, "shutdown")

    async def _wait(
        self,
        pending: _Pending,
        question: PermissionRequestParams,
        caller: Caller,
        publish: Callable[[Event], None],
    ) -> None:
        able = caller.approver is not None and "approve" in caller.scopes
        with anyio.move_on_after(self._timeout_s):
            publish(
                PermissionAsked(
                    permission_id=question.permission_id, tool_name=question.tool_name, input=question.input
                )
            )
            if not able:
                # Another connection might use `permission/respond`, but nobody was told to: fail closed.
                pending.decide(None, "noClient")
                return
            async with anyio.create_task_group() as asking:
                asking.start_soon(self._ask_client, pending, question, caller)
                await pending.decided.wait()
                asking.cancel_scope.cancel()
        pending.decide(None, "timeout")

    def _settle(
        self,
        pending: _Pending,
        question: PermissionRequestParams,
        caller: Caller,
        publish: Callable[[Event], None],
    ) -> None:
        permission_id = question.permission_id
        del self._pending[permission_id]
        self._decided[permission_id] = pending.by
        if len(self._decided) > REMEMBERED:
            self._decided.popitem(last=False)
        word: Literal["allow", "deny"] = "allow" if pending.allowed else "deny"
        facts = {
            "permission": permission_id,
            "turn": question.turn_id,
            "caller": caller.id,
            "tool": question.tool_name,
            "decision": word,
            "by": pending.by,
        }
        self._logger.info("permission", extra=facts)
        publish(PermissionResolved(permission_id=permission_id, decision=word, by=pending.by))

    async def _ask_client(self, pending: _Pending, question: PermissionRequestParams, caller: Caller) -> None:
        assert caller.approver is not None
        try:
            pending.decide(await caller.approver(question), "client")
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the client, the answer is no
            self._logger.info("permission/request failed", extra={"caller": caller.id, "error": str(error)})
            pending.decide(None, "disconnect")


def _answer(pending: _Pending) -> PermissionAnswer:
    decision = pending.decision
    if decision is not None and pending.allowed:
        return PermissionAnswer(allow=True, updated_input=decision.updated_input)
    said = decision.message if decision is not None else None
    return PermissionAnswer(allow=False, message=said or _WORDS[pending.by])
