"""One conversation with the Messages API: every turn is one call that brings the whole conversation."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from dragoman_protocol.content import Prompt

from dragomand.upstream.interface import (
    ApiCall,
    EventSink,
    Failure,
    HistoryMessage,
    Rewound,
    RunSpec,
    TurnOutcome,
    UpstreamError,
)
from dragomand.upstream.limits_heard import OnLimits, nobody
from dragomand.upstream.messages_api.answer import Answer
from dragomand.upstream.messages_api.connections import Http, Reader
from dragomand.upstream.messages_api.endpoint import Call, Endpoint
from dragomand.upstream.messages_api.http import BadAnswerError, BadHeaderError
from dragomand.upstream.messages_api.reading import StreamReading
from dragomand.upstream.messages_api.request import headers_of, message_body
from dragomand.upstream.messages_api.settings import DirectSettings
from dragomand.upstream.messages_api.watchdog import Watchdog
from dragomand.upstream.models import resolve

BROKEN = (OSError, EOFError, BadAnswerError, BadHeaderError)
"""What a call raises that was not carried to its end."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """A cloud, and the way there."""

    endpoint: Endpoint
    post: Callable[[Call, Reader], Awaitable[None]]
    """Sends a call; see `connections.Http.post`."""


class MessagesRun:
    """A run (`UpstreamRun`). Made by `MessagesApi.open`; nothing runs between turns."""

    def __init__(
        self,
        spec: RunSpec,
        http: Http,
        api_key: Callable[[], str | None],
        settings: DirectSettings,
        on_end: Callable[["MessagesRun"], None],
        on_limits: OnLimits = nobody,
        cloud: Cloud | None = None,
    ) -> None:
        """Talk through *http*; *api_key* is asked for each call and never kept. *cloud* needs neither.

        *on_limits* is told what each answer says of the provider's limits, when its head is there.
        """
        self._spec = spec
        self._http = http
        self._on_limits = on_limits
        self._cloud = cloud
        self._url = settings.url("/v1/messages")
        self._api_key = api_key
        self._settings = settings
        self._tell_end = on_end
        self._messages = list(spec.history)
        self._task: asyncio.Task[object] | None = None
        """Whose `send` is under way."""
        self._interrupted = False
        self._ended: asyncio.Future[None] | None = None
        """For whoever waits for that one's end."""

    @property
    def upstream_session_id(self) -> None:
        """The API keeps no sessions."""
        return None

    @property
    def version(self) -> None:
        """The API tells none."""
        return None

    @property
    def api_access(self) -> None:
        """No process calls the API through the gateway: the daemon calls it itself."""
        return None

    @property
    def pid(self) -> None:
        """There is no process."""
        return None

    @property
    def warm(self) -> None:
        """There is no process that could be."""
        return None

    @property
    def alive(self) -> bool:
        """There is no process that could end."""
        return True

    @property
    def memory_bytes(self) -> None:
        """There is no process that has any."""
        return None

    async def send(self, prompt: Prompt, message_id: str, sink: EventSink) -> TurnOutcome:
        """Run one turn; see `UpstreamRun.send`. One call, which is not repeated.

        Raises what `RunSpec.admit_call` raises.
        """
        if self._task is not None:
            raise RuntimeError("A turn is running on this run already.")
        self._interrupted = False
        asked = HistoryMessage("user", prompt)
        self._task = asyncio.current_task()
        try:
            outcome = await self._call(asked, message_id, sink)
        finally:
            self._task = None
            if self._ended is not None:
                self._ended.set_result(None)
                self._ended = None
        if outcome.status == "completed":
            self._messages.append(asked)
            if outcome.text:
                self._messages.append(HistoryMessage("assistant", outcome.text))
        return outcome

    async def rewind_files(self, message_id: str, *, dry_run: bool) -> Rewound:
        """Refuse it: there are no tools here, so no file was changed."""
        raise UpstreamError(Failure("caller", "An answer of the Messages API changes no files."))

    async def interrupt(self) -> bool:
        """Break the running call off; see `UpstreamRun.interrupt`. Never waits."""
        if self._task is None:
            return False
        if not self._interrupted:
            self._interrupted = True
            self._task.cancel()
        return True

    async def close(self) -> None:
        """End the run; a running turn ends as `interrupted`."""
        if await self.interrupt():
            if self._ended is None:
                self._ended = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._ended)
        self._tell_end(self)

    # -- one call

    async def _call(self, asked: HistoryMessage, message_id: str, sink: EventSink) -> TurnOutcome:
        admit = self._spec.admit_call
        answer = self._answer(sink)
        if admit is None:
            return await self._timed(asked, message_id, answer, None)

        async def attempt(call: ApiCall) -> TurnOutcome:
            answer = self._answer(sink)
            outcome = await self._timed(asked, message_id, answer, call)
            call.begun = answer.begun
            call.usage = answer.usage if answer.begun else None
            call.finished = outcome.status == "completed"
            call.failure = outcome.failure
            return outcome

        try:
            return await admit(attempt)
        except asyncio.CancelledError:  # while it waited for the permit
            if not self._is_ours():
                raise
            return replace(_outcome(answer, None, 0), cost_usd=0.0, cost_total_usd=0.0)

    def _answer(self, sink: EventSink) -> Answer:
        reader = None if self._cloud is None else self._cloud.endpoint.reader()
        return Answer(sink, self._spec.deltas_wanted, reader)

    async def _timed(
        self, asked: HistoryMessage, message_id: str, answer: Answer, call: ApiCall | None
    ) -> TurnOutcome:
        loop = asyncio.get_running_loop()
        task = self._task
        assert task is not None
        watchdog = Watchdog(loop, self._settings, task.cancel)
        began = loop.time()
        failure: Failure | None = None
        try:
            model = resolve(self._spec.model or self._settings.model)
            reading = StreamReading(
                answer,
                watchdog,
                call,
                self._on_limits,
                model=model,
                message_id=message_id,
                cloud=None if self._cloud is None else self._cloud.endpoint,
            )
            failure = await self._exchange(asked, reading)
        except asyncio.CancelledError:
            if watchdog.late is not None and not self._interrupted:
                task.uncancel()
                failure = Failure("overload", f"The Messages API {watchdog.late}.")
            elif not self._is_ours():
                raise
        except UpstreamError as refused:
            failure = refused.failure
        except BROKEN as broken:
            failure = failure_of(broken, begun=answer.begun)
        finally:
            watchdog.stop()
        return _outcome(answer, failure, round((loop.time() - began) * 1000))

    async def _exchange(self, asked: HistoryMessage, reading: StreamReading) -> Failure | None:
        """Make the call and read its answer to the end; returns why there is none."""
        cloud = self._cloud
        if cloud is not None:
            body = message_body(self._spec, [*self._messages, asked], self._settings)
            await cloud.post(await cloud.endpoint.call(body, self._spec.betas), reading)
            return reading.failure
        key = self._api_key()
        if key is None:
            return Failure("auth", "The daemon holds no API key any more.")
        body = message_body(self._spec, [*self._messages, asked], self._settings)
        await self._http.post(self._url, headers_of(key), body, reading)
        return reading.failure

    def _is_ours(self) -> bool:
        """Tell whether a cancellation was `interrupt`'s, and take it back then."""
        if not self._interrupted or self._task is None:
            return False
        self._task.uncancel()
        return True


def failure_of(broken: Exception, *, begun: bool = False) -> Failure:
    """Return what one of `BROKEN` means for the call; *begun*: some of the answer had come."""
    said = str(broken).rstrip(".") or type(broken).__name__
    if isinstance(broken, BadAnswerError):
        return Failure("protocol", f"The Messages API's answer is no HTTP: {said}.")
    if isinstance(broken, BadHeaderError):
        return Failure("auth", f"The API key cannot be sent: {said}.")
    what = "broke the answer off" if begun else "cannot be reached"
    return Failure("overload", f"The Messages API {what}: {said}.")


def _outcome(answer: Answer, failure: Failure | None, duration_ms: int) -> TurnOutcome:
    cost = answer.cost_usd
    status = "completed" if answer.complete and failure is None else "failed" if failure else "interrupted"
    return TurnOutcome(
        status=status,  # type: ignore[arg-type]
        text=answer.said,
        usage=answer.usage,
        cost_total_usd=cost,
        cost_usd=cost,
        model=answer.model,
        stop_reason=answer.stop_reason,
        duration_api_ms=duration_ms,
        failure=failure,
        last_events=tuple(answer.held),
    )
