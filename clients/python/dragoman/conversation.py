"""What a client says and hears on one connection, without I/O: `sync` and `aio` move the bytes.

`initialize` is the first thing said, together with the first call. What was said is kept until the first
byte comes back: a daemon that was leaving closes without one, and its successor is told the same from the
beginning (`start_afresh`).
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from dragoman_protocol.codec import MAX_MESSAGE_BEFORE_INITIALIZE
from dragoman_protocol.errors import RpcError
from dragoman_protocol.lifecycle import (
    CancelParams,
    ClientInfo,
    InitializeParams,
    InitializeResult,
    ProgressParams,
    Scope,
)
from dragoman_protocol.peer import Notification, Peer, Reply, Request, Response
from dragoman_protocol.stream import EPHEMERAL, Raw, StreamDroppedParams, StreamEventParams
from dragoman_protocol.values import Empty
from dragoman_protocol.wire import Id

from dragoman import __version__
from dragoman.errors import AnswerError, ConnectionClosedError, DragomanError, from_rpc
from dragoman.locate import BusyError
from dragoman.questions import Kind, Question

QUIET_S = 30.0
"""After so many seconds of waiting without a byte, the daemon is asked for a sign of life; after as many more
without one, it is given up as frozen."""

MAX_QUEUED = 10_000
"""Events of one turn that may wait to be read. Beyond it ephemeral ones are left out, which their offsets
make harmless; durable ones may take ten times as much, and beyond that the turn is cancelled."""

FRESH_STARTS = 3
"""How many daemons that are leaving a request is told to, one after the other, before it fails."""

_NOT_TEXT = "The parameters hold a text that is not Unicode (a file name in another encoding, for instance)."
_REPEATABLE_BYTES = 32 * 1024 * 1024


def _nothing() -> None:
    """Nobody has to be told."""


class Pending:
    """One request in flight, and the events that it brings if it asked for them."""

    __slots__ = ("answered", "cancelled", "error", "events", "id", "method", "result", "token", "wake")

    def __init__(self, method: str, wake: Callable[[], None] | None = None, token: int | None = None) -> None:
        """Wait for the answer to *method*; *wake* is called when something came; *token* asks for events."""
        self.method = method
        self.id: Id | None = None
        self.wake = wake or _nothing
        self.token = token
        self.events: deque[StreamEventParams] = deque()
        self.answered = False
        self.cancelled = False
        self.result = msgspec.Raw()
        self.error: DragomanError | None = None

    def take(self, result: type[Any]) -> Any:
        """Return the answer, decoded as *result*, or raise what it was answered with."""
        if self.error is not None:
            raise self.error
        try:
            return msgspec.json.decode(self.result, type=result)
        except msgspec.MsgspecError as failed:
            raise AnswerError(f"The answer to {self.method} does not fit: {failed}") from None


class Watch:
    """A subscription to a session's events, and those that nobody has read yet."""

    __slots__ = ("broken", "events", "session_id", "wake")

    def __init__(self, session_id: str, wake: Callable[[], None] | None = None) -> None:
        """Watch *session_id*; *wake* is called when something came."""
        self.session_id = session_id
        self.wake = wake or _nothing
        self.events: deque[StreamEventParams] = deque()
        self.broken = False
        """Nothing more comes: this reader was too slow, or the connection ended. Attach again."""


