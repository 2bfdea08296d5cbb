"""One Claude Code process: it is started and made ready, takes one turn after another, and is ended.

What it prints is taken as it comes, in the loop's own callback; no consumer is ever waited for, so an
interrupt reaches Claude Code while any reader is stalled.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from dragoman_protocol.content import Prompt

from dragomand.process import children
from dragomand.process.ledger import Ledger
from dragomand.process.memory import held_bytes
from dragomand.telemetry.redaction import Redactor
from dragomand.upstream.claude_code.command import build_initialize, build_preparations, late_choices
from dragomand.upstream.claude_code.control import Control, ControlError, ControlLostError
from dragomand.upstream.claude_code.failures import cannot_start, crashed, explained, start_failure
from dragomand.upstream.claude_code.limits import Listener
from dragomand.upstream.claude_code.rewind import rewind_files
from dragomand.upstream.claude_code.starts import Kind
from dragomand.upstream.claude_code.transcript import Transcript
from dragomand.upstream.claude_code.turn import Costs, Turn, message_uuid, recorded, user_frame
from dragomand.upstream.claude_code.watchdog import Watchdog
from dragomand.upstream.claude_code.wire import (
    MAX_LINE_BYTES,
    AnyFrame,
    ControlCancel,
    ControlRequest,
    ControlResponse,
    Lines,
    Overlong,
    Result,
    System,
    as_json,
    decode,
)
from dragomand.upstream.interface import (
    ApiAccess,
    AskPermission,
    EventSink,
    Failure,
    FailureCategory,
    Rewound,
    RunSpec,
    TurnOutcome,
    UpstreamError,
)
from dragomand.upstream.limits_heard import OnLimits, nobody

INTERRUPT_S = 5.0
"""How long, in seconds, Claude Code may take to end an interrupted turn; then its process is ended."""

STALL_S = 330.0
"""Silence, in seconds: longer than Claude Code itself waits for its API, whose stall it reports better."""

_STALL_PATIENCE_S = 1.0
_ADOPTION_S = 5.0


class ClaudeCodeRun:
    """A run (`UpstreamRun`). Made by `ClaudeCode.open`."""

    def __init__(
        self,
        spec: RunSpec,
        ask: AskPermission,
        transcript: Transcript,
        redact: Redactor,
        on_end: Callable[["ClaudeCodeRun"], None],
        *,
        max_line_bytes: int = MAX_LINE_BYTES,
        stall_s: float = STALL_S,
        on_limits: OnLimits = nobody,
    ) -> None:
        """Describe the run; `start` starts it. *on_end* is called once, when the process is gone.

        *on_limits* is told what Claude Code says of limits, in a turn and between turns. *stall_s* is how
        long, in seconds, Claude Code may say nothing in a turn while no tool runs.
        """
        self._spec = spec
        self._stall_s = stall_s
        self._watchdog = Watchdog(stall_s, self._stalled, self._may_be_silent)
        self._transcript = transcript
        self._redact = redact
        self._tell_end = on_end
        self._limits = Listener(on_limits)
        self._lines = Lines(max_line_bytes)
        self._control = Control(self._write, ask)
        self._child: children.Child | None = None
        self._turn: Turn | None = None
        self._costs = Costs(None if spec.resume else 0.0)
        self._session_id: str = spec.session_id if spec.fork or not spec.resume else spec.resume
        self._session_seen = False
        self._version: str | None = None
        self._refusal: Result | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.kind = Kind("")
        """What its start had in common with others."""
        self.rehearsed = False
        """Whether it has gone through a turn that was taken back."""
        self.api_access: ApiAccess | None = None
        """The gateway's access that its calls are made with."""
        self.warm: bool | None = False
        """Whether the process had been started before anybody asked for it."""
        self.on_turn_end: Callable[[], None] | None = None
        """Called once, when the first turn or the run is over."""
        self.unreadable_lines = 0
        """Lines that were no JSON."""
        self.stray_frames = 0
        """Frames that came while no turn was running and that nobody could be given."""

    @property
    def upstream_session_id(self) -> str | None:
        """Claude Code's session id."""
        return self._session_id

    @property
    def version(self) -> str | None:
        """Claude Code's version."""
        return self._version

    async def start(
        self, command: children.Command, ledger: Ledger, timeout_s: float, guard_command: Sequence[str]
    ) -> None:
        """Start the process and wait until it is ready; raises `UpstreamError`, and then it is gone."""
        try:
            self._child = await children.start(command, ledger, self._take_output, self._ended, guard_command)
        except OSError as failed:
            raise UpstreamError(cannot_start(failed, command.cwd)) from failed
        try:
            ready = await self._control.request(build_initialize(self._spec), timeout_s)
            await self._prepare(timeout_s)
        except UpstreamError:
            await self._child.close()
            raise
        except (ControlError, TimeoutError) as failed:
            await self._child.close()
            raise UpstreamError(self._start_failure(failed, timeout_s)) from failed
        except asyncio.CancelledError:
            self._child.close_soon()
            raise
        version = ready.get("claude_code_version")
        self._version = version if isinstance(version, str) else None

    @property
    def pid(self) -> int | None:
        """The process id of its guard, once started."""
        return None if self._child is None or self._child.ended else self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it can take a turn."""
        return self._child is not None and self._child.alive

    @property
    def memory_bytes(self) -> int | None:
        """What the guard and everything below it hold."""
        return None if self.pid is None else held_bytes(self.pid)

    async def adopt(
        self, spec: RunSpec, ask: AskPermission, timeout_s: float, claim: dict[str, Any] | None = None
    ) -> None:
        """Give a process that was started ahead to whoever asks for *spec*; raises `UpstreamError`.

        What may be chosen late is chosen now. *claim* binds a process that belongs to no folder yet.
        """
        requests = [*([claim] if claim else []), *late_choices(spec, self._spec)]
        self.reused(spec, ask)
        try:
            async with asyncio.timeout(_ADOPTION_S):
                answers = [await answer for answer in [self._control.send(each) for each in requests]]
            if claim is not None:
                self._claimed(answers[0])
            await self._prepare(timeout_s)
        except UpstreamError:
            self.close_soon()
            raise
        except (ControlError, TimeoutError) as failed:
            self.close_soon()
            raise UpstreamError(Failure("protocol", f"It cannot be taken over: {failed}")) from failed
        except asyncio.CancelledError:
            self.close_soon()
            raise

    def reused(self, spec: RunSpec, ask: AskPermission) -> None:
        """Begin to work for *spec*, which differs in nothing that this process was told at its start."""
        self._spec = spec
        self._control.ask_with(ask)
        self.warm = True

    async def clear(self) -> bool:
        """Begin a fresh conversation in the same process; False if it did not, and then it must be closed."""
        before = self._session_id
        self._spec = replace(self._spec, verbatim_prompt=False)
        try:
            async with asyncio.timeout(_ADOPTION_S):
                outcome = await self.send("/clear", str(uuid.uuid4()), lambda _: None)
        except TimeoutError:
            return False
        if outcome.status != "completed" or self._session_id == before:
            return False
        self._transcript = self._transcript.of(self._session_id)
        self._costs = Costs(0.0)
        return True

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a control request and return its answer; raises `ControlError`, `TimeoutError`."""
        return await self._control.request(request, _ADOPTION_S)

    async def _prepare(self, timeout_s: float) -> None:
        """Set what may hold secrets; raises `UpstreamError` (`caller`) for settings or servers that fail."""
        for request in build_preparations(self._spec):
            try:
                answer = await self._control.request(request, timeout_s)
            except ControlLostError:
                raise
            except ControlError as refused:
                raise UpstreamError(Failure("caller", self._redact(str(refused)))) from refused
            if errors := answer.get("errors"):
                said = "; ".join(f"{name}: {why}" for name, why in errors.items())
                text = f"MCP servers could not be started. {said}"
                raise UpstreamError(Failure("caller", self._redact(text), detail=self._stderr()))

    async def send(self, prompt: Prompt, message_id: str, sink: EventSink) -> TurnOutcome:
        """Run one turn; see `UpstreamRun.send`."""
        if self._turn is not None:
            raise RuntimeError("A turn is running on this run already.")
        uuid_ = message_uuid(message_id)
        turn = self._turn = Turn(uuid_, sink, self._costs)
        self._watchdog.start()
        try:
            if not self._write(user_frame(prompt, uuid_, verbatim=self._spec.verbatim_prompt)):
                turn.fail(replace(self._crash(), unsent=True))
            outcome = await asyncio.shield(turn.outcome)  # so that cancelling leaves a turn to interrupt
        except asyncio.CancelledError:
            await self.interrupt()
            self.close_soon()
            raise
        finally:
            self._turn = None
            self._watchdog.stop()
            self._stop_timer()
            self._control.withdraw_questions()
            self.tell_turn_end()
        if outcome.failure is not None:
            outcome = replace(outcome, failure=explained(outcome.failure, self.api_access))
        count = await asyncio.to_thread(self._transcript.count)
        return recorded(outcome, turn.leaf_id, self._transcript, count)

    async def interrupt(self) -> bool:
        """Ask the running turn to stop; see `UpstreamRun.interrupt`. Never waits."""
        turn = self._turn
        if turn is None or turn.outcome.done():
            return False
        if not turn.interrupted:
            turn.interrupted = True
            self._control.send({"subtype": "interrupt", "cancel_queued": True})
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(INTERRUPT_S, self._give_up, turn)
        return True

    async def rewind_files(self, message_id: str, *, dry_run: bool) -> Rewound:
        """Put files back; see `UpstreamRun.rewind_files`."""
        return await rewind_files(self._control, message_uuid(message_id), dry_run=dry_run)

    async def close(self) -> None:
        """End the process and all its descendants, within 6 s; a running turn ends as `interrupted`."""
        await self.interrupt()
        if self._child is not None:
            await self._child.close()
        await self._control.settle()

    # what the process says

    def _take_output(self, data: bytes) -> None:
        self._watchdog.heard()
        for line in self._lines.feed(data):
            if isinstance(line, Overlong):
                self._abandon("A line of Claude Code's output is too long to be read.", "protocol")
            else:
                self._take(decode(line), line)

    def _take(self, frame: AnyFrame | None, line: bytes) -> None:
        if isinstance(frame, ControlResponse):
            self._control.answered(frame.response)
        elif isinstance(frame, ControlRequest):
            self._control.asked(frame)
        elif isinstance(frame, ControlCancel):
            self._control.withdrawn(frame.request_id)
        else:
            self._note(frame, line)
            turn = self._turn
            model = (turn and turn.model) or self._spec.model
            heard = self._limits.hear(frame, model, first_hand=self.api_access is None)
            if turn is not None and not turn.outcome.done():
                turn.take(frame, line, heard)
            elif frame is None or isinstance(frame, Result):
                self._refusal = frame or self._refusal
                self.stray_frames += 1

    def _note(self, frame: AnyFrame | None, line: bytes) -> None:
        if frame is None:
            self.unreadable_lines += not as_json(line)[1]
            return
        if isinstance(frame, System):
            self._version = frame.claude_code_version or self._version
            if frame.retry_delay_ms:
                self._watchdog.heard(frame.retry_delay_ms / 1000)
        opened = frame.session_id
        if opened == self._session_id:
            self._session_seen = True
        elif opened is not None and self._session_seen:
            self._session_id = opened  # a new conversation in the same process: /clear
        elif opened is not None and self._turn is not None:
            wanted = self._session_id
            self._abandon(f"Claude Code opened session {opened} instead of {wanted}.", "mismatch")

    def _ended(self) -> None:
        self._control.lost()
        if self._turn is not None:
            self._turn.fail(self._crash())
        self._watchdog.stop()
        self._stop_timer()
        self.tell_turn_end()
        if self.rehearsed and not self.warm:  # nobody has used it: nothing is left of it
            self._transcript.remove()
        self._tell_end(self)

    # ends

    def _abandon(self, why: str, category: FailureCategory) -> None:
        """Fail the turn and end the process: what it says cannot be relied on. The session can be resumed."""
        if self._turn is not None:
            self._turn.fail(Failure(category, why))
        self.close_soon()

    def _give_up(self, turn: Turn) -> None:
        turn.fail(Failure("crash", "Claude Code did not stop."))
        self.close_soon()

    def _may_be_silent(self) -> bool:
        return self._control.asking or (self._turn is not None and self._turn.uses_tools)

    def _stalled(self) -> None:
        """Interrupt a turn of which nothing is heard any more, and give it up soon after."""
        turn = self._turn
        if turn is None or turn.outcome.done():
            return
        failure = Failure("overload", f"Claude Code said nothing for {self._stall_s:g} s, so it was stopped.")
        turn.stalled(failure)
        self._stop_timer()
        turn.interrupted = True
        self._control.send({"subtype": "interrupt", "cancel_queued": True})
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_STALL_PATIENCE_S, self._give_up, turn)

    def _claimed(self, answer: dict[str, Any]) -> None:
        opened = answer.get("session_id")
        if not isinstance(opened, str):
            raise ControlError("it does not say which session it has become")
        self._session_id, self._session_seen = opened, True
        self._transcript = self._transcript.of(opened)

    def tell_turn_end(self) -> None:
        """Call `on_turn_end`, if that has not been done."""
        tell, self.on_turn_end = self.on_turn_end, None
        if tell is not None:
            tell()

    def close_soon(self) -> None:
        """Begin to end the process."""
        if self._child is not None and not self._child.ended:
            self._child.close_soon()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _write(self, data: bytes) -> bool:
        return self._child is not None and self._child.write(data)

    def _crash(self) -> Failure:
        return crashed(None if self._child is None else self._child.status, self._stderr())

    def _stderr(self) -> str | None:
        return None if self._child is None else self._redact(self._child.stderr) or None

    def _start_failure(self, failed: Exception, timeout_s: float) -> Failure:
        status = None if self._child is None else self._child.status
        if self._spec.resume and self._refusal is not None:
            message = f"There is no conversation {self._spec.resume} to resume."
            return Failure("mismatch", message, detail=self._stderr())
        lost = isinstance(failed, ControlLostError)
        return start_failure(failed, timeout_s, status, self.unreadable_lines, self._stderr(), lost=lost)
