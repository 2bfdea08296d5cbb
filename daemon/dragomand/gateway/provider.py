"""The Messages API as the gateway asks it: where it is, how long it may take, one pool of connections."""

import asyncio
import contextlib
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from .connection import MOST_HEADER

CONNECT_S = 15.0
"""How long, in seconds, connecting to the provider may take."""
_LONG_BODY = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where calls go, and how long an answer may be silent."""

    base_url: str
    proxy: str | None = None
    ca_file: str | None = None
    """Certificates that are trusted too."""
    first_byte_s: float = 600.0
    """Longest wait for the head of an answer."""
    idle_s: float = 300.0
    """Longest silence in the middle of one."""
    pings_s: float = 300.0
    """Longest time in which a stream brings nothing but pings."""


class Connections:
    """Asks a provider. Made in a running loop."""

    def __init__(self, provider: Provider) -> None:
        """Nothing is connected yet."""
        self.provider = provider
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=trust(provider)),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_field_size=MOST_HEADER,
            max_line_size=MOST_HEADER,
        )

    @asynccontextmanager
    async def ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, asyncio.Timeout]]:
        """Ask; the block has the answer's head, and the timer of its silence."""
        provider = self.provider
        async with (
            asyncio.timeout(provider.first_byte_s) as limit,
            self._session.request(
                method,
                provider.base_url.rstrip("/") + target,
                data=_sendable(body),
                headers=headers,
                proxy=provider.proxy,
                allow_redirects=False,
            ) as answer,
        ):
            yield answer, limit

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


def _sendable(body: bytes) -> bytes | io.BytesIO | None:
    """Return *body* as aiohttp wants it: a long one is written piece by piece, so that others get a turn."""
    return io.BytesIO(body) if len(body) > _LONG_BODY else body or None


def trust(provider: Provider) -> "ssl.SSLContext | bool":
    """Return whose certificates are trusted."""
    if provider.ca_file is None or not provider.base_url.startswith("https:"):
        return True
    context = ssl.create_default_context()
    with contextlib.suppress(OSError):  # as Claude Code itself: a file that cannot be used is passed over
        context.load_verify_locations(provider.ca_file)
    return context
