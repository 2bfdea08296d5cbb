"""Handlers on a whole engine, called by a stand-in for the connection.

The stand-in exists so that a client can be made slow, deaf or gone at a chosen moment; the real connection is
in the tests of `server`, and both together in the transcripts.
"""

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dragoman_protocol.errors import RpcError
from dragoman_protocol.methods import METHODS
from dragomand.engine.rewinds import Rewinds
from dragomand.engine.start_breakers import StartBreakers
from dragomand.handlers.agent import agent_handlers
from dragomand.handlers.auth import auth_handlers
from dragomand.handlers.breaker import breaker_handlers
from dragomand.handlers.budget import budget_handlers
from dragomand.handlers.daemon import daemon_handlers
from dragomand.handlers.errors import translated
from dragomand.handlers.limits import limits_handlers
from dragomand.handlers.model import model_handlers
from dragomand.handlers.orchestrate import orchestrate_handlers
from dragomand.handlers.permission import permission_handlers
from dragomand.handlers.query import query_handlers
from dragomand.handlers.session import session_handlers
from dragomand.handlers.stats import stats_handlers
from dragomand.handlers.stream import stream_handlers
from dragomand.server.route import Call, Handler
from dragomand.upstream.interface import StartBreaker


def _engine_kit() -> Any:
    """What the tests of the engine share: the same stand-in for the upstream, the same real store."""
    name = "engine_kit_of_handlers"
    if name not in sys.modules:
        path = Path(__file__).parent.parent / "engine" / "conftest.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


class StandInClient:
    """A connection (`route.Client`)."""

    def __init__(self, number: int, *scopes: str, permissions: bool = False) -> None:
        self.id = f"client-{number}"
        self.name = f"editor {number}"
        self.scopes = frozenset(scopes or ("query", "tools", "approve"))
        self.capabilities: dict[str, Any] = {"permissions": permissions}
        self.closed = False
        self.peer_pid: int | None = None
        self.told: list[tuple[str, Any]] = []
        """Notifications as a client reads them: the method, and the parameters as JSON values."""
        self.takes_durable = True
        self.takes_ephemeral = True
        self.questions: list[Any] = []
        self.was_asked = asyncio.Event()
        self.answer: Callable[[], Any] | None = None
        self._on_close: list[Callable[[], None]] = []
        self._heard: list[tuple[Callable[[], bool], asyncio.Event]] = []

    def notify(self, method: str, params: Any) -> None:
        self.told.append((method, msgspec.json.decode(msgspec.json.encode(params))))
        for true, event in self._heard:
            if true():
                event.set()

    def event(self, method: str, params: Any, *, ephemeral: bool) -> bool:
        if self.closed or not (self.takes_ephemeral if ephemeral else self.takes_durable):
            return False
        self.notify(method, params)
        return True

    async def request(self, method: str, params: Any, result: Any) -> Any:
        self.questions.append((method, params))
        self.was_asked.set()
        if self.answer is None:
            await asyncio.Event().wait()
        assert self.answer is not None
        return msgspec.convert(self.answer(), result)

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        if self.closed:
            callback()
            return lambda: None
        self._on_close.append(callback)
        return lambda: self._on_close.remove(callback)

    def close(self) -> None:
        """The connection breaks."""
        self.closed = True
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            callback()

    def of(self, method: str) -> list[Any]:
        """The parameters of each notification of *method*."""
        return [params for told, params in self.told if told == method]

    def kinds(self, method: str) -> list[str]:
        """The types of the events that came as *method*."""
        values = [params.get("value", params) for params in self.of(method)]
        return [value["event"]["type"] for value in values]

    async def hears(self, kind: str, method: str = "stream/event") -> None:
        """Wait until an event of *kind* came."""
        event = asyncio.Event()

        def true() -> bool:
            return kind in self.kinds(method)

        self._heard.append((true, event))
        if not true():
            async with asyncio.timeout(30):
                await event.wait()


class StandInStarting:
    """What starts processes, as far as its breakers go."""

    def __init__(self) -> None:
        self.breakers: list[StartBreaker] = []

    def start_breakers(self) -> list[StartBreaker]:
        return self.breakers

    def reset_starts(self) -> int:
        closed, self.breakers = len(self.breakers), []
        return closed


class House:
    """All handlers on one engine."""

    def __init__(self, engine: Any, kit: Any) -> None:
        self.engine = engine
        self.kit = kit
        self.stops: list[int | None] = []
        self._clients = 0
        self.status: Any = None
        self.pool: Any = None
        self.starting = StandInStarting()
        handlers: dict[str, Handler] = {
            **auth_handlers(engine.queries._auth),
            **agent_handlers(engine.queries._agents),
            **model_handlers(),
            **query_handlers(engine.queries, engine.sessions),
            **orchestrate_handlers(engine.orchestrations, engine.sessions),
            **session_handlers(engine.sessions, engine.queries._choice._forks),
            **stream_handlers(
                engine.streams,
                engine.queries,
                engine.sessions,
                engine.attachments,
                Rewinds(engine.streams, engine.store),
            ),
            **permission_handlers(engine.permissions),
            **limits_handlers(engine.admission, engine.calls, engine.limit_settings, engine.budgets),
            **breaker_handlers(engine.admission, StartBreakers(self.starting)),
            **budget_handlers(engine.budgets),
            **stats_handlers(engine.statistics),
            **daemon_handlers(lambda: self.status, self._stop, lambda: self.pool),
        }
        self.handlers = {name: translated(handler) for name, handler in handlers.items()}

    def _stop(self, grace_ms: int | None) -> int:
        self.stops.append(grace_ms)
        return 7

    def client(self, *scopes: str, permissions: bool = False) -> StandInClient:
        """A new connection."""
        self._clients += 1
        return StandInClient(self._clients, *scopes, permissions=permissions)

    def call(self, client: StandInClient, method: str, **params: Any) -> Any:
        """Call *method* with parameters as on the wire; a coroutine unless the method is `inline`."""
        decoded = msgspec.convert(params, METHODS[method].params)
        return self.handlers[method](Call(client, 1), decoded)

    def start(self, client: StandInClient, method: str, **params: Any) -> "asyncio.Task[Any]":
        """The same, in a task of its own."""
        return asyncio.create_task(self.call(client, method, **params))

    def query(self, client: StandInClient, **params: Any) -> Any:
        """Run a query in the engine's folder."""
        folder = {} if "sessionId" in params else {"cwd": str(self.engine.cwd)}
        return self.call(client, "query/run", **{"prompt": "hi", **folder, **params})

    async def refused(self, kind: str, work: Any) -> RpcError:
        """The error of *kind* that *work* raises."""
        with pytest.raises(RpcError) as caught:
            async with asyncio.timeout(30):
                await work
        assert caught.value.kind == kind, caught.value
        return caught.value


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., Any]:
    """Builds a house for an `async with` block."""

    @asynccontextmanager
    async def build(**chosen: Any) -> AsyncIterator[House]:
        kit = _engine_kit().Kit(tmp_path)
        async with kit.engine(**chosen) as engine:
            yield House(engine, kit)

    return build
