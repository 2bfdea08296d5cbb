"""Calls through an HTTP proxy: aiohttp makes them, which alone knows how; loaded only where there is one."""

import asyncio
import contextlib
from collections.abc import Mapping

import aiohttp

from dragomand.upstream.messages_api.connections import TAIL_S, Reader

_READ_BYTES = 262_144


class Proxied:
    """Makes calls (`connections.Http`)."""

    def __init__(self, *, proxy: str, most: int, connect_timeout_s: float, keep_s: float) -> None:
        """Go through *proxy*, with at most *most* connections. Made in a running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=most, keepalive_timeout=keep_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            proxy=proxy,
            read_bufsize=_READ_BYTES,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, reader: Reader) -> None:
        """Make a call; see `connections.Http.post`."""
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                headers_of = response.headers.items()
                reader.head(response.status, {name.lower(): value for name, value in headers_of})
                while reader.state == "reading" and (chunk := await response.content.readany()):
                    reader.body(chunk)
                if reader.state == "whole" and not response.content.is_eof():
                    # The last chunk's end: with it the connection can serve the next call.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TAIL_S):
                            await response.content.readany()
        except aiohttp.ClientError as failed:
            raise ConnectionError(str(failed) or type(failed).__name__) from failed

    async def close(self) -> None:
        """Close every connection; see `connections.Http.close`."""
        await self._session.close()
