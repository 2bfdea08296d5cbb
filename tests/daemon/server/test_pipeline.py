"""Ten thousand requests on a real socket before the first answer is read; requests without order or mercy."""

import asyncio
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from dragoman_protocol.codec import Decoder, Framing, encode_frame
from dragomand.transport.socket import serve_socket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DEPTH = 10_000
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run(loop: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main())


class Blocking:
    """A client of another thread: one writes, one reads."""

    def __init__(self, path: str, framing: Framing) -> None:
        self.framing = framing
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(60)
        self.connection.connect(path)
        self.heard: Callable[[Any], None] = lambda _: None

    def converse(self, messages: list[dict[str, Any]], answers: int) -> list[Any]:
        """Send all *messages*, and return *answers* messages of the server."""
        data = b"".join(encode_frame(json.dumps(m).encode(), self.framing) for m in messages)
        writer = threading.Thread(target=self.connection.sendall, args=[data])
        writer.start()
        decoder = Decoder(framing=self.framing)
        received: list[Any] = []
        while len(received) < answers:
            chunk = self.connection.recv(1 << 18)
            assert chunk, "the server closed the connection"
            for frame in decoder.feed(chunk):
                received.append(json.loads(frame))
                self.heard(received[-1])
        writer.join()
        self.connection.close()
        return received


def requests(method: Callable[[int], str], params: Callable[[int], Any]) -> list[dict[str, Any]]:
    opening: list[dict[str, Any]] = [{"jsonrpc": "2.0", "id": "open", "method": "initialize"}]
    return opening + [
        {"jsonrpc": "2.0", "id": n, "method": method(n), "params": params(n)} for n in range(DEPTH)
    ]


MIXED = ("do/now", "do/later", "do/turn", "no/such", "do/plain")
PIPELINES: dict[str, tuple[Callable[[int], str], Callable[[int], Any]]] = {
    "inline": (lambda n: "do/now", lambda n: {"tag": str(n)}),
    "free": (lambda n: "do/later", lambda n: {"tag": str(n)}),
    "one session": (lambda n: "do/turn", lambda n: {"tag": str(n), "sessionId": "s"}),
    "many sessions": (lambda n: "do/turn", lambda n: {"tag": str(n), "sessionId": str(n % 100)}),
    "unknown": (lambda n: "no/such", lambda n: {}),
    "mixed": (
        lambda n: MIXED[n % 5],
        lambda n: {"tag": str(n), "sessionId": str(n % 7)} if n % 5 != 3 else {},
    ),
}


@pytest.mark.parametrize("framing", ["lines", "headers"])
@pytest.mark.parametrize(
    ("pipeline", "loop"),
    [*((name, "uvloop") for name in PIPELINES), ("inline", "asyncio"), ("mixed", "asyncio")],
)
def test_each_of_ten_thousand_is_answered(
    make_world: Any, tmp_path: Path, loop: str, framing: Framing, pipeline: str
) -> None:
    method, params = PIPELINES[pipeline]

    async def main() -> None:
        world = make_world()
        async with listening(world, tmp_path) as path:
            client = Blocking(path, framing)
            answers = await asyncio.to_thread(client.converse, requests(method, params), DEPTH + 1)
        assert answers[0]["id"] == "open"
        assert Counter(m["id"] for m in answers) == Counter(["open", *range(DEPTH)])
        for message in answers[1:]:
            expected = method(message["id"])
            if expected == "no/such":
                assert message["error"]["code"] == -32601
            elif expected == "do/plain":
                assert message["error"]["code"] == -32603
            else:
                assert message["result"]["tag"] == params(message["id"]).get("tag", "")
        if pipeline in {"inline", "one session", "unknown"}:
            assert [m["id"] for m in answers[1:]] == list(range(DEPTH))
        world.log.clear()

    run(loop, main)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("framing", ["lines", "headers"])
def test_with_more_than_may_wait_each_gets_its_result_or_overloaded(
    make_world: Any, tmp_path: Path, loop: str, framing: Framing
) -> None:
    async def main() -> None:
        world = make_world()
        now = asyncio.get_running_loop()
        async with listening(world, tmp_path) as path:
            client = Blocking(path, framing)

            def heard(message: Any) -> None:
                if "error" in message:
                    now.call_soon_threadsafe(world.work.gate("x" * 4096).set)

            client.heard = heard
            every = requests(lambda n: "do/later", lambda n: {"tag": "x" * 4096, "wait": True})
            answers = await asyncio.to_thread(client.converse, every, DEPTH + 1)
        assert Counter(m["id"] for m in answers) == Counter(["open", *range(DEPTH)])
        refused = {m["error"]["data"]["kind"] for m in answers if "error" in m}
        assert refused == {"overloaded"}
        assert sum("result" in m for m in answers) > 7000

    run(loop, main)


class listening:  # noqa: N801  # used like a function
    """The world's server on a real socket."""

    def __init__(self, world: Any, folder: Path) -> None:
        self.world = world
        self.path = str(folder / "s")

    async def __aenter__(self) -> str:
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(self.path)
        bound.listen()
        self.sockets = await serve_socket(self.world.server, bound)
        return self.path

    async def __aexit__(self, *_: object) -> None:
        self.sockets.close()
        assert await self.world.server.flush_and_close(20)
        assert (self.world.server.running, self.world.server.queued) == (0, 0)


# -- exactly one response, whatever happens

