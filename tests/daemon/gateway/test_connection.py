"""Over the real socket: what is no proper request, what is slow, what comes in another shape than usual."""

import asyncio
import contextlib
import gzip
import json
from typing import Any

import pytest
from dragoman_sim import Gate, Reply, Rule, Simulator, When
from dragomand.gateway import asking, connection

PATIENCE_S = 20.0


class Wire:
    """A program with a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self.reader, self.writer, self.token = reader, writer, token

    def say(self, text: "str | bytes") -> None:
        data = text if isinstance(text, bytes) else text.replace("\n", "\r\n").encode("latin-1")
        self.writer.write(data)

    def ask(self, *lines: str, first: str = "POST /v1/messages HTTP/1.1", body: bytes = b"") -> None:
        """Send a head, with the token, and a body."""
        head = [first, "host: dragoman.invalid", f"x-api-key: {self.token}", *lines, "", ""]
        self.say("\n".join(head))
        self.say(body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return the next response's status and headers."""
        async with asyncio.timeout(PATIENCE_S):
            said = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in said[1:] if line)
        return int(said[0].split(" ")[1]), headers

    async def answer(self) -> tuple[int, bytes]:
        """Return the next response, of a known length."""
        status, headers = await self.head()
        async with asyncio.timeout(PATIENCE_S):
            return status, await self.reader.readexactly(int(headers.get("content-length", "0")))

    async def ended(self) -> bytes:
        """Return what comes until the gateway ends the connection."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""


@pytest.fixture
async def dial(at: Any) -> Any:
    """`sim, connect = await dial(rules)`: a gateway in front of a simulator, and connections to it."""
    open_ones: list[Wire] = []

    async def dial(rules: Any = (), **made: Any) -> Any:
        sim = await at.stack.enter_async_context(Simulator(rules))
        at.make(base_url=sim.url, **made)
        access = await at.gateway.issue("a program", False)

        async def connect() -> Wire:
            wire = Wire(*await asyncio.open_unix_connection(access.unix_socket), access.token)
            open_ones.append(wire)
            return wire

        return sim, connect

    yield dial
    for wire in open_ones:
        wire.writer.close()


def body(at: Any, **more: Any) -> bytes:
    return json.dumps({**at.ask, **more}).encode()


SMUGGLED = "GET /v1/models HTTP/1.1\nhost: x\n\n"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["content-length: 5", "transfer-encoding: chunked"], id="two lengths"),
        pytest.param(["transfer-encoding: chunked", "content-length: 5"], id="two lengths, the other way"),
        pytest.param(["content-length: 5", "content-length: 6"], id="a length twice"),
        pytest.param(["content-length: 5, 6"], id="lengths in one"),
        pytest.param(["content-length: +5"], id="a sign"),
        pytest.param(["content-length: -1"], id="less than nothing"),
        pytest.param(["content-length: 0x5"], id="another base"),
        pytest.param(["transfer-encoding: identity, chunked, identity"], id="not chunked last"),
        pytest.param(["transfer-encoding : chunked"], id="a space before the colon"),
        pytest.param(["x-app: a\0b"], id="a null"),
        pytest.param([" folded: yes"], id="a folded line"),
        pytest.param([f"x-app: {'a' * (connection.MOST_HEADER + 1)}"], id="a long line"),
        pytest.param([f"x-{number}: a" for number in range(200)], id="many lines"),
    ],
)
async def test_a_head_that_can_be_read_in_two_ways(at: Any, dial: Any, lines: list[str]) -> None:
    sim, connect = await dial()
    wire = await connect()
    wire.ask(*lines, body=b"hello" + SMUGGLED.encode())
    status, _ = await wire.head()
    assert status == 400
    assert b"HTTP/1." not in await wire.ended(), "what follows is no request"
    assert sim.requests == []


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ("POST http://127.0.0.1:9/v1/messages HTTP/1.1", 404),
        ("POST //evil.example/v1/messages HTTP/1.1", 404),
        ("POST /v1/../v1/messages HTTP/1.1", 404),
        ("POST /v1/messages/ HTTP/1.1", 404),
        ("POST /v1/%6dessages HTTP/1.1", 404),
        ("POST /v1/messages#x HTTP/1.1", 404),
        ("POST /v1/messages?a=http://x HTTP/1.1", 404),
        ("GET /v1/models/.. HTTP/1.1", 404),
        ("GET /v1/files HTTP/1.1", 404),
        ("PUT /v1/messages HTTP/1.1", 404),
        ("OPTIONS /v1/messages HTTP/1.1", 404),
        ("OPTIONS * HTTP/1.1", 404),
        ("CONNECT evil.example:443 HTTP/1.1", 404),
        ("TRACE /v1/messages HTTP/1.1", 404),
        ("POST /v1/messages HTTP/2.0", 400),
        ("POST /v1/messages", 400),
    ],
)
async def test_what_is_no_way_in(at: Any, dial: Any, first: str, status: int) -> None:
    sim, connect = await dial()
    wire = await connect()
    wire.ask("content-length: 0", first=first)
    assert (await wire.head())[0] == status
    assert sim.requests == []


async def test_a_head_is_answered_without_a_body(at: Any, dial: Any) -> None:
    _, connect = await dial()
    wire = await connect()
    wire.ask(first="HEAD /v1/messages HTTP/1.1")
    assert (await wire.head())[0] == 404
    wire.ask(first="GET /v1/models HTTP/1.1")
    assert (await wire.head())[0] == 200  # nothing of a body was in between


async def test_what_is_between_two_hops_stays_there(at: Any, dial: Any) -> None:
    sim, connect = await dial()
    wire = await connect()
    said = body(at)
    lines = ["connection: keep-alive, x-app", "te: trailers", "keep-alive: timeout=5",
             "proxy-authorization: x", "proxy-connection: keep-alive", "upgrade: h2c", "http2-settings: AAA",
             "x-forwarded-for: me", "forwarded: for=me", "anthropic-beta: one",
             "anthropic-beta: two"]  # fmt: skip
    wire.ask(*lines, f"content-length: {len(said)}", body=said)
    status, headers = await wire.head()
    assert status == 200
    assert not {"upgrade", "connection", "keep-alive"} & headers.keys()
    sent = sim.messages[0].headers
    assert not {"te", "upgrade", "http2-settings", "proxy-authorization", "forwarded"} & sent.keys()
    assert "x-forwarded-for" not in sent
    assert sent["anthropic-beta"] == "one, two"
    assert sim.messages[0].body == said


async def test_a_body_in_chunks(at: Any, dial: Any) -> None:
    sim, connect = await dial()
    wire = await connect()
    said = body(at)
    wire.ask("transfer-encoding: chunked")
    for start in range(0, len(said), 20):
        part = said[start : start + 20]
        wire.say(b"%x\r\n%b\r\n" % (len(part), part))
    wire.say("0\nx-trailer: evil\n\n")
    assert (await wire.head())[0] == 200
    assert sim.messages[0].body == said
    assert "x-trailer" not in sim.messages[0].headers


async def test_a_compressed_body_arrives_as_what_it_means(at: Any, dial: Any) -> None:
    sim, connect = await dial()
    wire = await connect()
    said = gzip.compress(body(at))
    wire.ask("content-encoding: gzip", f"content-length: {len(said)}", body=said)
    assert (await wire.head())[0] == 200
    assert sim.messages[0].body == body(at)
    assert "content-encoding" not in sim.messages[0].headers


async def test_a_compressed_body_counts_by_its_length(
    at: Any, dial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST_BODY", 100_000)
    sim, connect = await dial()
    wire = await connect()
    said = gzip.compress(b" " * 10_000_000)
    wire.ask("content-encoding: gzip", f"content-length: {len(said)}", body=said)
    assert (await wire.head())[0] == 413
    assert sim.requests == []


async def test_a_long_body(at: Any, dial: Any) -> None:
    sim, connect = await dial()
    wire = await connect()
    said = body(at, system="x" * 3_000_000)
    wire.ask(f"content-length: {len(said)}", body=said)
    assert (await wire.answer())[0] == 200
    assert sim.messages[0].body == said


async def test_whoever_waits_to_be_let_in_is(at: Any, dial: Any) -> None:
    sim, connect = await dial()
    wire = await connect()
    said = body(at)
    wire.ask("expect: 100-continue", f"content-length: {len(said)}")
    async with asyncio.timeout(PATIENCE_S):
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert sim.requests == []
    wire.say(said)
    assert (await wire.answer())[0] == 200
    wire.ask(first="GET /v1/models HTTP/1.1")
    assert (await wire.answer())[0] == 200


async def test_whoever_is_not_let_in_is_told_before_its_body(at: Any, dial: Any) -> None:
    _, connect = await dial()
    wire = await connect()
    wire.token = "nobody's"
    wire.ask("expect: 100-continue", "content-length: 10000000")
    assert (await wire.head())[0] == 401


async def test_http_1_0(at: Any, dial: Any) -> None:
    _, connect = await dial([Rule(When(), Reply(["one ", "two"]))])
    wire = await connect()
    said = body(at, stream=True)
    wire.ask(f"content-length: {len(said)}", first="POST /v1/messages HTTP/1.0", body=said)
    status, headers = await wire.head()
    assert status == 200
    assert "transfer-encoding" not in headers
    assert (await wire.ended()).rstrip().endswith(b'data: {"type":"message_stop"}')


async def test_requests_one_behind_the_other_are_answered_in_order(at: Any, dial: Any) -> None:
    sim, connect = await dial([Rule(When(text="first"), Reply([Gate("first"), "one"]))])
    wire = await connect()
    for words in ("first", "second"):
        said = body(at, messages=[{"role": "user", "content": words}])
        wire.ask(f"content-length: {len(said)}", body=said)
    await sim.wait_for(1)
    assert len(sim.messages) == 1
    await sim.gate("first").open()
    first, second = await wire.answer(), await wire.answer()
    assert b"one" in first[1]
    assert b"second" in second[1]


async def test_a_head_that_does_not_come(at: Any, dial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    monkeypatch.setattr(connection, "FIRST_S", 0.3)
    _, connect = await dial()
    silent, slow, second = await connect(), await connect(), await connect()
    slow.say("POST /v1/messages HTTP/1.1\nhost: x\nx-app: ")
    second.ask(first="GET /v1/models HTTP/1.1")
    assert (await second.answer())[0] == 200
    second.say("GET /v1/models HTTP/1.1\nhost: ")
    for wire in (silent, slow, second):
        assert await wire.ended() == b""


async def test_the_heads_deadline_is_not_the_answers(
    at: Any, dial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.1)
    sim, connect = await dial([Rule(When(), Reply([Gate("middle"), "one"]))])
    wire = await connect()
    said = body(at)
    wire.ask(f"content-length: {len(said)}")
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0.3, passed.set)
    await passed.wait()  # longer than the head may take
    wire.say(said)
    await sim.wait_for(1)
    await sim.gate("middle").open()
    assert (await wire.answer())[0] == 200


async def test_so_many_connections(at: Any, dial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 2)
    _, connect = await dial()
    wires = [await connect(), await connect()]
    for wire in wires:
        wire.ask(first="GET /v1/models HTTP/1.1")
        assert (await wire.answer())[0] == 200
    assert await (await connect()).ended() == b""
    wires[0].writer.close()
    await at.until(lambda: len(at.gateway._http._http.connections) == 1)
    wire = await connect()
    wire.ask(first="GET /v1/models HTTP/1.1")
    assert (await wire.answer())[0] == 200


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("gate", ["before", "after"])
async def test_a_caller_that_goes_ends_the_call(at: Any, dial: Any, reset: bool, gate: str) -> None:
    parts = [Gate("before"), "one ", Gate("after"), "two"]
    sim, connect = await dial([Rule(When(), Reply(parts))])
    wire = await connect()
    said = body(at, stream=gate == "after")
    wire.ask(f"content-length: {len(said)}", body=said)
    record = await sim.wait_for(1)
    if gate == "after":
        await sim.gate("before").open()
        await wire.head()
        async with asyncio.timeout(PATIENCE_S):
            await wire.reader.readuntil(b"one ")
    if reset:
        wire.writer.transport.abort()
    else:
        wire.writer.close()
    assert await sim.wait_ended(record) == "abandoned"
    await at.until(lambda: at.admission.calls_running == 0)
    assert at.calls.total.failed == 1


async def test_a_caller_that_goes_while_it_waits(at: Any, dial: Any) -> None:
    sim, connect = await dial([Rule(When(), Reply([Gate("one"), "one"]))], max_calls=1)
    said = body(at)
    first, second = await connect(), await connect()
    first.ask(f"content-length: {len(said)}", body=said)
    await sim.wait_for(1)
    second.ask(f"content-length: {len(said)}", body=said)
    await at.until(lambda: at.admission.calls_queued == 1)
    second.writer.close()
    await at.until(lambda: at.admission.calls_queued == 0)
    await sim.gate("one").open()
    assert (await first.answer())[0] == 200
    assert len(sim.messages) == 1


async def test_a_long_answer_is_never_held_whole(at: Any, dial: Any) -> None:
    """RV.14: 10 MB go by a slow reader; what waits for it stays small, and the provider waits too."""
    whole = 10_000_000
    _, connect = await dial([Rule(When(), Reply(["x" * whole], piece_chars=1000))])
    wire = await connect()
    said = body(at, stream=True)
    wire.ask(f"content-length: {len(said)}", body=said)
    await wire.head()
    (served,) = at.gateway._http._http.connections
    read, held = 0, 0
    while read < whole:
        async with asyncio.timeout(PATIENCE_S):
            read += len(await wire.reader.readexactly(50_000))
        held = max(held, served.transport.get_write_buffer_size())
    assert 0 < held < 1_000_000
