"""Whom a request is for, by its beginning; the rest is in test_http and test_connection, over sockets."""

from typing import Any

import pytest
from dragomand.gateway.asking import Incoming


class Content:
    """What has come of a body."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)

    async def readany(self) -> bytes:
        return self.parts.pop(0) if self.parts else b""


class Request:
    """As much of a request as is needed."""

    def __init__(self, *parts: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.content = Content(*parts)


@pytest.mark.parametrize(
    ("said", "model"),
    [
        (b'{"model":"claude-opus-5-5","max_tokens":1}', "claude-opus-5-5"),
        (b'{ "max_tokens": 1, "model" : "sonnet" }', "sonnet"),
        (b'{"system":"say \\"model\\":\\"haiku\\"","model":"opus"}', "opus"),
        (b'{"max_tokens":1}', None),
        (b'{"model":"' + b"x" * 300 + b'"}', None),
        (b"", None),
    ],
)
async def test_the_beginning_says_whom_it_is_for(said: bytes, model: str | None) -> None:
    request: Any = Request(said, b"the rest")
    incoming = Incoming(request)
    assert await incoming.begin() is None
    assert incoming.model == model
    assert await incoming.whole() == said + b"the rest"
    assert await incoming.whole() == said + b"the rest"
