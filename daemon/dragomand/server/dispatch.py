"""From a request to its one response. Every way a request can end passes through `respond` or `fail`, once.

`peer.incoming` is the book of what is owed: whoever answers strikes the request out, and what is struck out
is never answered again. The end of a task is seen by its done-callback, which runs whatever happened to the
task, also if it was cancelled before its first step.
"""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

from dragoman_protocol.errors import RpcError
from dragoman_protocol.peer import Peer, Request
from dragoman_protocol.wire import Id

from .inbox import Inbox
from .lanes import Incoming
from .outbox import Outbox
from .route import Call, Client
from .routes import EMPTY, UNREADABLE, Prepared, Routes

_LOOK_CLOSELY = 16
"""How often on one connection a mistyped method gets a close look: it costs a millisecond."""


class Dispatch:
    """The requests of one connection."""

    def __init__(
        self,
        *,
        client: Client,
        peer: Peer,
        outbox: Outbox,
        routes: Routes,
        logger: logging.Logger,
        trace: "Tracer",
        changed: Callable[[int, int], None],
        is_draining: Callable[[], bool],
    ) -> None:
        """Answer through *peer* and *outbox* what arrives for *routes*.

        *changed* is told by how much the numbers of running and of waiting requests changed.
        """
        self._client = client
        self._peer = peer
        self._outbox = outbox
        self._routes = routes
        self._logger = logger
        self._trace = trace
        self._changed = changed
        self._is_draining = is_draining
        self._mistyped = 0
        self._loop = asyncio.get_running_loop()
        self.inbox = Inbox()
        self._when_idle: list[Callable[[], None]] = []

    # -- in

    def request(self, request: Request, route: Prepared) -> None:
        """Take a request of an open connection, for *route*."""
        if route.scope is not None and route.scope not in self._client.scopes:
            self.fail(request, _scope_required(route, self._client.scopes))
        elif route.inline:
            if self._outbox.full or self.inbox.holds_inline:
                self._wait(Incoming(request, route, None, self._trace.now()))
            else:
                self._inline(request, route, self._trace.now() if self._trace.on else 0.0)
        elif not route.while_draining and self._is_draining():
            self.fail(request, RpcError("draining"))
        else:
            self._admit(request, route)

    def unknown(self, request: Request) -> None:
        """Take a request of an open connection for which there is no route."""
        self._mistyped += 1
        closely = self._mistyped <= _LOOK_CLOSELY
        self.fail(request, self._routes.unknown(request.method, look_closely=closely))

    def cancel(self, id: Id) -> None:
        """Cancel the request *id*, if it waits or runs; one that runs only once, so that it can clean up."""
        incoming = self.inbox.running.get(id)
        if incoming is not None:
            self._cancel_task(incoming)
            return
        incoming = self.inbox.waiting.get(id)
        if incoming is not None:
            self._take_out(incoming, RpcError("request_cancelled"))
            self.go_on()

    def cancel_running(self) -> None:
        """Cancel every task; each request still gets its response."""
        for incoming in list(self.inbox.running.values()):
            self._cancel_task(incoming)

    def refuse_waiting(self, error: RpcError, *, but_while_draining: bool = False) -> None:
        """Answer everything that waits with *error*, or all but what is answered while draining."""
        for incoming in list(self.inbox.waiting.values()):
            if not (but_while_draining and incoming.route.while_draining):
                self._take_out(incoming, error)
        self.go_on()

    def go_on(self) -> None:
        """Answer and begin what waited and may be now."""
        inbox = self.inbox
        waited = 0
        while not self._outbox.full:
            incoming = inbox.next()
            if incoming is None:
                break
            waited += 1
            if incoming.route.inline:
                self._inline(incoming.request, incoming.route, incoming.arrived_at)
            else:
                self._begin_waited(incoming)
        if waited:
            self._changed(0, -waited)
        if self._when_idle and not inbox.running and not inbox.waiting:
            callbacks, self._when_idle = self._when_idle, []
            for callback in callbacks:
                callback()

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call *callback* once, when nothing runs or waits any more (at once if so)."""
        self._when_idle.append(callback)
        self.go_on()

    def end(self, error: RpcError) -> None:
        """Answer everything that is owed with *error*, now, and cancel what runs."""
        self._when_idle.clear()
        self.refuse_waiting(error)
        for request in list(self._peer.incoming.values()):
            self.fail(request, error)
        self.cancel_running()

    # -- the ways of a request

    def _inline(self, request: Request, route: Prepared, arrived_at: float) -> None:
        try:
            params = route.decode(request.params or EMPTY)
        except UNREADABLE:
            params = None
        try:
            if params is None:  # `null`, or what `params` tells in its error
                params = route.params(request.params)
            result = route.handler(Call(self._client, request.id), params)
        except RpcError as error:
            self.fail(request, error)
        except Exception as unexpected:  # noqa: BLE001  # whatever a handler raises, its client gets an answer
            self._fail_unexpectedly(request, unexpected)
        else:
            self.respond(request, result)
        if self._trace.on:
            self._trace.answered(request, arrived_at)

    def _admit(self, request: Request, route: Prepared) -> None:
        # Decoded here also if it has to wait, so that what is wrong is said at once; but kept as bytes.
        try:
            params = route.params(request.params)
        except RpcError as error:
            self.fail(request, error)
            return
        session = getattr(params, "session_id", None) if route.by_session else None
        incoming = Incoming(request, route, session, self._trace.now() if self._trace.on else 0.0)
        if self._outbox.full or not self.inbox.may_begin(session):
            self._wait(incoming)
            return
        self.inbox.begin(incoming)
        self._changed(1, 0)
        self._begin(incoming, params)

    def _wait(self, incoming: Incoming) -> None:
        try:
            self.inbox.wait(incoming)
        except RpcError as overloaded:
            self.fail(incoming.request, overloaded)
        else:
            self._changed(0, 1)

    def _begin_waited(self, incoming: Incoming) -> None:
        self._changed(1, 0)
        self._begin(incoming, incoming.route.params(incoming.request.params))

    def _begin(self, incoming: Incoming, params: Any) -> None:
        request = incoming.request
        try:
            work = incoming.route.handler(Call(self._client, request.id), params)
            task = self._loop.create_task(work)  # type: ignore[arg-type]  # a coroutine in these lanes
        except Exception as unexpected:  # noqa: BLE001  # a handler that is no coroutine function
            self._ended(incoming)
            self._fail_unexpectedly(request, unexpected)
            return
        incoming.task = task
        task.add_done_callback(functools.partial(self._done, incoming))

    def _done(self, incoming: Incoming, task: asyncio.Task[Any]) -> None:
        request = incoming.request
        incoming.task = None
        if task.cancelled():
            if incoming.cancelled:
                self.fail(request, RpcError("request_cancelled"))
            else:
                self._fail_unexpectedly(request, asyncio.CancelledError("cancelled by nobody"))
        else:
            raised = task.exception()
            if raised is None:
                self.respond(request, task.result())
            elif isinstance(raised, RpcError):
                self.fail(request, raised)
            else:
                self._fail_unexpectedly(request, raised)
        if self._trace.on:
            self._trace.answered(request, incoming.arrived_at)
        self._ended(incoming)
        self.go_on()

    def _ended(self, incoming: Incoming) -> None:
        self.inbox.ended(incoming)
        self._changed(-1, 0)

    def _cancel_task(self, incoming: Incoming) -> None:
        if not incoming.cancelled and incoming.task is not None:
            incoming.cancelled = True
            incoming.task.cancel()

    def _take_out(self, incoming: Incoming, error: RpcError) -> None:
        self.inbox.remove(incoming)
        self._changed(0, -1)
        self.fail(incoming.request, error)

    # -- out

    def respond(self, request: Request, result: Any) -> None:
        """Answer *request* with *result*, unless it was answered or its connection is gone."""
        try:
            data = self._peer.respond(request, result)
        except RpcError as too_large:
            self.fail(request, too_large)
        except Exception as unexpected:  # noqa: BLE001  # a result that cannot be encoded
            if self._peer.incoming.get(request.id) is request:
                self._fail_unexpectedly(request, unexpected)
        else:
            self._outbox.add(data)

    def fail(self, request: Request, error: RpcError) -> None:
        """Answer *request* with *error*, unless it was answered or its connection is gone."""
        if self._peer.incoming.get(request.id) is request:
            self._outbox.add(self._peer.fail(request, error))

    def _fail_unexpectedly(self, request: Request, unexpected: BaseException) -> None:
        """Tell the log what happened and the client where to look; a traceback never leaves the daemon."""
        label = f"{self._client.id}/{str(request.id)[:64]}"
        self._logger.error(
            "a request failed unexpectedly",
            exc_info=unexpected,
            extra={"request": label, "method": request.method[:100]},
        )
        message = f"Something unexpected went wrong in the daemon; its log says more under request {label}."
        self.fail(request, RpcError("internal_error", message, request_id=label))


class Tracer:
    """Tells the client what was answered and how long it took, if it asked for that (`$/setTrace`)."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float]) -> None:
        """Begin switched off; *tell* sends one line."""
        self.on = False
        self.now = clock
        self._tell = tell

    def answered(self, request: Request, arrived_at: float) -> None:
        """Tell of one answer. One that arrived before the trace was on (0) has no time."""
        took = f" in {(self.now() - arrived_at) * 1000:.3f} ms" if arrived_at else ""
        self._tell(f"{request.method[:100]} ({str(request.id)[:64]}) answered{took}")


def _scope_required(route: Prepared, granted: frozenset[str]) -> RpcError:
    return RpcError(
        "scope_required",
        f"`{route.name}` needs the scope `{route.scope}`, which this connection does not have; "
        "ask for it in `initialize`.",
        needed=route.scope,
        granted=sorted(granted),
    )
