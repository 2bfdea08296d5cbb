"""HTTP/1.1 as clients really send it, and as they should not."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from dragoman_sim import Gate, Reply, Rule, Simulator, When
from dragoman_sim.http import Connection, HttpRequest
from hypothesis import given
from hypothesis import strategies as st


class Sink(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.wrote = asyncio.Event()
        self.reading = True
        self.closing = False

    def write(self, data):
        self.written += data
        self.wrote.set()

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    abort = close

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


def connection(serve, max_body=1000):
    made = Connection(serve, set(), max_body)
    sink = Sink()
    made.connection_made(sink)
    return made, sink


REQUESTS = (
    b"POST /a?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nGET /b HTTP/1.1\r\nhost:h\r\n\r\n"
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"
    b"POST /d HTTP/1.1\r\ncontent-length: 2000\r\n\r\n"
    + b"x" * 2000
    + b"GET /e HTTP/1.1\r\nConnection: close\r\n\r\n"
)


@given(st.lists(st.integers(0, len(REQUESTS)), max_size=30))
def test_any_split_of_the_bytes_gives_the_same_requests(cuts):
    got: list[HttpRequest] = []

    def serve(request, _):
        got.append(request)
        return b"<%d>" % len(got)

    made, sink = connection(serve)
    edges = [0, *sorted(cuts), len(REQUESTS)]
    for start, end in itertools.pairwise(edges):
        made.data_received(REQUESTS[start:end])
    assert [(r.method, r.path, r.query, r.body, r.too_large) for r in got] == [
        ("POST", "/a", "x=1", b"hello", False),
        ("GET", "/b", "", b"", False),
        ("POST", "/c", "", b"abc0123456789", False),
        ("POST", "/d", "", b"", True),
        ("GET", "/e", "", b"", False),
    ]
    assert got[0].headers == {"host": "h", "content-length": "5"}
    assert sink.written == b"<1><2><3><4><5>"
    assert sink.closing


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello\r\n\r\n", "request line"),
        (b"GET / HTTP/2\r\n\r\n", "request line"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "without a colon"),
        (b"GET / HTTP/1.1\r\ncontent-length: ten\r\n\r\n", "not a number"),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "without its size"),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n", "without its size"),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffff\r\n\r\n", "too long"),
        (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabcd", "longer than its size"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, "too long"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", "too long"),
    ],
)
def test_what_is_no_http_is_refused_and_the_connection_closed(data, words):
    made, sink = connection(lambda request, _: b"served")
    made.data_received(data)
    head, _, body = sink.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert words in json.loads(body)["error"]["message"]
    assert sink.closing
    made.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert b"served" not in sink.written


def test_expect_100_continue():
    made, sink = connection(lambda request, _: b"<answer>")
    made.data_received(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\ncontent-length: 1\r\n\r\n")
    assert sink.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    made.data_received(b"x")
    assert sink.written.endswith(b"<answer>")


async def test_a_slow_reader_is_waited_for():
    made, sink = connection(lambda request, _: b"<answer>")
    made.pause_writing()
    made.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert sink.written == b""
    made.data_received(b"POST / HTTP/1.1\r\ncontent-length: 2000000\r\n\r\n" + b"x" * 2_000_000)
    assert not sink.reading
    made.resume_writing()
    assert sink.written == b"<answer><answer>"
    assert sink.reading


async def test_an_answer_that_is_being_written_waits_for_a_slow_reader_and_ends_with_the_connection():
    async def answer(connection):
        await connection.write(b"one")
        await connection.write(b"two")

    made, sink = connection(lambda request, connection: answer(connection))
    made.pause_writing()
    made._answer(HttpRequest("GET", "/", "", {}, b""))
    await sink.wrote.wait()
    assert (sink.written, made.answering) == (b"one", True)
    made.connection_lost(None)
    assert made.closed
    await made.aclose()
    assert sink.written == b"one"
    with pytest.raises(ConnectionResetError):
        await made.write(b"late")
    made.close()
    made.reset()
    made.abort()


async def test_answers_of_a_pipeline_come_in_order(http, key, message_body):
    rules = [Rule(When(text="wait"), Reply(["slow", Gate("g")]))]
    async with Simulator(rules) as sim:
        exchange = await http.connect(sim.url)
        for prompt in ("quick", "wait", "last"):
            body = message_body(prompt, stream=True)
            await http.send(sim.url, "POST", "/v1/messages", body, on=exchange, x_api_key=key)
        assert (await exchange.response()).text() == "You said: quick"
        await sim.gate("g").wait_arrived()
        assert len(sim.messages) == 2
        await sim.gate("g").open()
        assert (await exchange.response()).text() == "slow"
        assert (await exchange.response()).text() == "You said: last"


async def test_connection_close_is_kept_after_a_slow_answer_too(http, key, message_body):
    async with Simulator([Rule(reply=Reply(["slow"], delay_ms=1))]) as sim:
        body = message_body("x", stream=True)
        exchange = await http.send(sim.url, "POST", "/v1/messages", body, x_api_key=key, connection="close")
        assert (await exchange.response()).text() == "slow"
        assert await exchange.reader.read() == b""
