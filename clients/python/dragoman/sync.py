"""The blocking client: a plain socket, no asyncio, no thread of its own.

    with dragoman.connect(on_permission=lambda asked: asked.tool_name == "Edit") as claude:
        answer = claude.query("Fix the typo in README.md", cwd="~/project")
        print(answer.text, answer.session_id)

A client may be used by several threads at once; whoever waits reads for all (`dragoman.blocking`).
`on_permission` and `on_budget` are called in one of the threads that wait. A client does not survive
`os.fork`: connect anew.
"""

import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import msgspec
from dragoman_protocol.content import Prompt
from dragoman_protocol.lifecycle import InitializeResult, Scope
from dragoman_protocol.query import QueryRunParams, QueryRunResult
from dragoman_protocol.stream import Event, StreamDetachParams, StreamEventParams

from dragoman import launch, locate
from dragoman.answer import GrowingText
from dragoman.blocking import LateError, Link, OnBudget, OnPermission
from dragoman.conversation import FRESH_STARTS, QUIET_S, Conversation, Pending, Watch
from dragoman.errors import DrainingError, RequestTimeoutError
from dragoman.options import QueryOptions, query_params
from dragoman.output import schema_of, typed
from dragoman.questions import answerers
from dragoman.stubs import Calls

T = TypeVar("T")


def connect(
    client_name: str | None = None,
    *,
    scopes: Iterable[Scope] | None = None,
    start: bool = True,
    on_permission: OnPermission | None = None,
    on_budget: OnBudget | None = None,
    env: Mapping[str, str] | None = None,
) -> "Client":
    """Connect to the user's daemon, starting it if there is none; close the client when done (`with` does).

    *client_name* is a label in the daemon's lists (default: the program's name). *scopes* (default `query`,
    `tools`, `approve`) may add `auth`, `read-all-sessions`, `admin`. *on_permission* is asked before a tool
    runs that is not allowed already; without it such tools are denied. *on_budget* is asked before a turn is
    refused because a budget is spent; it returns the new cap in dollars, or None, as if there were nobody to
    ask. (Both need the scope `approve`.) *env* (default: this process's) says where the daemon lives, and is
    the environment of one started here. Raises `LocateError` and its kinds.
    """
    paths = locate.find_paths(env)

    def opener() -> socket.socket:
        return launch.ensure_daemon(paths, env) if start else locate.connect(paths)

    return Client(
        opener, client_name=client_name, scopes=scopes, on_permission=on_permission, on_budget=on_budget
    )


class Client(Calls):
    """A connection to the daemon. Beside `query` and `stream` it has every method of the protocol.

    Those raise `RequestError` and its kinds, and `RequestTimeoutError` after `timeout_s`. A connection that
    was lost is opened again by the next call.
    """

    def __init__(
        self,
        opener: Callable[[], socket.socket],
        *,
        client_name: str | None = None,
        scopes: Iterable[Scope] | None = None,
        on_permission: OnPermission | None = None,
        on_budget: OnBudget | None = None,
        quiet_s: float = QUIET_S,
    ) -> None:
        """Connect with *opener*, which returns a connected stream socket; `connect` is the usual way.

        A daemon that is silent for twice *quiet_s* seconds while it is waited for is given up as frozen.
        """
        named = None if scopes is None else list(scopes)
        asked = answerers(on_permission, on_budget)

        def begin() -> Conversation:
            return Conversation(client_name, named, asks=asked, wake=lambda: None)

        self._tokens = itertools.count(1)
        self._link = Link(opener, begin, asked, quiet_s=quiet_s)

    @property
    def server(self) -> InitializeResult:
        """What the daemon said of itself: version, methods, granted scopes. Waits for it the first time."""
        if not self._link.conversation.handshake.answered:
            self.limits_state()
        return self._link.conversation.opened()

    def query(
        self, prompt: Prompt, *, output: Any = None, **options: Unpack[QueryOptions]
    ) -> QueryRunResult:
        """Run one turn, wait for its end and return its answer (`.text`, `.session_id`, `.usage`, …).

        See `QueryOptions` for the options. With a type as *output* (a Struct, dataclass or pydantic model)
        the answer's `.structured.value` is one of these. A turn that failed raises; Ctrl-C cancels the turn
        first.
        """
        if output is None:
            return self._call("query/run", query_params(prompt, options), QueryRunResult, None)
        options["output_schema"] = schema_of(output)
        result = self._call("query/run", query_params(prompt, options), QueryRunResult, None)
        return typed(result, output)

    def stream(self, prompt: Prompt, **options: Unpack[QueryOptions]) -> "Stream":
        """Run one turn and return its events as they happen; options as for `query`."""
        token = next(self._tokens)
        params = query_params(prompt, options, token)
        return Stream(self._link, params, token)

    def events(self, session_id: str, cursor: str | None = None) -> "SessionEvents":
        """Watch a session, whoever works in it: its events from *cursor* (None: the beginning), then live.

        Watching ends when the loop is left; the session goes on. One watch of a session at a time per client.
        """
        return SessionEvents(self, self._link, session_id, cursor)

    def close(self) -> None:
        """Close the connection; turns that still run on it are cancelled. Does nothing the second time."""
        self._link.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _call(self, method: str, params: msgspec.Struct, result: type[T], timeout_s: float | None) -> T:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for _ in range(FRESH_STARTS):
            pending = Pending(method)
            self._ask(pending, params, deadline)
            if not (isinstance(pending.error, DrainingError) and self._link.renew()):
                break
        answer: T = pending.take(result)
        return answer

    def _ask(self, pending: Pending, params: msgspec.Struct, deadline: float | None) -> None:
        """Send a request and wait for its answer; whatever interrupts that cancels the request."""
        try:
            self._link.start(pending, params)
            self._link.wait(lambda: pending.answered, deadline)
        except LateError:
            self._link.cancel(pending)
            raise RequestTimeoutError(
                f"{pending.method} was not answered in time and is cancelled."
            ) from None
        except BaseException:
            self._link.abandon(pending)
            raise


