"""A daemon whose answers are scripted: real sockets, the protocol's own peer, one thread per connection.

A script is a callable that gets the connection, the request and its decoded parameters; `on` sets one for a
method. What arrives is recorded, and `wait_for` waits for it.
"""

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import msgspec
from dragoman_protocol.errors import RpcError
from dragoman_protocol.lifecycle import (
    DEFAULT_SCOPES,
    DaemonStatusResult,
    InitializeParams,
    InitializeResult,
    ProgressParams,
    ServerCapabilities,
    ServerInfo,
)
from dragoman_protocol.limits import LimitsStateResult
from dragoman_protocol.peer import Notification, Peer, Request, Response
from dragoman_protocol.query import QueryRunResult
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import AssistantText, Event, StreamEventParams, TextDelta, TurnStarted
from dragoman_protocol.wire import Id

PATIENCE_S = 20

Script = Callable[["Connection", Request, dict[str, Any]], None]


def result(text: str = "Hello", session_id: str = "s1", **fields: Any) -> QueryRunResult:
    usage = Usage(input_tokens=3, output_tokens=2)
    return QueryRunResult(
        session_id=session_id, turn_id="t1", text=text, upstream="claudeCode", usage=usage, **fields
    )


class Connection:
    """One client's connection, as the daemon sees it. Its methods may be called from any thread."""

    def __init__(self, daemon: "ScriptedDaemon", end: socket.socket) -> None:
        self.daemon = daemon
        self.socket = end
        self.peer = Peer()
        self.lock = threading.RLock()
        self.initialized: InitializeParams | None = None
        self.closed = False
        self.thread = threading.Thread(target=self._serve)

    def respond(self, request: Request, answer: Any) -> None:
        with self.lock:
            self._send(self.peer.respond(request, answer))

    def fail(self, request: Request, kind: str, message: str | None = None, **data: Any) -> None:
        with self.lock:
            self._send(self.peer.fail(request, RpcError(kind, message, **data)))

    def notify(self, method: str, params: Any) -> None:
        with self.lock:
            self._send(self.peer.notify(method, params))

    def ask(self, method: str, params: Any, answered: Callable[[Response], None]) -> Id:
        with self.lock:
            id, data = self.peer.request(method, params, answered)
            self._send(data)
        return id

    def progress(self, params: dict[str, Any], event: Event, seq: int | None = None) -> None:
        told = StreamEventParams(
            session_id="s1", event=event, seq=seq, cursor=None if seq is None else f"c{seq}"
        )
        value = msgspec.Raw(msgspec.json.encode(told))
        self.notify("$/progress", ProgressParams(token=params["partialResultToken"], value=value))

    def raw(self, data: bytes) -> None:
        self._send(data)

    def close(self) -> None:
        with self.lock:
            if not self.closed:
                self.socket.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            self.closed = True

    def _serve(self) -> None:
        with self.socket:
            while True:
                try:
                    data = self.socket.recv(1 << 18)
                except OSError:
                    data = b""
                if not data:
                    break
                with self.lock:
                    arrivals = self.peer.receive(data)
                for arrival in arrivals:
                    self._take(arrival)
            with self.lock:  # whoever is just closing it finds it open
                self.closed = True
            self.daemon.happened()

    def _take(self, arrival: Any) -> None:
        if isinstance(arrival, Response):
            arrival.waiter(arrival)
        elif isinstance(arrival, Request):
            params = msgspec.json.decode(arrival.params) if bytes(arrival.params) else {}
            self.daemon.requests.append((arrival.method, params))
            self.daemon.scripts.get(arrival.method, _unscripted)(self, arrival, params)
        elif isinstance(arrival, Notification):
            params = msgspec.json.decode(arrival.params) if bytes(arrival.params) else {}
            self.daemon.told.append((arrival.method, params))
            if arrival.method == "$/cancelRequest" and self.daemon.cancels:
                held = self.peer.incoming.get(params["id"])
                if held is not None:
                    self.fail(held, "request_cancelled", session_id="s1", text="Half an ans")
        self.daemon.happened()


