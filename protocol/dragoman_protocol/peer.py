"""One end of a JSON-RPC 2.0 conversation, without I/O; the same class serves the daemon and its clients.

`receive` turns bytes into what arrived; `request`, `notify`, `respond` and `fail` turn intentions into
bytes. The peer keeps the two books of a connection: requests that came in and are owed exactly one response,
and requests that went out and wait for theirs. Batches are taken apart on arrival and their responses put
together again; the caller never sees a batch.

What is wrong on the wire is answered here as the specification says, through `Reply` (bytes to send). A
broken *response* is never answered, for an answer to an answer could go back and forth for ever; if it is
the answer to a request of ours, that request fails with what is wrong with it.
"""

from typing import Any

import msgspec
from msgspec import UNSET

from .codec import MAX_MESSAGE, Decoder, Framing, encode_frame, too_large
from .errors import FieldData, RpcError, from_body
from .wire import (
    NO_RAW,
    Envelope,
    Id,
    decode_envelope,
    encode_error,
    encode_notification,
    encode_request,
    encode_result,
    salvage,
    split_batch,
)

MAX_BATCH = 1000
"""Most messages in one batch."""


class Request(msgspec.Struct, eq=False):
    """A request that came in; it is owed one `respond` or `fail`."""

    id: Id
    method: str
    params: msgspec.Raw
    batch: "_Batch | None" = None


class Notification(msgspec.Struct, eq=False):
    """A notification that came in."""

    method: str
    params: msgspec.Raw


class Response(msgspec.Struct, eq=False):
    """The answer to a request of ours; `waiter` is what was given to `request`."""

    id: Id
    waiter: Any
    result: msgspec.Raw
    error: RpcError | None


class Reply(msgspec.Struct, eq=False):
    """Bytes that must be sent: the answer to something that was wrong."""

    data: bytes
    error: RpcError
    fatal: bool = False
    """Close the connection after sending: what follows cannot be framed."""


Arrival = Request | Notification | Response | Reply
"""What bytes that were received amount to."""


class _Batch(msgspec.Struct, eq=False):
    """A batch whose responses are being collected."""

    owed: int
    replies: list[bytes]