class Conversation:
    """One client's side. Put bytes in with `receive`, send what is in `out`; nothing here waits."""

    def __init__(
        self,
        client_name: str | None,
        scopes: Iterable[Scope] | None,
        *,
        asks: Iterable[Kind],
        wake: Callable[[], None],
    ) -> None:
        """Begin with `initialize`. *asks*: what a person can be asked here. *wake*: see `Pending`."""
        self.out = bytearray()
        """What is to be sent; the driver removes what it has sent."""
        self.questions: deque[Question] = deque()
        self.failed: DragomanError | None = None
        """Why the conversation is over; None while it is not."""
        self._peer = Peer(framing="lines")
        self._said: bytearray | None = bytearray()
        self._held: list[bytes] = []
        self._heard = False
        self._fresh_starts = 0
        self._asks = {kind.method: kind for kind in asks}
        self._wake = wake
        self._streams: dict[int | str, Pending] = {}
        self._watches: dict[str, Watch] = {}
        self._open_questions: dict[Id, Question] = {}
        self._probe: Pending | None = None
        name = client_name or os.path.basename(sys.argv[0]) or "python"
        self.handshake = Pending("initialize", wake)
        hello = InitializeParams(
            client_info=ClientInfo(name=name, version=__version__),
            scopes=None if scopes is None else list(scopes),
            capabilities={kind.capability: True for kind in self._asks.values()},
        )
        self.call(self.handshake, hello)

    @property
    def waiting(self) -> bool:
        """Whether an answer is waited for."""
        return bool(self._peer.outgoing)

    # -- said

    def call(self, pending: Pending, params: msgspec.Struct) -> None:
        """Say a request; *pending* will get its answer.

        Raises why, if the conversation is over, and `RequestError` for what cannot be said; that changes
        nothing.
        """
        if self.failed is not None:
            raise self.failed
        try:
            pending.id, data = self._peer.request(pending.method, params, pending)
        except RpcError as error:  # too large
            raise from_rpc(error) from None
        except UnicodeEncodeError as wrong:
            raise from_rpc(RpcError("invalid_params", _NOT_TEXT, reason=str(wrong))) from None
        if pending.token is not None:
            self._streams[pending.token] = pending
        self._say(data)

    def cancel(self, pending: Pending) -> None:
        """Ask the daemon to cancel a request; its one answer still comes. Once is enough."""
        if pending.id is not None and not (pending.answered or pending.cancelled or self.failed):
            pending.cancelled = True
            self._say(self._peer.notify("$/cancelRequest", CancelParams(id=pending.id)))

    def answer(self, question: Question, answer: msgspec.Struct) -> None:
        """Say a person's word, unless the question was withdrawn meanwhile."""
        if self._open_questions.pop(question.request.id, None) is not None:
            self._say(self._peer.respond(question.request, answer))

    def watch(self, watch: Watch) -> None:
        """Give the session's events to *watch* from now on. (The daemon sends them after `stream/attach`.)"""
        self._watches[watch.session_id] = watch
        watch.broken = False

    def unwatch(self, watch: Watch) -> None:
        """Let go of *watch*; what still comes is nobody's."""
        if self._watches.get(watch.session_id) is watch:
            del self._watches[watch.session_id]
        watch.broken = True
        watch.wake()

    def leave(self) -> None:
        """Say that this client goes; what is still in flight will be cancelled by the daemon."""
        if not self.failed and self._heard:
            self._say(self._peer.notify("exit", Empty()))

    def _say(self, data: bytes) -> None:
        if self._held or (len(data) > MAX_MESSAGE_BEFORE_INITIALIZE and not self.handshake.answered):
            self._held.append(data)
            return
        self.out += data
        if self._said is not None:
            self._said += data
            if len(self._said) > _REPEATABLE_BYTES:
                self._said = None

    # -- heard

    def receive(self, data: bytes) -> None:
        """Take bytes from the daemon."""
        self._heard, self._said, self._probe = True, None, None
        for arrival in self._peer.receive(data):
            if isinstance(arrival, Response):
                self._answered(arrival)
            elif isinstance(arrival, Notification):
                self._told(arrival)
            elif isinstance(arrival, Request):
                self._asked(arrival)
            else:
                self._wrong(arrival)

    def start_afresh(self) -> bool:
        """The daemon closed: tell whether it had said nothing, so that all can be said again to another.

        If so, `out` holds all of it again.
        """
        if self._heard or self._said is None or self.failed or self._fresh_starts == FRESH_STARTS:
            return False
        self._fresh_starts += 1
        self.out = bytearray(self._said)
        return True

    def silence(self) -> bool:
        """Nothing was heard for `QUIET_S`: ask for a sign of life; False if none came, and it is over."""
        if self._probe is not None or not self.handshake.answered:
            self.lost(BusyError("The daemon took the connection and does not answer; it may be frozen. "
                                "Look at it with: dragoman daemon status"))  # fmt: skip
            return False
        self._probe = Pending("daemon/status")
        self.call(self._probe, Empty())
        return True

    def lost(self, why: DragomanError | None = None) -> None:
        """The connection is gone: whoever waits gets *why*."""
        if self.failed is None:
            self.failed = why or ConnectionClosedError("connection_closed")
        self._said = None
        self.questions.clear()
        questions, self._open_questions = self._open_questions, {}
        for question in questions.values():
            question.withdrawn()
        self._streams.clear()
        for watch in list(self._watches.values()):
            self.unwatch(watch)
        for pending in self._peer.close():
            self._settle(pending, self.failed)
        self._wake()

    def _answered(self, response: Response) -> None:
        pending: Pending = response.waiter
        pending.result = response.result
        error = None if response.error is None else from_rpc(response.error)
        self._settle(pending, self.failed or error)
        if pending is self.handshake:
            if pending.error is not None:
                self.lost(pending.error)
            held, self._held = self._held, []
            for data in held:
                self._say(data)

    def _settle(self, pending: Pending, error: DragomanError | None) -> None:
        pending.error = error
        pending.answered = True
        if pending.token is not None:
            self._streams.pop(pending.token, None)
        pending.wake()

    def _told(self, told: Notification) -> None:
        match told.method:
            case "$/progress":
                progress = _decoded(told.params, ProgressParams)
                pending = self._streams.get(progress.token) if progress else None
                if progress and pending and (event := read_event(progress.value)):
                    self._queue(pending, event)
            case "stream/event":
                event = read_event(told.params)
                watch = self._watches.get(event.session_id) if event else None
                if event and watch:
                    self._queue_watched(watch, event)
            case "stream/dropped":
                dropped = _decoded(told.params, StreamDroppedParams)
                watch = self._watches.get(dropped.session_id) if dropped else None
                if watch:
                    self.unwatch(watch)
            case "$/cancelRequest":
                withdrawn = _decoded(told.params, CancelParams)
                question = self._open_questions.pop(withdrawn.id, None) if withdrawn else None
                if question is not None:
                    self._withdraw(question)

    def _withdraw(self, question: Question) -> None:
        if question in self.questions:
            self.questions.remove(question)
        self._say(self._peer.fail(question.request, RpcError("request_cancelled")))
        question.withdrawn()

    def _queue(self, pending: Pending, event: StreamEventParams) -> None:
        waiting = len(pending.events)
        if waiting >= MAX_QUEUED and isinstance(event.event, EPHEMERAL):
            return
        if waiting >= 10 * MAX_QUEUED:
            self.cancel(pending)
            return
        pending.events.append(event)
        pending.wake()

    def _queue_watched(self, watch: Watch, event: StreamEventParams) -> None:
        waiting = len(watch.events)
        if waiting >= MAX_QUEUED and isinstance(event.event, EPHEMERAL):
            return
        if waiting >= 10 * MAX_QUEUED:
            self.unwatch(watch)
            return
        watch.events.append(event)
        watch.wake()

    def _asked(self, request: Request) -> None:
        kind = self._asks.get(request.method)
        if kind is None:
            text = f"This client does not answer {request.method}."
            self._say(self._peer.fail(request, RpcError("method_not_found", text, method=request.method)))
            return
        params = _decoded(request.params, kind.params)
        if params is None:
            self._say(self._peer.fail(request, RpcError("invalid_params")))
            return
        question = self._open_questions[request.id] = Question(kind, request, params)
        self.questions.append(question)
        self._wake()

    def _wrong(self, reply: Reply) -> None:
        self._say(reply.data)
        if reply.fatal:
            self.lost(from_rpc(reply.error))

    def opened(self) -> InitializeResult:
        """Return the daemon's answer to `initialize`, once it has come."""
        answer: InitializeResult = self.handshake.take(InitializeResult)
        return answer


class _Unread(msgspec.Struct, rename="camel"):
    """An event whose kind this version does not know."""

    session_id: str
    event: msgspec.Raw
    seq: int | None = None
    cursor: str | None = None


def read_event(data: msgspec.Raw) -> StreamEventParams | None:
    """Decode one event; of a kind that is not known here it becomes `Raw`, and None if it is none at all."""
    event: StreamEventParams | None = _decoded(data, StreamEventParams)
    if event is not None:
        return event
    unread = _decoded(data, _Unread)
    if unread is None:
        return None
    return StreamEventParams(
        session_id=unread.session_id, event=Raw(frame=unread.event), seq=unread.seq, cursor=unread.cursor
    )


def _decoded(data: msgspec.Raw, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError):
        return None
