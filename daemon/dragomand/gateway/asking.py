"""A request as it comes in: its beginning, whom it is for, its whole body within bounds."""

import asyncio
import re

import aiohttp
from aiohttp import web

from .gate import MOST_BODY, Refusal, too_large

BODY_S = 60.0
"""How long, in seconds, a request's body may take to come."""
_MODEL = re.compile(rb'"model"\s*:\s*"([A-Za-z0-9._:@/\[\]-]{1,200})"')
_WITHIN = 1 << 20


class Incoming:
    """One request's body. Its beginning is read at once, the rest when it is asked for."""

    def __init__(self, request: web.BaseRequest) -> None:
        """Nothing is read yet."""
        self._request = request
        self._body = bytearray()
        self._whole: bytes | Refusal | None = None

    async def begin(self) -> Refusal | None:
        """Wait for the beginning: what one connection's buffer holds, no more."""
        request = self._request
        waits = request.headers.get("Expect", "").lower() == "100-continue"
        if waits and request.version >= aiohttp.HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # it is no part of the answer
        try:
            async with asyncio.timeout(BODY_S):
                self._body += await request.content.readany()
        except TimeoutError:
            return _too_slow()
        return too_large() if len(self._body) > MOST_BODY else None

    @property
    def model(self) -> str | None:
        """Whom it is for, if its beginning says so."""
        found = _MODEL.search(self._body, 0, _WITHIN)
        return None if found is None else found[1].decode()

    async def whole(self) -> bytes | Refusal:
        """Return the body, within its bounds of size and time."""
        if self._whole is None:
            self._whole = await self._read()
            self._body.clear()
        return self._whole

    async def _read(self) -> bytes | Refusal:
        body = self._body
        try:
            async with asyncio.timeout(BODY_S):  # anew: the wait for the permit does not count
                while part := await self._request.content.readany():
                    body += part
                    if len(body) > MOST_BODY:
                        return too_large()
        except TimeoutError:
            return _too_slow()
        return bytes(body)


def _too_slow() -> Refusal:
    return Refusal(408, "timeout_error", f"the request was not complete after {BODY_S:g} s.")