THEN = st.sampled_from(["answer", "answer", "fail", "crash", "unencodable"])
REQUEST = st.fixed_dictionaries(
    {
        "method": st.sampled_from(
            ["do/turn", "do/later", "do/turn", "do/later", "do/now", "do/plain", "do/vanish", "no/such"]
        ),
        "then": THEN,
        "wait": st.sampled_from([True, True, False]),
        "onCancel": st.sampled_from(["raise", "convert", "swallow"]),
        "sessionId": st.sampled_from(["s", "t", None]),
    }
)
STEP = st.one_of(
    st.tuples(st.just("ask"), REQUEST),
    st.tuples(st.just("ask many"), st.tuples(REQUEST, st.integers(2, 90))),
    st.tuples(st.just("batch"), st.lists(REQUEST, min_size=1, max_size=5)),
    st.tuples(st.just("cancel"), st.integers(0, 80)),
    st.tuples(st.just("cancel"), st.integers(0, 3)),
    st.tuples(st.just("open gate"), st.integers(0, 80)),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("broken"), st.none()),
)


class Script:
    """Plays steps on one connection and knows every id that was asked."""

    def __init__(self, world: Any, client: Any) -> None:
        self.world = world
        self.client = client
        self.asked: list[int] = []

    def request(self, spec: dict[str, Any]) -> dict[str, Any]:
        id = len(self.asked)
        self.asked.append(id)
        params = {key: value for key, value in spec.items() if key != "method"} | {"tag": str(id)}
        return {"jsonrpc": "2.0", "id": id, "method": spec["method"], "params": params}

    def one(self, choice: int) -> int:
        """One that was asked, rather lately."""
        return self.asked[-1 - choice % len(self.asked)] if self.asked else choice

    async def play(self, what: str, how: Any) -> None:
        if what == "ask":
            self.client.send(self.request(how))
        elif what == "ask many":
            spec, times = how
            self.client.send(*(self.request(spec) for _ in range(times)))
        elif what == "batch":
            self.client.send([self.request(spec) for spec in how])
        elif what == "cancel":
            self.client.tell("$/cancelRequest", {"id": self.one(how)})
        elif what == "open gate":
            self.world.work.gate(str(self.one(how))).set()
        elif what == "broken":
            self.client.send(b"{broken")
        else:
            await turns(random.randint(1, 4))

    def settle(self, how: str) -> None:
        """Let everything end in one of the ways in which nothing is closed."""
        if how == "cancel all":
            for id in self.asked:
                self.client.tell("$/cancelRequest", {"id": id})
            return
        self.world.server.draining = how == "drain"
        for id in self.asked:
            self.world.work.gate(str(id)).set()

    async def leave(self, how: str) -> "asyncio.Future[bool] | None":
        """Close in one of the ways."""
        if how == "server":
            await turns(2)
            return asyncio.ensure_future(self.world.server.flush_and_close(20))
        if how == "end of input":
            for id in self.asked:
                self.world.work.gate(str(id)).set()
            self.client.end.end()
        elif how == "vanish":
            await turns(2)
            self.client.end.close()
        else:
            if how == "shutdown":
                self.client.ask("shutdown", id="shutdown")
            self.client.tell("exit")
        return None


def count(answers: Counter[Any], message: Any) -> None:
    for response in message if isinstance(message, list) else [message]:
        assert ("result" in response) != ("error" in response), response
        answers[response["id"]] += 1


async def turns(count: int) -> None:
    """Let the loop turn *count* times."""
    loop = asyncio.get_running_loop()
    for _ in range(count):
        turned = loop.create_future()
        loop.call_soon(turned.set_result, None)
        await turned


STEPS = st.lists(STEP, min_size=5, max_size=40)
CHECKED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@CHECKED
@given(steps=STEPS, end=st.sampled_from(["gates", "cancel all", "drain"]), seed=st.integers(0, 99))
def test_every_request_gets_exactly_one_response(
    make_world: Any, steps: list[tuple[str, Any]], end: str, seed: int
) -> None:
    async def main() -> None:
        random.seed(seed)
        world = make_world()
        client = await world.open()
        script = Script(world, client)
        for what, how in steps:
            await script.play(what, how)
        script.settle(end)
        await client.barrier()
        await world.until(lambda: world.server.running == world.server.queued == 0)
        last = client.ask("do/now", id="last")
        answers: Counter[Any] = Counter()
        while not answers[last]:
            count(answers, await client.next())
        del answers[None], answers[last]
        assert answers == Counter(script.asked)
        client.end.close()
        await world.until(lambda: world.server.connections == 0)

    run("asyncio", main)


@CHECKED
@given(
    steps=STEPS,
    end=st.sampled_from(["shutdown", "exit", "end of input", "vanish", "server"]),
    seed=st.integers(0, 99),
)
def test_however_a_connection_ends_no_request_is_answered_twice_and_no_task_is_left(
    make_world: Any, steps: list[tuple[str, Any]], end: str, seed: int
) -> None:
    async def main() -> None:
        random.seed(seed)
        world = make_world()
        before = asyncio.all_tasks()
        client = await world.open()
        script = Script(world, client)
        for what, how in steps:
            await script.play(what, how)
        closing = await script.leave(end)
        answers: Counter[Any] = Counter()
        for message in await client.rest():
            count(answers, message)
        del answers[None]
        if end in {"vanish", "server"}:
            # What had not been read when the connection closed was never a request to it.
            assert set(answers) <= set(script.asked)
            assert all(times == 1 for times in answers.values())
        else:
            assert answers == Counter(script.asked + (["shutdown"] if end == "shutdown" else []))
        assert closing is None or await closing
        await world.until(lambda: world.server.connections == world.server.running == 0)
        assert world.server.queued == 0
        assert asyncio.all_tasks() == before

    run("asyncio", main)
