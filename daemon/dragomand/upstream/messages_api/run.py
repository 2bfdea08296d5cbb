"""One conversation with the Messages API: every turn is one call that brings the whole conversation."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dragoman_protocol.content import Prompt
from msgspec.structs import replace

from dragomand.upstream import failures, limit_headers
from dragomand.upstream.interface import EventSink, Failure, HistoryMessage, RunSpec, TurnOutcome
from dragomand.upstream.limits_heard import LimitsHeard, OnLimits, nobody
from dragomand.upstream.messages_api.answer import Answer
from dragomand.upstream.messages_api.request import headers_of, message_body
from dragomand.upstream.messages_api.settings import DirectSettings
from dragomand.upstream.messages_api.watchdog import Watchdog
from dragomand.upstream.models import resolve

if TYPE_CHECKING:
    import aiohttp

ERROR_BYTES = 65_536
"""So much of an error's body is read."""
_TAIL_S = 0.05
"""How long, in seconds, the connection of a complete answer may take to be free for the next call."""


class MessagesRun:
    """A run (`UpstreamRun`). Made by `MessagesApi.open`; nothing runs between turns."""

    def __init__(
        self,
        spec: RunSpec,
        session: "aiohttp.ClientSession",
        api_key: Callable[[], str | None],
        settings: DirectSettings,
        on_end: Callable[["MessagesRun"], None],
        on_limits: OnLimits = nobody,
    ) -> None:
        """Talk through *session*; *api_key* is asked for each call and never kept.

        *on_limits* is told what each answer says of the provider's limits, when its head is there.
        """
        self._spec = spec
        self._session = session
        self._url = settings.url("/v1/messages")
        self._api_key = api_key
        self._settings = settings
        self._tell_end = on_end
        self._on_limits = on_limits
        self._messages = list(spec.history)
        self._task: asyncio.Task[TurnOutcome] | None = None
        self._interrupted = False

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
    def warm(self) -> None:
        """There is no process that could be."""
        return None

    @property
    def memory_bytes(self) -> None:
        """There is no process that has any."""
        return None

    async def send(self, prompt: Prompt, message_id: str, sink: EventSink) -> TurnOutcome:
        """Run one turn; see `UpstreamRun.send`. One call, which is not repeated."""
        if self._task is not None:
            raise RuntimeError("A turn is running on this run already.")
        self._interrupted = False
        asked = HistoryMessage("user", prompt)
        task = self._task = asyncio.create_task(self._call(asked, message_id, sink))
        try:
            outcome = await task
        finally:
            self._task = None
        if outcome.status == "completed":
            self._messages.append(asked)
            if outcome.text:
                self._messages.append(HistoryMessage("assistant", outcome.text))
        return outcome

    async def interrupt(self) -> bool:
        """Break the running call off; see `UpstreamRun.interrupt`. Never waits."""
        task = self._task
        if task is None or task.done():
            return False
        if not self._interrupted:
            self._interrupted = True
            task.cancel()
        return True

    async def close(self) -> None:
        """End the run; a running turn ends as `interrupted`."""
        task = self._task
        if task is not None:
            await self.interrupt()
            await asyncio.wait([task])
        self._tell_end(self)

    # -- one call

    async def _call(self, asked: HistoryMessage, message_id: str, sink: EventSink) -> TurnOutcome:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        answer = Answer(sink, self._spec.deltas_wanted)
        watchdog = Watchdog(loop, self._settings, task.cancel)
        began = loop.time()
        failure: Failure | None = None
        try:
            failure = await self._exchange(asked, message_id, answer, watchdog)
        except asyncio.CancelledError:
            if watchdog.late is not None and not self._interrupted:
                failure = Failure("overload", f"The Messages API {watchdog.late}.")
            elif not self._interrupted:
                raise
        except (OSError, EOFError, client_error()) as broken:
            failure = _broken(broken, answer)
        finally:
            watchdog.stop()
        return _outcome(answer, failure, round((loop.time() - began) * 1000))

    async def _exchange(
        self, asked: HistoryMessage, message_id: str, answer: Answer, watchdog: Watchdog
    ) -> Failure | None:
        """Make the call and read its answer to the end; returns why there is none."""
        key = self._api_key()
        if key is None:
            return Failure("auth", "The daemon holds no API key any more.")
        sent_order = time.monotonic_ns()
        body = message_body(self._spec, [*self._messages, asked], self._settings)
        async with self._session.post(
            self._url, data=body, headers=headers_of(key), allow_redirects=False
        ) as response:
            model = resolve(self._spec.model or self._settings.model)
            heard = replace(heard_of(response, sent_order, model), message_id=message_id)
            if response.status != 200:
                return await refused(response, heard, self._on_limits)
            self._on_limits(heard)
            if response.content_type != "text/event-stream":
                return Failure("protocol", f"The Messages API sent {response.content_type}, no stream.")
            content = response.content
            while not answer.complete:
                chunk = await content.readany()
                if not chunk:
                    return Failure("overload", "The Messages API broke the answer off.")
                watchdog.heard(words=answer.feed(chunk))
                if answer.failure is not None:
                    return answer.failure
            if not content.is_eof():
                # The last chunk's end: with it the connection can serve the next call.
                try:
                    async with asyncio.timeout(_TAIL_S):
                        await content.readany()
                except TimeoutError:
                    pass
        return None


def heard_of(response: "aiohttp.ClientResponse", sent_order: int, model: str) -> LimitsHeard:
    """Return what an answer's headers say of the provider's limits."""
    given = response.headers.items()
    return limit_headers.read(
        given, sent_order=sent_order, now=time.time(), status=response.status, model=model
    )


async def refused(response: "aiohttp.ClientResponse", heard: LimitsHeard, tell: OnLimits) -> Failure:
    """Return why an answer is no success, after *tell* was told; its headers said what was *heard*."""
    failure = failures.of_answer(response.status, heard, await read_some(response))
    tell(replace(heard, failure=failure))
    return failure


def client_error() -> type[Exception]:
    """Return the base of everything that the HTTP client raises."""
    import aiohttp

    return aiohttp.ClientError


async def read_some(response: "aiohttp.ClientResponse") -> bytes:
    """Return the response's body, or its first 64 KiB."""
    try:
        return await response.content.readexactly(ERROR_BYTES)
    except asyncio.IncompleteReadError as shorter:
        return shorter.partial


def _broken(broken: Exception, answer: Answer) -> Failure:
    what = "broke the answer off" if answer.begun else "cannot be reached"
    return Failure("overload", f"The Messages API {what}: {_words(broken)}.")


def _words(broken: Exception) -> str:
    return str(broken).rstrip(".") or type(broken).__name__


def _outcome(answer: Answer, failure: Failure | None, duration_ms: int) -> TurnOutcome:
    cost = answer.cost_usd
    status = "completed" if answer.complete and failure is None else "failed" if failure else "interrupted"
    return TurnOutcome(
        status=status,  # type: ignore[arg-type]
        text=answer.text,
        usage=answer.usage,
        cost_total_usd=cost,
        cost_usd=cost,
        model=answer.model,
        stop_reason=answer.stop_reason,
        duration_api_ms=duration_ms,
        failure=failure,
        last_events=tuple(answer.held),
    )