class ScriptedDaemon:
    """All connections of one scripted daemon."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {"initialize": initialize, "query/run": answer}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.connections: list[Connection] = []
        self.cancels = True
        self._changed = threading.Condition()
        self._listening: socket.socket | None = None
        self._accepting: threading.Thread | None = None

    def on(self, method: str, script: Script) -> None:
        self.scripts[method] = script

    def answers(self, method: str, answer: Any) -> None:
        self.scripts[method] = lambda connection, request, params: connection.respond(request, answer)

    def fails(self, method: str, kind: str, message: str | None = None, **data: Any) -> None:
        self.scripts[method] = lambda connection, request, params: connection.fail(
            request, kind, message, **data
        )

    def holds(self, method: str) -> None:
        """Never answer, but when it is cancelled."""
        self.scripts[method] = lambda connection, request, params: None

    def open(self) -> socket.socket:
        """Return the client's end of a new connection."""
        ours, theirs = socket.socketpair()
        self._begin(ours)
        return theirs

    def listen(self, path: str) -> None:
        """Serve at a unix socket, in the private directory that clients expect."""
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(path)
        self._listening.listen(64)
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        assert self._listening is not None
        while True:
            try:
                end, _ = self._listening.accept()
            except OSError:
                return
            self._begin(end)

    def _begin(self, end: socket.socket) -> None:
        connection = Connection(self, end)
        self.connections.append(connection)
        connection.thread.start()

    def happened(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, happened: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(happened, PATIENCE_S), "the client did not do what was waited for"

    def wait_for_request(self, method: str, count: int = 1) -> None:
        self.wait_for(lambda: sum(name == method for name, _ in self.requests) >= count)

    def wait_for_told(self, method: str) -> None:
        self.wait_for(lambda: any(name == method for name, _ in self.told))

    def stop(self) -> None:
        if self._listening is not None:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        if self._accepting is not None:
            self._accepting.join(PATIENCE_S)
        for connection in self.connections:
            connection.close()
            connection.thread.join(PATIENCE_S)
            assert not connection.thread.is_alive()


class Session:
    """A session that can be attached to; its events are texts, the n-th of which is "n"."""

    def __init__(self, daemon: ScriptedDaemon) -> None:
        self.daemon = daemon
        self.count = 0
        self.connection: Connection | None = None
        self.cursors: list[str | None] = []
        daemon.on("stream/attach", self._attach)
        daemon.on("stream/detach", self._detach)

    def happens(self, count: int) -> None:
        for _ in range(count):
            self.count += 1
            self._tell(self.count)

    def drops(self) -> None:
        """The reader is too slow, says the daemon."""
        assert self.connection is not None
        self.connection.notify("stream/dropped", {"sessionId": "s1", "cursor": str(self.count)})
        self.connection = None

    def _tell(self, number: int) -> None:
        if self.connection is not None:
            event = AssistantText(item_id=f"i{number}", text=f"{number}")
            told = StreamEventParams(session_id="s1", event=event, seq=number, cursor=f"{number}")
            self.connection.notify("stream/event", told)

    def _attach(self, connection: Connection, request: Request, params: dict[str, Any]) -> None:
        cursor = params.get("cursor")
        self.cursors.append(cursor)
        self.connection = connection
        for number in range(int(cursor or 0) + 1, self.count + 1):
            self._tell(number)
        connection.respond(request, {"cursor": str(self.count), "status": "replayed"})

    def _detach(self, connection: Connection, request: Request, params: dict[str, Any]) -> None:
        self.connection = None
        connection.respond(request, {})


def initialize(connection: Connection, request: Request, params: dict[str, Any]) -> None:
    connection.initialized = msgspec.convert(params, InitializeParams)
    scopes = connection.initialized.scopes
    connection.respond(
        request,
        InitializeResult(
            server_info=ServerInfo(name="scripted", version="9"),
            protocol_version=1,
            capabilities=ServerCapabilities(methods=[]),
            scopes=list(DEFAULT_SCOPES) if scopes is None else scopes,
            connection_id="c1",
        ),
    )


def answer(connection: Connection, request: Request, params: dict[str, Any]) -> None:
    """Say Hello, with events if they are asked for."""
    if "partialResultToken" in params:
        connection.progress(params, TurnStarted(turn_id="t1"), 1)
        connection.progress(params, TextDelta(item_id="i1", offset=0, text="Hel"))
        connection.progress(params, TextDelta(item_id="i1", offset=3, text="lo"))
        connection.progress(params, AssistantText(item_id="i1", text="Hello"), 2)
    connection.respond(request, result())


def _unscripted(connection: Connection, request: Request, params: dict[str, Any]) -> None:
    known: dict[str, Any] = {
        "limits/state": LimitsStateResult(
            running=0, queued=0, max_running=8, max_queued=512, max_queued_per_client=64
        ),
        "daemon/status": DaemonStatusResult(
            pid=os.getpid(),
            version="9",
            socket="/s",
            started_at=1.0,
            uptime_ms=5000,
            state="running",
            connections=1,
            running=0,
            queued=0,
            sessions_open=0,
        ),
    }
    if request.method in known:
        connection.respond(request, known[request.method])
    else:
        connection.fail(request, "method_not_found", method=request.method)
