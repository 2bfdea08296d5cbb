"""A server with handlers that do as they are told, and clients that speak to it in memory."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from dragoman_protocol.codec import Decoder, Framing, encode_frame
from dragoman_protocol.errors import RpcError
from dragoman_protocol.lifecycle import ServerInfo
from dragoman_protocol.values import Params
from dragomand.server.route import Call, Client, Route
from dragomand.server.server import Server
from dragomand.transport.memory import MemoryEnd

DEADLINE_S = 20.0


class Do(Params):
    """What a handler is to do."""

    tag: str = ""
    then: str = "answer"
    """`answer`, `fail` (RpcError), `crash`, `unencodable`, `huge`; once its gate is open, if `wait`."""
    wait: bool = False
    on_cancel: str = "raise"
    """`raise`, `convert` (into an RpcError of its own), `swallow` (and answer), `ignore` (wait on)."""
    size: int = 0
    session_id: str | None = None


class Work:
    """The handlers, and what they saw."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.clients: list[Client] = []
        self.cancelled: list[str] = []
        self.asked: dict[str, asyncio.Task[Any]] = {}
        self._gates: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Condition()

    def gate(self, tag: str) -> asyncio.Event:
        """What the handler of *tag* waits for, with `wait`."""
        return self._gates.setdefault(tag, asyncio.Event())

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something that handlers change is so."""
        async with asyncio.timeout(DEADLINE_S), self._changed:
            await self._changed.wait_for(true)

    async def tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def now(self, call: Call, do: Do) -> Any:
        self.begun.append(do.tag)
        self.clients.append(call.client)
        return _outcome(do)

    async def later(self, call: Call, do: Do) -> Any:
        self.begun.append(do.tag)
        self.clients.append(call.client)
        await self.tell()
        try:
            while do.wait:
                try:
                    await self.gate(do.tag).wait()
                    break
                except asyncio.CancelledError:
                    self.cancelled.append(do.tag)
                    if do.on_cancel == "convert":
                        raise RpcError("request_cancelled", "as asked", text="so far") from None
                    if do.on_cancel == "raise":
                        raise
                    if do.on_cancel == "swallow":
                        break
            return _outcome(do)
        finally:
            self.ended.append(do.tag)
            await self.tell()

    def cancel_myself(self, _call: Call, _do: Do) -> Any:
        async def cancelled() -> None:
            raise asyncio.CancelledError

        return cancelled()

    def routes(self) -> list[Route]:
        return [
            Route("do/now", Do, self.now, "inline"),
            Route("do/later", Do, self.later, "free"),
            Route("do/turn", Do, self.later, "session"),
            Route("do/always", Do, self.later, "free", while_draining=True),
            Route("do/plain", Do, self.now, "free"),
            Route("do/vanish", Do, self.cancel_myself, "free"),
            Route("do/secret", Do, self.now, "inline", "admin"),
        ]


def _outcome(do: Do) -> Any:
    if do.then == "fail":
        raise RpcError("session_not_found", session_id=do.tag)
    if do.then == "crash":
        raise ValueError("a secret detail")
    if do.then == "unencodable":
        return {"tag": object()}
    if do.then == "huge":
        return "x" * (17 * 1024 * 1024)
    return {"tag": do.tag, "filler": "x" * do.size} if do.size else {"tag": do.tag}


class Conversation:
    """The client's side of one connection: messages out, messages in."""

    def __init__(self, end: MemoryEnd, framing: Framing = "lines") -> None:
        self.end = end
        self.framing = framing
        self.decoder = Decoder(framing=framing)
        self.waiting: deque[Any] = deque()
        self.last_id = 0

    def send(self, *messages: Any) -> None:
        """Send messages (dicts, or lists as batches, or raw bytes), all at once."""
        frames = [
            encode_frame(m if isinstance(m, bytes) else json.dumps(m).encode(), self.framing)
            for m in messages
        ]
        self.end.write(b"".join(frames))

    def ask(self, method: str, params: Any = None, id: Any = None) -> Any:
        """Send a request and return its id."""
        if id is None:
            self.last_id += 1
            id = self.last_id
        message = {"jsonrpc": "2.0", "id": id, "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)
        return id

    def tell(self, method: str, params: Any = None) -> None:
        """Send a notification."""
        self.send({"jsonrpc": "2.0", "method": method} | ({} if params is None else {"params": params}))

    async def next(self) -> Any:
        """Return the next message; None at the end."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.waiting:
                data = await self.end.read()
                if not data:
                    return None
                self.waiting += [json.loads(frame) for frame in self.decoder.feed(data)]
        return self.waiting.popleft()

    async def answer(self, id: Any) -> Any:
        """Return the next message, which must be the answer to *id*."""
        message = await self.next()
        assert message is not None
        assert message.get("id") == id, message
        return message

    async def call(self, method: str, params: Any = None) -> Any:
        """Ask and return the result."""
        return (await self.answer(self.ask(method, params)))["result"]

    async def fails(self, method: str, params: Any = None) -> Any:
        """Ask and return the error."""
        return (await self.answer(self.ask(method, params)))["error"]

    async def rest(self) -> list[Any]:
        """Return everything until the end."""
        messages = []
        while (message := await self.next()) is not None:
            messages.append(message)
        return messages

    async def barrier(self) -> None:
        """Wait until all that was sent has been looked at; what came meanwhile can still be read."""
        id = self.ask("do/now", {"tag": "barrier"}, id=f"barrier {self.last_id}")
        passed = []
        while isinstance(message := await self.next(), list) or message.get("id") != id:
            passed.append(message)
        self.waiting.extendleft(reversed(passed))


class World:
    """A server, its handlers, its log and its clients."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.work = Work()
        self.now = 1000.0
        self.granted: list[str] = []
        self.asked_for: list[tuple[list[str] | None, int | None]] = []
        self._changed = asyncio.Event()
        self.log = caplog
        self.server = Server(
            self.work.routes(),
            info=ServerInfo(name="test", version="7"),
            grant=self._grant,
            logger=logging.getLogger("test.server"),
            clock=lambda: self.now,
            features=["x"],
            on_change=self._on_change,
        )

    def _grant(self, requested: list[str] | None, peer_pid: int | None) -> list[str]:
        self.asked_for.append((requested, peer_pid))
        return self.granted

    def _on_change(self) -> None:
        self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something that the server counts is so."""
        async with asyncio.timeout(DEADLINE_S):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    def connect(self, framing: Framing = "lines") -> Conversation:
        """A connection that has said nothing yet."""
        return Conversation(self.server.connect_memory(peer_pid=4321), framing)

    async def open(self, framing: Framing = "lines", **params: Any) -> Conversation:
        """A connection after `initialize`."""
        conversation = self.connect(framing)
        await conversation.call("initialize", params)
        return conversation


@pytest.fixture
async def world(caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    """A server in memory."""
    caplog.set_level(logging.DEBUG)
    world = World(caplog)
    yield world
    for gate in world.work._gates.values():
        gate.set()  # those that ignore their cancellation
    await world.server.flush_and_close(0)
    assert world.server.connections == 0
    assert world.server.running == 0
    assert world.server.queued == 0


@pytest.fixture
def make_world(caplog: pytest.LogCaptureFixture) -> Callable[[], World]:
    """Make such a server in a loop of the test's own."""
    return lambda: World(caplog)


@pytest.fixture
def conversation() -> type[Conversation]:
    """The class, for connections made otherwise."""
    return Conversation
