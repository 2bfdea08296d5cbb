"""The Messages API as an upstream: one pool of connections, loaded when the first query needs it."""

import asyncio
import importlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from dragoman_protocol.content import Prompt

from dragomand.upstream.interface import AskPermission, Failure, RunSpec, UpstreamError
from dragomand.upstream.limits_heard import OnLimits, nobody
from dragomand.upstream.messages_api.request import count_body, headers_of
from dragomand.upstream.messages_api.run import MessagesRun, client_error, heard_of, read_some, refused
from dragomand.upstream.messages_api.settings import DirectSettings
from dragomand.upstream.models import resolve

if TYPE_CHECKING:
    import aiohttp

_READ_BYTES = 262_144
_KEEP_S = 30.0
COUNT_TIMEOUT_S = 30.0
"""How long counting tokens may take, in seconds."""


class _Counted(msgspec.Struct):
    input_tokens: int


class MessagesApi:
    """Answers turns by the API itself (`Upstream`), with an API key: never with a subscription's token."""

    def __init__(self, *, api_key: Callable[[], str | None], settings: DirectSettings | None = None) -> None:
        """Ask *api_key* for the key at every call; nothing is loaded or connected yet."""
        self._api_key = api_key
        self._settings = settings or DirectSettings()
        self.on_limits: OnLimits = nobody
        """Is told what every answer says of the provider's limits."""
        self._session: aiohttp.ClientSession | None = None
        self._loading = asyncio.Lock()
        self._runs: set[MessagesRun] = set()
        self._closed = False

    async def open(self, spec: RunSpec, ask: AskPermission) -> MessagesRun:
        """Return a run; nothing is sent before its first turn. Raises `UpstreamError` (`auth`: no key)."""
        del ask  # there are no tools
        self._key()
        session = await self._client()
        run = MessagesRun(spec, session, self._api_key, self._settings, self._runs.discard, self.on_limits)
        self._runs.add(run)
        return run

    async def count_tokens(self, spec: RunSpec, prompt: Prompt) -> tuple[int, str]:
        """Return what *prompt* would take as the next turn of *spec*, and of which model.

        Raises `UpstreamError`.
        """
        session = await self._client()
        model, sent_order = resolve(spec.model or self._settings.model), time.monotonic_ns()
        body = count_body(spec, prompt, self._settings)
        url = self._settings.url("/v1/messages/count_tokens")
        try:
            async with (
                asyncio.timeout(COUNT_TIMEOUT_S),
                session.post(url, data=body, headers=headers_of(self._key()), allow_redirects=False) as got,
            ):
                # (Counting has limits of its own: what its headers say is not true of messages.)
                if got.status != 200:
                    raise UpstreamError(await refused(got, heard_of(got, sent_order, model), nobody))
                said = await read_some(got)
        except TimeoutError:
            failure = Failure("overload", f"Tokens were not counted within {COUNT_TIMEOUT_S:g} s.")
            raise UpstreamError(failure) from None
        except (client_error(), OSError) as broken:
            failure = Failure("overload", f"The Messages API cannot be reached: {broken}.")
            raise UpstreamError(failure) from broken
        try:
            counted = msgspec.json.decode(said, type=_Counted).input_tokens
        except msgspec.MsgspecError as wrong:
            failure = Failure("protocol", f"The Messages API did not count: {wrong}.")
            raise UpstreamError(failure) from None
        return counted, model

    async def close(self) -> None:
        """Break off every call and close every connection."""
        self._closed = True
        for run in list(self._runs):
            await run.close()
        if self._session is not None:
            await self._session.close()

    def _key(self) -> str:
        key = self._api_key()
        if key is None:
            raise UpstreamError(Failure("auth", "The daemon holds no API key."))
        return key

    async def _client(self) -> "aiohttp.ClientSession":
        """Return the pool, made the first time; loading its code does not hold up the loop."""
        if self._session is None:
            async with self._loading:
                if self._session is None:
                    await asyncio.to_thread(importlib.import_module, "aiohttp")
                    self._session = self._connect()
        if self._closed:
            raise UpstreamError(Failure("crash", "The daemon is stopping."))
        return self._session

    def _connect(self) -> "aiohttp.ClientSession":
        import aiohttp

        settings = self._settings
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.max_connections, keepalive_timeout=_KEEP_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
            proxy=settings.proxy,
            read_bufsize=_READ_BYTES,
        )