class Peer:
    """One end of a connection."""

    def __init__(self, *, framing: Framing | None = None, max_bytes: int = MAX_MESSAGE) -> None:
        """Speak in *framing*, or in whichever the other end speaks first; read at most *max_bytes* each."""
        self.decoder = Decoder(max_bytes=max_bytes, framing=framing)
        self.max_sent_bytes = MAX_MESSAGE
        """Longest message that the other end will read; a longer one is refused before it is sent."""
        self.incoming: dict[Id, Request] = {}
        """Requests that are owed a response."""
        self.outgoing: dict[Id, Any] = {}
        """Waiters of our own requests."""
        self.unexpected_responses = 0
        """Responses to nothing that was asked."""
        self._next_id = 0

    @property
    def framing(self) -> Framing:
        """The framing in use; lines until it is known."""
        return self.decoder.framing or "lines"

    # -- in

    def receive(self, data: bytes) -> list[Arrival]:
        """Take bytes, return what they complete, in order."""
        arrivals: list[Arrival] = []
        for frame in self.decoder.feed(data):
            if frame.__class__ is bytes and (frame[:1] == b"{" or frame.lstrip()[:1] != b"["):
                self._receive_one(frame, arrivals, None)
            elif isinstance(frame, RpcError):
                reply = encode_frame(encode_error(None, frame), self.framing)
                arrivals.append(Reply(reply, frame, fatal=frame.kind == "bad_framing"))
            else:
                self._receive_batch(frame, arrivals)
        return arrivals

    def _receive_one(self, frame: bytes, arrivals: list[Arrival], batch: _Batch | None) -> None:
        try:
            message = decode_envelope(frame)
        except RpcError as error:
            self._receive_broken(frame, error, arrivals, batch)
            return
        method = message.method
        id = message.id
        if method is UNSET:
            self._receive_response(message, arrivals, batch)
        elif message.jsonrpc != "2.0":
            self._refuse(id, _invalid("the member `jsonrpc` must be \"2.0\"", "$.jsonrpc"), arrivals, batch)
        elif message.result or message.error is not None:
            self._refuse(id, _invalid("a request has no `result` or `error`", "$"), arrivals, batch)
        elif message.params and memoryview(message.params)[0] not in b"{[n":
            self._refuse(id, _invalid("`params` must be an object or an array", "$.params"), arrivals, batch)
        elif id is UNSET:
            arrivals.append(Notification(method, message.params))
        elif id is None:
            self._refuse(None, _invalid("`id` must be a string or an integer", "$.id"), arrivals, batch)
        elif id in self.incoming:
            text = f"the id {id!r} is in use by a request in flight"
            self._refuse(id, _invalid(text, "$.id"), arrivals, batch)
        else:
            request = Request(id, method, message.params, batch)
            if batch is not None:
                batch.owed += 1
            self.incoming[id] = request
            arrivals.append(request)

    def _receive_response(self, message: Envelope, arrivals: list[Arrival], batch: _Batch | None) -> None:
        has_result = bool(message.result)
        if not has_result and message.error is None:
            text = "the member `method` (or, in a response, `result` or `error`) is missing"
            self._refuse(message.id, _invalid(text, "$"), arrivals, batch)
            return
        error = from_body(message.error) if message.error is not None else None
        self._resolve(message.id, message.result, error, arrivals)

    def _receive_broken(
        self, frame: bytes, error: RpcError, arrivals: list[Arrival], batch: _Batch | None
    ) -> None:
        if error.kind == "parse_error":
            self._refuse(None, error, arrivals, batch)
            return
        id, is_response = salvage(frame)
        if is_response:
            self._resolve(id, NO_RAW, error, arrivals)
        else:
            # With two ids nobody can tell which one waits.
            known = not (isinstance(error.data, FieldData) and error.data.path == "$.id")
            self._refuse(id if known else None, error, arrivals, batch)

    def _resolve(self, id: Any, result: msgspec.Raw, error: RpcError | None, arrivals: list[Arrival]) -> None:
        if id in self.outgoing:
            arrivals.append(Response(id, self.outgoing.pop(id), result, error))
        else:
            self.unexpected_responses += 1

    def _receive_batch(self, frame: bytes, arrivals: list[Arrival]) -> None:
        try:
            parts = split_batch(frame)
            if not parts:
                raise _invalid("a batch must not be empty", "$")
            if len(parts) > MAX_BATCH:
                text = f"The batch has {len(parts)} messages; at most {MAX_BATCH} are allowed."
                raise RpcError("too_complex", text, limit=MAX_BATCH, actual=len(parts))
        except RpcError as error:
            self._refuse(None, error, arrivals, None)
            return
        # One more is owed until the whole batch is read, so that it cannot be complete too early.
        batch = _Batch(owed=1, replies=[])
        for part in parts:
            self._receive_one(part, arrivals, batch)
        data = self._settle(batch)
        if data:
            arrivals.append(Reply(data, RpcError("invalid_request")))

    def _refuse(self, id: Any, error: RpcError, arrivals: list[Arrival], batch: _Batch | None) -> None:
        reply = encode_error(None if id is msgspec.UNSET else id, error)
        if batch is None:
            arrivals.append(Reply(encode_frame(reply, self.framing), error))
        else:
            batch.replies.append(reply)

    # -- out

    def request(self, method: str, params: Any = None, waiter: Any = None) -> tuple[Id, bytes]:
        """Make a request; its `Response` will carry *waiter*. Returns its id and the bytes to send.

        Raises `RpcError` (`message_too_large`) above `max_sent_bytes`, and what the encoder raises for
        *params* that are not JSON; nothing is then waited for.
        """
        id = self._next_id + 1
        message = self._sendable(encode_request(id, method, params))
        self._next_id = id
        self.outgoing[id] = waiter
        return id, encode_frame(message, self.framing)

    def notify(self, method: str, params: Any = None) -> bytes:
        """Make a notification; returns the bytes to send. Raises as `request` does."""
        return encode_frame(self._sendable(encode_notification(method, params)), self.framing)

    def respond(self, request: Request, result: Any) -> bytes:
        """Answer *request*; returns the bytes to send (none while its batch is incomplete).

        Raises `LookupError` if it was answered before: one request, one response. A result that cannot be
        encoded, or is longer than `max_sent_bytes`, raises before anything is settled, so the request can
        still be failed.
        """
        if request.batch is not None or self.incoming.get(request.id) is not request:
            return self._answer(request, self._sendable(encode_result(request.id, result)))
        message = encode_result(request.id, result)
        if len(message) > self.max_sent_bytes:
            raise too_large(self.max_sent_bytes, len(message))
        del self.incoming[request.id]
        return message + b"\n" if self.decoder.framing != "headers" else encode_frame(message, "headers")

    def fail(self, request: Request, error: RpcError) -> bytes:
        """Answer *request* with an error; as `respond`, but it never raises for what the error carries."""
        return self._answer(request, encode_error(request.id, error))

    def forget(self, id: Id) -> Any:
        """Stop waiting for the answer to our request *id*; returns its waiter. A late answer is ignored."""
        return self.outgoing.pop(id, None)

    def close(self) -> list[Any]:
        """The connection is gone: forget both books; returns the waiters that will never be answered."""
        waiters = list(self.outgoing.values())
        self.outgoing.clear()
        self.incoming.clear()
        return waiters

    def _sendable(self, message: bytes) -> bytes:
        if len(message) > self.max_sent_bytes:
            raise too_large(self.max_sent_bytes, len(message))
        return message

    def _answer(self, request: Request, reply: bytes) -> bytes:
        if self.incoming.get(request.id) is not request:
            raise LookupError(f"the request {request.id!r} was answered before, or its connection is closed")
        del self.incoming[request.id]
        batch = request.batch
        if batch is None:
            return encode_frame(reply, self.decoder.framing or "lines")
        batch.replies.append(reply)
        return self._settle(batch)

    def _settle(self, batch: _Batch) -> bytes:
        batch.owed -= 1
        if batch.owed or not batch.replies:
            return b""
        whole = b"[" + b",".join(batch.replies) + b"]"
        if len(whole) <= self.max_sent_bytes:
            return encode_frame(whole, self.framing)
        # Too long for the other end to read at once; so that no id is left unanswered, one array for each.
        return b"".join(encode_frame(b"[" + reply + b"]", self.framing) for reply in batch.replies)


def _invalid(reason: str, path: str) -> RpcError:
    return RpcError("invalid_request", f"Invalid request: {reason}.", path=path, reason=reason)
