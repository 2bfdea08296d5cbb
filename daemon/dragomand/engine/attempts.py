"""Asks until the answer fits its schema, a bounded number of times, and keeps account of every attempt."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from dragoman_protocol.content import Prompt
from dragoman_protocol.query import OutputAttempt, StructuredAnswer
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import StructuredOutput, UserMessage

from dragomand.upstream.interface import EventSink, TurnOutcome

from .errors import EngineError
from .structured import OutputSchema, correction

Ask = Callable[[Prompt, str], Awaitable[TurnOutcome]]
"""Sends a message, with its id, into the run of the turn."""


class Attempts:
    """The attempts of one turn."""

    def __init__(self, output: OutputSchema) -> None:
        """Ask for an answer that fits *output*."""
        self._output = output
        self._made: list[OutputAttempt] = []
        self.answer: StructuredAnswer | None = None
        """The answer that fits, once there is one."""
        self.error: EngineError | None = None
        """`schema_mismatch`, once the last attempt did not fit; `invalid_params` for a schema that fails."""

    async def run(
        self, ask: Ask, prompt: Prompt, message_id: str, sink: EventSink, stopped: Callable[[], bool]
    ) -> TurnOutcome:
        """Return the last attempt's outcome, with the usage and cost of all. A failed one ends it."""
        outcome = await self._ask(ask, prompt, message_id, sink)
        while outcome.status == "completed":
            told = self._judge(outcome, sink)
            if told is None or stopped():
                break
            message_id = f"{message_id}.again"
            sink(UserMessage(item_id=message_id, content=told))
            outcome = await self._ask(ask, told, message_id, sink)
        else:
            failure = outcome.failure
            if failure is None or not failure.unsent:
                self._made.append(OutputAttempt(usage=outcome.usage, cost_usd=outcome.cost_usd))
            elif self._made:  # what came before was sent: all of it must not be carried out again
                outcome = replace(outcome, failure=replace(failure, unsent=False))
        return replace(outcome, usage=self._usage(), cost_usd=self._cost())

    async def _ask(self, ask: Ask, prompt: Prompt, message_id: str, sink: EventSink) -> TurnOutcome:
        """Ask, and tell at once what of the answer was held back: more follows."""
        outcome = await ask(prompt, message_id)
        for event in outcome.last_events:
            sink(event)
        return replace(outcome, last_events=())

    def _judge(self, outcome: TurnOutcome, sink: EventSink) -> str | None:
        """Return what to tell the model; None when there is nothing more to ask."""
        attempt = OutputAttempt(usage=outcome.usage, cost_usd=outcome.cost_usd)
        try:
            value, mismatch = self._output.check(outcome.text)
        except EngineError as unusable:  # a reference to nothing shows only when it is followed
            self._made.append(attempt)
            self.error = unusable
            return None
        if mismatch is None:
            self._made.append(attempt)
            self.answer = StructuredAnswer(value=value, attempts=self._made)
            sink(StructuredOutput(value=value, attempts=self._made))
            return None
        attempt.error, attempt.path = mismatch.message, mismatch.path
        self._made.append(attempt)
        if len(self._made) < self._output.attempts:
            return correction(mismatch)
        self.error = EngineError(
            "schema_mismatch",
            f"The answer does not fit the outputSchema after {len(self._made)} attempts: "
            f"at {mismatch.path}: {mismatch.message}",
            path=mismatch.path,
            attempts=len(self._made),
            text=outcome.text,
        )
        return None

    def _usage(self) -> Usage:
        made = [attempt.usage for attempt in self._made]
        return Usage(
            **{name: sum(getattr(usage, name) for usage in made) for name in Usage.__struct_fields__}
        )

    def _cost(self) -> float | None:
        costs = [attempt.cost_usd for attempt in self._made]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None
