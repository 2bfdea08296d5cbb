"""A plain HTTP client that sees what a well-behaved one hides: cuts, resets, single chunks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

DEADLINE_S = 20.0
KEY = "sk-ant-api03-for-the-tests"


@dataclass
class Response:
    """What came, and how it ended."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: Literal["whole", "cut", "reset"] = "whole"

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[tuple[str, Any]]:
        """Every event of the stream, its data decoded."""
        return [
            (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
            for name, data in (block.split("\n") for block in self.body.decode().split("\n\n") if block)
        ]

    def text(self) -> str:
        """The text of a stream's deltas."""
        deltas = (data["delta"] for name, data in self.events() if name == "content_block_delta")
        return "".join(delta.get("text", "") for delta in deltas)


class Exchange:
    """One request under way on a connection of its own, or on one that stays."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; b"" is its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def head(self) -> Response:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        return Response(int(lines[0].split(" ")[1]), headers)

    async def response(self, *, has_body: bool = True) -> Response:
        """The whole response, or what came of it."""
        response = Response()
        try:
            async with asyncio.timeout(DEADLINE_S):
                response = await self.head()
                if response.headers.get("transfer-encoding") == "chunked":
                    while part := await self.chunk():
                        response.body += part
                elif has_body:
                    missing = int(response.headers["content-length"])
                    while missing > 0 and (part := await self.reader.read(missing)):
                        response.body += part
                        missing -= len(part)
                    response.ended = "cut" if missing else "whole"
        except asyncio.IncompleteReadError:
            response.ended = "cut"
        except ConnectionResetError:
            response.ended = "reset"
        return response

    async def until(self, wanted: bytes) -> bytes:
        """The chunks up to the one that contains *wanted*."""
        got = b""
        async with asyncio.timeout(DEADLINE_S):
            while wanted not in got:
                part = await self.chunk()
                assert part, f"the stream ended without {wanted!r}: {got!r}"
                got += part
        return got

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.wait([asyncio.ensure_future(self.writer.wait_closed())], timeout=DEADLINE_S)


class Http:
    """Sends requests, each on a connection of its own unless one is given."""

    def __init__(self) -> None:
        self.open: list[Exchange] = []

    async def connect(self, url: str) -> Exchange:
        where = urlsplit(url)
        exchange = Exchange(*await asyncio.open_connection(where.hostname, where.port))
        self.open.append(exchange)
        return exchange

    async def send(
        self,
        url: str,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        on: Exchange | None = None,
        **headers: str,
    ) -> Exchange:
        exchange = on or await self.connect(url)
        lines = {"host": "127.0.0.1", "content-length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value)
        exchange.writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        await exchange.writer.drain()
        return exchange

    async def ask(self, url: str, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        exchange = await self.send(url, method, path, body, **headers)
        return await exchange.response(has_body=method != "HEAD")

    async def start(self, url: str, prompt: Any, *, stream: bool = True, **more: Any) -> Exchange:
        """Send a prompt (a text, or the messages)."""
        body = message(prompt, stream=stream, **more)
        return await self.send(url, "POST", "/v1/messages?beta=true", body, x_api_key=KEY)

    async def message(self, url: str, prompt: Any, *, stream: bool = True, **more: Any) -> Response:
        """Send a prompt, and wait for the answer."""
        return await (await self.start(url, prompt, stream=stream, **more)).response()


def message(prompt: Any, **more: Any) -> bytes:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    body = {"model": "claude-opus-5-5", "max_tokens": 100, "messages": messages, **more}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


@pytest.fixture(name="key")
def _key() -> str:
    return KEY


@pytest.fixture(name="message_body")
def _message_body() -> Callable[..., bytes]:
    return message


@pytest.fixture
async def http() -> Any:
    http = Http()
    yield http
    for exchange in http.open:
        await exchange.close()