class Stream:
    """One turn's events, in order: `for event in stream`, then `stream.result`.

    Leaving the loop early cancels the turn. A turn that failed raises at the end of the loop; one that was
    cancelled here just ends it. Events are the classes of `dragoman_protocol.stream`, of kinds not known to
    this version `Raw`.
    """

    def __init__(self, link: Link, params: QueryRunParams, token: int) -> None:
        """Run *params*, whose events come with *token*; `Client.stream` makes these."""
        self._link = link
        self._params = params
        self._token = token
        self._begun = 0
        self._pending = self._begin()
        self._owned: Client | None = None
        self.last: StreamEventParams | None = None
        """The event read last as it came, with its `session_id` and, if it is durable, `seq` and `cursor`."""

    def __iter__(self) -> Iterator[Event]:
        """Return the events that have not been read yet."""
        try:
            while (event := self._next()) is not None:
                yield event
        finally:
            self._leave()

    def texts(self) -> Iterator[str]:
        """Return the answer's text piece by piece, each character once, instead of the events."""
        growing = GrowingText()
        for event in self:
            if piece := growing.new_text(event):
                yield piece

    @property
    def result(self) -> QueryRunResult:
        """How the turn ended. Waits for the end, passing over events not read; raises if it failed."""
        while self._next(raising=False) is not None:
            continue
        self._leave()
        result: QueryRunResult = self._pending.take(QueryRunResult)
        return result

    def cancel(self) -> None:
        """Stop the turn and wait until it has stopped (bounded); `result` then raises."""
        self._link.abandon(self._pending)

    def __enter__(self) -> Self:
        """Return the stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the turn if it still runs, and wait until it has stopped."""
        if not self._pending.answered:
            self.cancel()
        self._leave()

    def _next(self, *, raising: bool = True) -> Event | None:
        pending = self._wait()
        if pending.events:
            self.last = pending.events.popleft()
            return self.last.event
        if raising and pending.error is not None and not pending.cancelled:
            raise pending.error
        return None

    def _begin(self) -> Pending:
        self._begun += 1
        pending = Pending("query/run", token=self._token)
        try:
            self._link.start(pending, self._params)
        except BaseException:
            self._link.cancel(pending)
            raise
        return pending

    def _wait(self) -> Pending:
        """Wait for an event or the end, beginning anew with the successor of a daemon that was draining."""
        while True:
            self._link.wait_or_cancel(self._pending, lambda: self._pending.events or self._pending.answered)
            drained = isinstance(self._pending.error, DrainingError) and self._begun < FRESH_STARTS
            if not (drained and self._link.renew()):
                return self._pending
            self._pending = self._begin()

    def _leave(self) -> None:
        if not self._pending.answered:
            self._link.cancel(self._pending)
        if self._owned is not None:
            self._owned.close()


class SessionEvents:
    """A session's events without gap or duplicate: `for event in claude.events(session_id)`.

    It never ends by itself. A reader that was too slow is attached again where it was. A lost connection
    raises; looping again goes on from there.
    """

    def __init__(self, claude: Client, link: Link, session_id: str, cursor: str | None) -> None:
        """Watch from *cursor*; `Client.events` makes these."""
        self._claude = claude
        self._link = link
        self._cursor = cursor
        self._watch = Watch(session_id)
        self._watch.broken = True
        self.last: StreamEventParams | None = None
        """The event read last as it came, with its `session_id` and, if it is durable, `seq` and `cursor`."""

    def __iter__(self) -> Iterator[Event]:
        """Attach, and return the events."""
        try:
            while True:
                yield self._next()
        finally:
            self._leave()

    def _next(self) -> Event:
        watch = self._watch
        while not watch.events:
            if watch.broken:
                self._attach()
            self._link.wait(lambda: watch.events or watch.broken)
            if not watch.events:
                self._link.check()
        self.last = watch.events.popleft()
        self._cursor = self.last.cursor or self._cursor
        return self.last.event

    def _attach(self) -> None:
        # Once this is answered, nothing of an earlier subscription comes any more.
        self._claude.stream_detach(session_id=self._watch.session_id)
        self._link.watch(self._watch)
        self._claude.stream_attach(session_id=self._watch.session_id, cursor=self._cursor)

    def _leave(self) -> None:
        if self._link.unwatch(self._watch):
            self._link.start(Pending("stream/detach"), StreamDetachParams(session_id=self._watch.session_id))


def query(
    prompt: Prompt,
    *,
    on_permission: OnPermission | None = None,
    on_budget: OnBudget | None = None,
    output: Any = None,
    **options: Unpack[QueryOptions],
) -> QueryRunResult:
    """Connect, run one turn and return its answer; see `Client.query`."""
    with connect(on_permission=on_permission, on_budget=on_budget) as claude:
        return claude.query(prompt, output=output, **options)


def stream(
    prompt: Prompt,
    *,
    on_permission: OnPermission | None = None,
    on_budget: OnBudget | None = None,
    **options: Unpack[QueryOptions],
) -> Stream:
    """Connect, run one turn and return its events; the connection closes with the stream."""
    claude = connect(on_permission=on_permission, on_budget=on_budget)
    try:
        streaming = claude.stream(prompt, **options)
    except BaseException:
        claude.close()
        raise
    streaming._owned = claude
    return streaming
