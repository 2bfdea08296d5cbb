"""Through a proxy: the whole URL is asked for there, and nothing goes past it."""

import asyncio
from typing import Any

from dragoman_protocol.stream import TextDelta
from dragoman_sim import Gate, Reply, Rule, Simulator, When


class Proxy:
    """A proxy for plain HTTP that serves one request a connection."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        _method, url, _ = head.split(b" ", 2)
        self.asked.append(url.decode())
        host, _, path = url.decode().removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        onward, back = await asyncio.open_connection(name, int(port))
        first = head.replace(url, b"/" + path.encode(), 1)
        back.write(first.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        here = asyncio.create_task(self._copy(reader, back))
        await self._copy(onward, writer)
        here.cancel()

    async def _copy(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                to.write(data)
        except OSError:
            pass
        finally:
            to.close()


async def test_a_turn_through_a_proxy(kit: Any) -> None:
    async with Proxy() as proxy, Simulator([Rule(When(text="hi"), Reply(["Hello ", "there"]))]) as sim:
        async with kit.api(sim.url, proxy=proxy.url) as api:
            run = await api.open(kit.spec(), kit.nobody)
            outcome = await run.send("hi", "m", kit.Events())
            assert (outcome.status, outcome.text) == ("completed", "Hello there")
        async with kit.api(sim.url, proxy=proxy.url) as api:
            assert (await api.count_tokens(kit.spec(), "hi"))[0] > 0
    assert proxy.asked == [f"{sim.url}/v1/messages", f"{sim.url}/v1/messages/count_tokens"]


async def test_an_interrupt_reaches_through_it(kit: Any) -> None:
    rules = [Rule(When(text="slowly"), Reply(["half", Gate("g")]))]
    async with Proxy() as proxy, Simulator(rules) as sim, kit.api(sim.url, proxy=proxy.url) as api:
        run = await api.open(kit.spec(), kit.nobody)
        events = kit.Events()
        turn = asyncio.create_task(run.send("slowly", "m", events))
        await events.wait_for(TextDelta)
        assert await run.interrupt()
        assert (await turn).status == "interrupted"


async def test_a_proxy_that_is_not_there(kit: Any) -> None:
    async with kit.api("http://127.0.0.1:9", proxy="http://127.0.0.1:9") as api:
        run = await api.open(kit.spec(), kit.nobody)
        outcome = await run.send("hi", "m", kit.Events())
    assert outcome.failure.category == "overload"
    assert "cannot be reached" in outcome.failure.message
