"""One client's connection: bytes become requests, what is said becomes bytes. Handlers see it as `Client`."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from dragoman_protocol.codec import MAX_MESSAGE, MAX_MESSAGE_BEFORE_INITIALIZE
from dragoman_protocol.errors import RpcError, invalid_params
from dragoman_protocol.lifecycle import CancelParams, LogTraceParams, SetTraceParams
from dragoman_protocol.peer import Arrival, Notification, Peer, Reply, Request, Response
from dragoman_protocol.values import Empty

from dragomand.transport.interface import Transport

from .dispatch import Dispatch, Tracer
from .lifecycle import Lifecycle, Opening
from .outbox import Outbox
from .routes import Routes

T = TypeVar("T")

CLOSE_S = 30.0
"""How long, in seconds, a client that is done may take to read what is unsent."""

_decode_cancel = msgspec.json.Decoder(CancelParams).decode
_decode_trace = msgspec.json.Decoder(SetTraceParams).decode


class Connection:
    """One peer. A `Receiver` to its transport and a `Client` to the handlers."""

    def __init__(
        self,
        *,
        id: str,
        transport: Transport,
        routes: Routes,
        opening: Opening,
        logger: logging.Logger,
        clock: Callable[[], float],
        changed: Callable[[int, int], None],
        is_draining: Callable[[], bool],
        forget: Callable[["Connection"], None],
        turned_away: RpcError | None = None,
    ) -> None:
        """Begin; *forget* is called when the connection is gone. *turned_away*: all that it is told."""
        loop = asyncio.get_running_loop()
        self.id = id
        self._transport = transport
        self._logger = logger
        self._loop = loop
        self._routes = routes
        self._forget = forget
        self._turned_away = turned_away
        self._is_draining = is_draining
        self._peer = Peer(max_bytes=MAX_MESSAGE_BEFORE_INITIALIZE)
        self._outbox = Outbox(transport, schedule=loop.call_soon, clock=clock)
        self._lifecycle = Lifecycle(opening)
        self._trace = Tracer(self._log_trace, clock)
        self._dispatch = Dispatch(
            client=self,
            peer=self._peer,
            outbox=self._outbox,
            routes=routes,
            logger=logger,
            trace=self._trace,
            changed=changed,
            is_draining=is_draining,
        )
        self._on_close: dict[object, Callable[[], None]] = {}
        """By a token of its own each, for removal."""
        self.closed = False
        """Nothing more is taken or said: the connection is gone, or about to be."""
        self._no_more_input = False
        """The other end shut its half: requests of ours cannot be answered any more."""
        self._closing: asyncio.TimerHandle | None = None
        """While the last bytes leave: when we stop waiting for that."""

    # -- Receiver

    def received(self, data: bytes) -> None:
        """Take bytes, do what they ask, and answer in one write."""
        if self.closed:
            return
        outbox = self._outbox
        outbox.gathering = True
        try:
            self._take(self._peer.receive(data))
        finally:
            outbox.gathering = False
            outbox.write()

    def ended(self) -> None:
        """Answer what came, then close: `printf … | dragoman stdio` gets its answers."""
        if self._peer.decoder.framing == "lines":
            self.received(b"\n")  # the last line need not be ended
        if not self.closed:
            self._no_more_input = True
            self._fail_outgoing()
            self._dispatch.when_idle(self._close)

    def stalled(self) -> None:
        """Ask no more of a client that does not read its answers."""
        self._outbox.full = True
        self._transport.pause_reading()

    def flowing(self) -> None:
        """Go on with what waited, then read again."""
        self._outbox.full = False
        if not self.closed:
            self.go_on()
            if not self._outbox.full:
                self._transport.resume_reading()

    def lost(self) -> None:
        """Cancel what runs and tell whoever wanted to know."""
        self._peer.incoming.clear()
        self._dispatch.end(RpcError("connection_closed"))
        self._gone()
        if self._closing is not None:
            self._closing.cancel()
        self._forget(self)

    # -- what arrives

    def _take(self, arrivals: list[Arrival]) -> None:
        lifecycle = self._lifecycle
        find = self._routes.by_name.get
        dispatch = self._dispatch.request
        for arrival in arrivals:
            if self.closed:
                return
            if isinstance(arrival, Request):
                route = find(arrival.method)
                if route is not None and lifecycle.state == "open":
                    dispatch(arrival, route)
                else:
                    self._lifecycle_request(arrival)
            elif isinstance(arrival, Notification):
                self._notified(arrival)
            elif isinstance(arrival, Response):
                self._answered(arrival)
            else:
                self._refused(arrival)

    def _lifecycle_request(self, request: Request) -> None:
        lifecycle = self._lifecycle
        if self._turned_away is not None:
            self._dispatch.fail(request, self._turned_away)
            self._close()
        elif request.method == "initialize":
            self._initialize(request)
        elif lifecycle.state != "open":
            self._dispatch.fail(request, lifecycle.refusal())
        elif request.method == "shutdown":
            lifecycle.state = "shut"
            self._dispatch.cancel_running()
            self._dispatch.refuse_waiting(RpcError("request_cancelled"))
            self._dispatch.when_idle(lambda: self._dispatch.respond(request, Empty()))
        else:
            self._dispatch.unknown(request)

    def _initialize(self, request: Request) -> None:
        lifecycle = self._lifecycle
        if lifecycle.state == "new" and self._is_draining():
            self._dispatch.fail(request, RpcError("draining"))
            return
        try:
            params = lifecycle.initialize(request.params, self._transport.peer_pid)
        except RpcError as error:
            self._dispatch.fail(request, error)
            return
        self._trace.on = params.trace != "off"
        self._peer.decoder.max_bytes = MAX_MESSAGE
        self._dispatch.respond(request, lifecycle.result(self.id))

    def _notified(self, notification: Notification) -> None:
        """Do what a notification says; those we do not know, or that make no sense, are ignored."""
        method = notification.method
        if method == "exit":
            self._close()
        elif self._lifecycle.state == "new":
            return
        elif method == "$/cancelRequest":
            with contextlib.suppress(msgspec.MsgspecError, UnicodeError):
                self._dispatch.cancel(_decode_cancel(notification.params).id)
        elif method == "$/setTrace":
            with contextlib.suppress(msgspec.MsgspecError, UnicodeError):
                self._trace.on = _decode_trace(notification.params).value != "off"

    def _answered(self, response: Response) -> None:
        waiter: asyncio.Future[msgspec.Raw] = response.waiter
        if waiter.done():
            return
        if response.error is not None:
            waiter.set_exception(response.error)
        else:
            waiter.set_result(response.result)

    def _refused(self, reply: Reply) -> None:
        self._outbox.add(reply.data)
        if reply.fatal:
            self._close()

    # -- Client

    @property
    def name(self) -> str:
        """How the client calls itself."""
        return self._lifecycle.name

    @property
    def scopes(self) -> frozenset[str]:
        """What was granted."""
        return self._lifecycle.scopes

    @property
    def capabilities(self) -> dict[str, Any]:
        """What the client said it can answer."""
        return self._lifecycle.capabilities

    @property
    def peer_pid(self) -> int | None:
        """The process at the other end."""
        return self._transport.peer_pid

    def notify(self, method: str, params: Any) -> None:
        """Send a notification that is never dropped."""
        if not self.closed:
            self._tell(method, params)

    def event(self, method: str, params: Any, *, ephemeral: bool) -> bool:
        """Send one of many notifications; False if it was not taken."""
        if self.closed or self._outbox.refuses(ephemeral=ephemeral):
            return False
        return self._tell(method, params)

    def _tell(self, method: str, params: Any) -> bool:
        try:
            data = self._peer.notify(method, params)
        except RpcError as too_large:  # longer than a message may be: nobody can take it
            facts = {"connection": self.id, "method": method}
            self._logger.error("a notification was not sent: %s", too_large.message, extra=facts)
            return False
        self._outbox.add(data)
        return True

    async def request(self, method: str, params: Any, result: type[T]) -> T:
        """Ask the client and wait for its answer."""
        if self.closed or self._no_more_input:
            raise RpcError("connection_closed")
        waiter: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        id, data = self._peer.request(method, params, waiter)
        self._outbox.add(data)
        try:
            raw = await waiter
        except asyncio.CancelledError:
            if self._peer.forget(id) is not None:
                self.notify("$/cancelRequest", CancelParams(id=id))
            raise
        try:
            return msgspec.json.decode(raw, type=result)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as wrong:
            raise invalid_params(wrong, result) from None

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* once when the connection closes; returns its removal."""
        if self.closed:
            callback()
            return lambda: None
        token = object()
        self._on_close[token] = callback
        return lambda: void(self._on_close.pop(token, None))

    # -- what the server does with it

    def go_on(self) -> None:
        """Begin what waited and may begin now."""
        self._dispatch.go_on()

    def refuse_waiting(self) -> None:
        """The daemon is draining: answer so what has not begun."""
        self._dispatch.refuse_waiting(RpcError("draining"), but_while_draining=True)

    def cancel_running(self) -> None:
        """Cancel everything that runs; it is still answered."""
        self._dispatch.cancel_running()

    def close(self, error: RpcError) -> None:
        """Answer what is owed with *error*, send it, and close."""
        self._close(error)

    def abort(self) -> None:
        """Close at once, whatever is unsent."""
        self._transport.abort()

    # -- the end

    def _close(self, error: RpcError | None = None) -> None:
        """Say what is left to say and leave."""
        if self.closed:
            return
        self._dispatch.end(error or RpcError("request_cancelled"))
        self._outbox.write()
        self._gone()
        self._closing = self._loop.call_later(CLOSE_S, self._transport.abort)
        self._transport.close()

    def _gone(self) -> None:
        self.closed = True
        self._fail_outgoing()
        while self._on_close:
            callback = self._on_close.pop(next(iter(self._on_close)))
            try:
                callback()
            except Exception:
                facts = {"connection": self.id}
                self._logger.exception("a callback at the end of a connection failed", extra=facts)

    def _fail_outgoing(self) -> None:
        waiters = list(self._peer.outgoing.values())
        self._peer.outgoing.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(RpcError("connection_closed"))

    def _log_trace(self, message: str) -> None:
        self.event("$/logTrace", LogTraceParams(message=message), ephemeral=True)


def void(_: object) -> None:
    """Throw a value away."""
