"""One turn of a run: from the message that was sent to the outcome, whatever ends it."""

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
from dragoman_protocol.content import Prompt
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import Event, ToolResult, ToolUse

from dragomand.upstream.claude_code.events import Translator
from dragomand.upstream.claude_code.failures import Hints, classify, is_aborted
from dragomand.upstream.claude_code.wire import (
    AnyFrame,
    Assistant,
    Lifecycle,
    ModelUsage,
    Result,
    System,
    TokenCounts,
    encode,
)
from dragomand.upstream.interface import EventSink, Failure, TurnOutcome
from dragomand.upstream.limits_heard import LimitsHeard


def message_uuid(message_id: str) -> str:
    """Return the UUID under which Claude Code knows the message: the id itself where it is one."""
    try:
        return str(uuid.UUID(message_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, message_id))


def user_frame(prompt: Prompt, uuid_: str, *, verbatim: bool = False) -> bytes:
    """Return the line that sends *prompt*; *verbatim*: no `@path` and no `/command` in it is acted on."""
    content: Any = prompt if isinstance(prompt, str) else [msgspec.to_builtins(block) for block in prompt]
    frame: dict[str, Any] = {
        "type": "user",
        "message": {"role": "user", "content": content},
        "parent_tool_use_id": None,
        "uuid": uuid_,
    }
    if verbatim:
        frame["client_composed"] = True
    return encode(frame)


@dataclass(slots=True)
class Costs:
    """Claude Code's cumulative cost, and what of it is already accounted for."""

    total: float | None = None
    """None: unknown. A resumed conversation begins with what it has cost before, which is not told."""

    def settle(self, result: Result) -> float | None:
        """Take the new total and return this turn's share; never negative, None when unknown."""
        before, now = self.total, result.total_cost_usd
        if now is not None:
            self.total = now
        shares = [usage.cost_usd for usage in (result.model_usage_since_last_result or {}).values()]
        known = [share for share in shares if share is not None]
        if known:
            return max(0.0, sum(known))
        if result.model_usage_since_last_result is not None:
            return 0.0 if not shares else None
        return None if now is None or before is None else max(0.0, now - before)


class Turn:
    """A turn that runs. `outcome` is set exactly once."""

    def __init__(self, uuid_: str, sink: EventSink, costs: Costs) -> None:
        """Give events to *sink*; *uuid_* is the message's."""
        self.outcome: asyncio.Future[TurnOutcome] = asyncio.get_running_loop().create_future()
        self.interrupted = False
        self._uuid = uuid_
        self._costs = costs
        self._sink = sink
        self._translator = Translator(self._pass_on)
        self._tools: set[str] = set()
        self._stall: Failure | None = None
        self._hints = Hints()
        self._started = False

    @property
    def uses_tools(self) -> bool:
        """Whether a tool has begun that has not ended: it may take its time and say nothing."""
        return bool(self._tools)

    def stalled(self, failure: Failure) -> None:
        """Nothing came for too long: whatever ends the turn now, it has failed with *failure*."""
        self._stall = failure

    @property
    def model(self) -> str | None:
        """Who answered last."""
        return self._translator.model

    def take(self, frame: AnyFrame | None, line: bytes, heard: LimitsHeard | None = None) -> None:
        """Take a frame that is no control frame, and what was *heard* of limits in it.

        Not once the outcome is there.
        """
        if heard is not None:
            self._hints.note(heard)
        if isinstance(frame, Result):
            if self._is_mine(frame):
                self._end(frame)
            return
        if isinstance(frame, Lifecycle) and frame.command_uuid == self._uuid:
            self._lifecycle(frame.state)
        elif isinstance(frame, System) and frame.subtype == "api_retry":
            self._hints.category = frame.error or self._hints.category
        elif isinstance(frame, Assistant) and frame.error is not None:
            self._hints.category, self._hints.code = frame.error, frame.api_error_code
        try:
            self._translator.translate(frame, line, heard)
        except Exception as wrong:  # noqa: BLE001 (the sink's; it is raised to whoever sent the message)
            if not self.outcome.done():  # a message that was not taken has ended the turn just now
                self.outcome.set_exception(wrong)

    def fail(self, failure: Failure) -> None:
        """End the turn from outside; a turn that was to be stopped counts as interrupted."""
        if not self.outcome.done():
            failure = self._stall or failure
            stopped = self.interrupted and self._stall is None
            self.outcome.set_result(
                TurnOutcome(
                    status="interrupted" if stopped else "failed",
                    text=self._translator.text,
                    cost_total_usd=self._costs.total,
                    model=self._translator.model,
                    failure=None if stopped else failure,
                )
            )

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, ToolUse):
            self._tools.add(event.item_id)
        elif isinstance(event, ToolResult):
            self._tools.discard(event.tool_use_id)
        self._sink(event)

    def _is_mine(self, result: Result) -> bool:
        # Claude Code may take turns of its own (a background task has ended); their results are not ours.
        uuids = result.user_message_uuids
        return self._started or not uuids or self._uuid in uuids

    def _lifecycle(self, state: str) -> None:
        if state == "started":
            self._started = True
        elif state in ("cancelled", "discarded", "refused") and not self._started:
            self.fail(Failure("protocol", f"Claude Code did not take the message ({state})."))

    def _end(self, result: Result) -> None:
        cost = self._costs.settle(result)
        stopped = result.is_error and (self.interrupted or is_aborted(result))
        failure = None if stopped else classify(result, self._hints, time.time())
        if stopped and self._stall is not None:
            stopped, failure = False, self._stall
        said = self._translator.text
        self.outcome.set_result(
            TurnOutcome(
                status="interrupted" if stopped else "failed" if failure is not None else "completed",
                text=said if result.is_error else (result.result or said),
                usage=_usage(result),
                cost_total_usd=result.total_cost_usd,
                cost_usd=cost,
                model=self._translator.model,
                stop_reason=result.stop_reason,
                duration_api_ms=None if result.duration_api_ms is None else round(result.duration_api_ms),
                failure=failure,
            )
        )


def _usage(result: Result) -> Usage:
    """Return the tokens of the turn, sub-agents included where Claude Code counts them."""
    counts: list[TokenCounts | ModelUsage] = list((result.model_usage_since_last_result or {}).values())
    if not counts and result.usage is not None:
        counts = [result.usage]
    return Usage(
        input_tokens=sum(each.input_tokens or 0 for each in counts),
        output_tokens=sum(each.output_tokens or 0 for each in counts),
        cache_read_tokens=sum(each.cache_read_input_tokens or 0 for each in counts),
        cache_creation_tokens=sum(each.cache_creation_input_tokens or 0 for each in counts),
    )
