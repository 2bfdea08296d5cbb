"""The simulator: listens, decides what answers each request, and remembers it."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Self

import msgspec

from dragoman_sim import clouds, control, event_stream, plan
from dragoman_sim.answer import Answer, Headers
from dragoman_sim.choose import Choice, Chooser
from dragoman_sim.conversation import Conversation, InvalidRequestError
from dragoman_sim.door import Door
from dragoman_sim.faults import dated, error_body, error_headers, message_of, status_of
from dragoman_sim.gates import GateControl, Gates
from dragoman_sim.http import LAST_CHUNK, Connection, HttpRequest, chunk, head
from dragoman_sim.http import Answer as HttpAnswer
from dragoman_sim.records import Condition, Log, Record
from dragoman_sim.script import Cut, Fault, Limits, Pause, Rule, Script, Stall, Status, StreamError

BACKLOG = 1024
_MESSAGES = "/v1/messages"
_COUNT = "/v1/messages/count_tokens"
_MODELS = "/v1/models"
_JSON = ("content-type", "application/json")


class Simulator:
    """A Messages API on 127.0.0.1; see `dragoman_sim` for how a test uses it."""

    def __init__(
        self,
        script: Script | Iterable[Rule] = (),
        *,
        port: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Answer by *script* (or a list of rules); *port* 0 takes a free one; *clock* drives the rate limits.

        Raises `ScriptError`.
        """
        self._port = port
        self._clock = clock
        self._started = clock()
        self._run = secrets.token_hex(4)
        self._ids = 0
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._gates = Gates()
        self._log = Log()
        self.script = Script()
        self.use(script)

    def use(self, script: Script | Iterable[Rule]) -> None:
        """Answer by another script from now on; counts and limits begin anew. Raises `ScriptError`."""
        new = script if isinstance(script, Script) else Script(rules=list(script))
        self._chooser = Chooser(new)
        self._door = None if new.limits is None else Door(new.limits)
        self.script = new

    def reset(self) -> None:
        """Forget requests, gates and counts, and break off every answer that is under way."""
        for connection in list(self._connections):
            if connection.answering:
                connection.abort()
        self._gates = Gates()
        self._log = Log(total=0)
        self.use(self.script)

    # listening

    async def __aenter__(self) -> Self:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", self._port, backlog=BACKLOG)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and end every connection and its answer."""
        assert self._server is not None
        self._server.close()
        while self._connections:
            await self._connections.pop().aclose()
        await self._server.wait_closed()

    def _connection(self) -> Connection:
        return Connection(self._serve, self._connections, self.script.max_request_bytes)

    @property
    def url(self) -> str:
        """What `ANTHROPIC_BASE_URL` is set to."""
        return f"http://127.0.0.1:{self._port}"

    # for tests

    @property
    def requests(self) -> list[Record]:
        """Every request so far, oldest first (within `records.MAX_RECORDS`)."""
        return list(self._log.records)

    @property
    def messages(self) -> list[Record]:
        """The requests to `/v1/messages` alone."""
        return [record for record in self._log.records if record.path == _MESSAGES]

    def gate(self, name: str) -> GateControl:
        """Return the gate of that name."""
        return self._gates[name]

    @property
    def gates(self) -> Gates:
        """All gates."""
        return self._gates

    async def wait_for(self, what: int | Condition, deadline_s: float = 10.0) -> Record:
        """Return the *what*-th request to `/v1/messages` once it is there, or the first to meet a condition.

        Conditions are asked for every request of the past and future, again when its `outcome` changes.
        Raises `TimeoutError` after *deadline_s*, telling what there was.
        """
        if not isinstance(what, int):
            return await self._log.wait_for(what, deadline_s, "a request that meets the condition")
        count = what

        def is_there(record: Record) -> bool:
            return record.message_number == count

        return await self._log.wait_for(is_there, deadline_s, f"{count} requests to {_MESSAGES}")

    async def wait_ended(self, record: Record, deadline_s: float = 10.0) -> str:
        """Wait until *record* is no longer being answered; returns its `outcome`. Raises `TimeoutError`."""
        await self._log.wait_for(
            lambda r: r is record and r.outcome != "answering", deadline_s, f"the end of {record.path}"
        )
        return record.outcome

    def limit_counts(self) -> dict[str, Any]:
        """Return what the limits let in and refused, in `total` and of each of the `credentials`.

        Counted are requests to `/v1/messages` that no rule's fault answered. See `door.Counts`.
        """
        return (self._door or Door(Limits())).counts()

    # answering

    def _serve(self, request: HttpRequest, connection: Connection) -> HttpAnswer:
        if request.path.startswith(control.PREFIX):
            return control.serve(self, request, connection)
        dialect = None
        if (understood := clouds.understood(request)) is not None:
            request, dialect = understood
        record = self._log.add(request, self._clock() - self._started, dialect)
        try:
            answer = self._answer(request, record, connection)
        except InvalidRequestError as wrong:
            answer = self._fail(record, Status(400, message=str(wrong)))
        if isinstance(answer, bytes):
            if request.method == "HEAD":
                answer = answer[: answer.index(b"\r\n\r\n") + 4]
            self._log.end(record, "answered")
        return answer

    def _answer(self, request: HttpRequest, record: Record, connection: Connection) -> HttpAnswer:
        if request.too_large:
            return self._fail(record, Status(413))
        known = (request.method, request.path)
        is_model = request.method == "GET" and request.path.startswith(_MODELS)
        if known not in (("POST", _MESSAGES), ("POST", _COUNT)) and not is_model:
            return self._fail(record, Status(404))
        if record.dialect is not None:
            if (refusal := record.dialect.refusal(request.headers)) is not None:
                return self._fail(record, refusal)
            clouds.check(record.dialect, request.body)
        elif record.credential_digest is None:
            return self._fail(record, Status(401))
        if self.script.keys is not None and not any(record.used_key(key) for key in self.script.keys):
            return self._fail(record, Status(401, message="invalid x-api-key"))
        if is_model:
            return self._other(record, connection, None, self._models(request.path))
        conversation = Conversation(request.body, needs_max_tokens=request.path == _MESSAGES)
        conversation.check_tools()
        if request.path == _COUNT:
            tokens = conversation.input_tokens
            counted = msgspec.json.encode({"input_tokens": tokens})
            if record.dialect is not None:
                counted = record.dialect.counted(tokens)
            return self._other(record, connection, conversation, counted)
        return self._message(record, connection, conversation)

    def _other(
        self, record: Record, connection: Connection, conversation: Conversation | None, body: bytes | None
    ) -> HttpAnswer:
        """Answer an endpoint without a model: only a fault may be scripted."""
        choice = self._chooser.choose(record.path, conversation)
        record.rule = choice.rule
        if isinstance(choice.fault, Status):
            return self._status(record, connection, choice.fault)
        if body is None:
            return self._fail(record, Status(404))
        record.status = 200
        headers = [_JSON, *self._headers(record)]
        if choice.fault is None:
            return head(200, [*headers, ("content-length", str(len(body)))]) + body
        before, after = _outside(choice.fault)
        answer = Answer(connection, record, self._gates, self._log)
        return answer.whole(200, headers, before, after, body)

    def _message(self, record: Record, connection: Connection, conversation: Conversation) -> HttpAnswer:
        choice = self._chooser.choose(_MESSAGES, conversation)
        record.rule = choice.rule
        if isinstance(choice.fault, Status):
            return self._status(record, connection, choice.fault)
        if self._door is not None:
            refused = self._door.admit(record, conversation.input_tokens, self._clock())
            if refused is not None:
                return self._fail(record, refused)
        planned = self._plan(choice, conversation)
        if self._door is not None:
            tokens = plan.usage_of(choice.reply.usage, conversation, planned.output_tokens)["output_tokens"]
            self._door.settle(record, tokens, self._clock())
        record.status = 200
        if conversation.stream:
            return self._stream(record, connection, conversation, choice, planned)
        return self._whole(record, connection, conversation, choice, planned)

    def _stream(
        self,
        record: Record,
        connection: Connection,
        conversation: Conversation,
        choice: Choice,
        planned: plan.Plan,
    ) -> HttpAnswer:
        usage = choice.reply.usage
        start = plan.message_start(self._new_id("msg"), conversation.model, usage, conversation)
        end = plan.message_end(planned, usage, conversation)
        binary = record.dialect is not None and record.dialect.is_binary
        kind = event_stream.CONTENT_TYPE if binary else "text/event-stream; charset=utf-8"
        headers = [("content-type", kind), ("cache-control", "no-cache"), *self._headers(record)]
        before, after = self._before(choice)
        if planned.flows and not before and not after:
            events = b"".join((start, *planned.steps, end))  # type: ignore[arg-type]  # all bytes
            whole = chunk(event_stream.converted(events) if binary else events)
            return head(200, [*headers, ("transfer-encoding", "chunked")]) + whole + LAST_CHUNK
        answer = Answer(connection, record, self._gates, self._log, binary=binary)
        return answer.stream(headers, before, plan.joined([*after, start, *planned.steps, end]))

    def _whole(
        self,
        record: Record,
        connection: Connection,
        conversation: Conversation,
        choice: Choice,
        planned: plan.Plan,
    ) -> HttpAnswer:
        usage = choice.reply.usage
        body = plan.whole_message(planned, self._new_id("msg"), conversation.model, usage, conversation)
        headers = [_JSON, *self._headers(record)]
        before, after = self._before(choice)
        if planned.flows and not before and not after:
            return head(200, [*headers, ("content-length", str(len(body)))]) + body
        instead = b""
        if isinstance(choice.fault, StreamError):
            fault = choice.fault
            instead = self._fail(record, Status(status_of(fault.error_type), fault.error_type, fault.message))
        answer = Answer(connection, record, self._gates, self._log)
        return answer.whole(200, headers, before, after, body, planned.steps, instead)

    def _plan(self, choice: Choice, conversation: Conversation) -> plan.Plan:
        if choice.cache is not None and choice.round in choice.cache:
            return choice.cache[choice.round]
        made = plan.make_plan(
            choice.reply, choice.fault, conversation, choice.match, lambda: self._new_id("toolu")
        )
        if choice.cache is not None:
            choice.cache[choice.round] = made
        return made

    def _before(self, choice: Choice) -> tuple[list[plan.Step], list[plan.Step]]:
        before, after = _outside(choice.fault)
        if choice.reply.first_delay_ms > 0:
            before.insert(0, Pause(choice.reply.first_delay_ms))
        return before, after

    def _status(self, record: Record, connection: Connection, fault: Status) -> HttpAnswer:
        response = self._fail(record, fault)
        if fault.delay_ms <= 0:
            return response
        answer = Answer(connection, record, self._gates, self._log)
        return answer.later(fault.delay_ms, response)

    def _fail(self, record: Record, fault: Status) -> bytes:
        record.status = fault.status
        headers = self._headers(record)
        kind, body = error_body(fault, headers[0][1])
        own = error_headers(fault)
        if record.dialect is not None and not fault.html:
            named, body = record.dialect.error(fault, dated(fault.message or message_of(fault.status)))
            own += named
        length = ("content-length", str(len(body)))
        return head(fault.status, [("content-type", kind), *headers, *own, length]) + body

    def _headers(self, record: Record) -> Headers:
        name = "request-id" if record.dialect is None else record.dialect.request_id_header
        headers = [(name, self._new_id("req"))]
        if self._door is not None and record.credential_digest is not None:
            headers += self._door.headers(record, self._clock())
        return headers

    def _models(self, path: str) -> bytes | None:
        models = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
            for name in self.script.models
        ]
        if path == _MODELS:
            listed: dict[str, Any] = {"data": models, "has_more": False}
            listed |= {"first_id": models[0]["id"], "last_id": models[-1]["id"]} if models else {}
            return json.dumps(listed).encode()
        found = [model for model in models if path == f"{_MODELS}/{model['id']}"]
        return json.dumps(found[0]).encode() if found else None

    def _new_id(self, kind: str) -> str:
        """Return an id that no other simulator gives out: a resumed conversation stays valid."""
        self._ids += 1
        return f"{kind}_sim{self._run}{self._ids:08d}"


def _outside(fault: Fault | None) -> tuple[list[plan.Step], list[plan.Step]]:
    """Return what a fault does before the response's head, and right after it."""
    if isinstance(fault, Cut | Stall):
        if fault.at == "before_headers":
            return [fault], []
        if fault.at == "after_headers":
            return [], [fault]
    return [], []
