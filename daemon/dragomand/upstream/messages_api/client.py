"""The Messages API as an upstream: one pool of connections, loaded when the first query needs it."""

import asyncio
import importlib
from collections.abc import Callable

import msgspec
from dragoman_protocol.content import Prompt

from dragomand.upstream.interface import AskPermission, Failure, RunSpec, UpstreamError
from dragomand.upstream.limits_heard import OnLimits, nobody
from dragomand.upstream.messages_api.connections import Connections, Http
from dragomand.upstream.messages_api.reading import PlainReading
from dragomand.upstream.messages_api.request import count_body, headers_of
from dragomand.upstream.messages_api.run import BROKEN, MessagesRun, failure_of
from dragomand.upstream.messages_api.settings import DirectSettings
from dragomand.upstream.models import resolve

_KEEP_S = 30.0
COUNT_TIMEOUT_S = 30.0
"""How long counting tokens may take, in seconds."""


class _Counted(msgspec.Struct):
    input_tokens: int


class MessagesApi:
    """Answers turns by the API itself (`Upstream`), with an API key: never with a subscription's token."""

    def __init__(
        self,
        *,
        api_key: Callable[[], str | None],
        settings: DirectSettings | None = None,
    ) -> None:
        """Ask *api_key* for the key at every call; nothing is loaded or connected yet."""
        self._api_key = api_key
        self.on_limits: OnLimits = nobody
        """Is told what answers say of the provider's limits, where no admitted call is."""
        self._settings = settings or DirectSettings()
        self._http: Http | None = None
        self._loading = asyncio.Lock()
        self._runs: set[MessagesRun] = set()
        self._closed = False

    async def open(self, spec: RunSpec, ask: AskPermission) -> MessagesRun:
        """Return a run; nothing is sent before its first turn. Raises `UpstreamError` (`auth`: no key)."""
        del ask  # there are no tools
        self._key()
        http = await self._client()
        run = MessagesRun(
            spec, http, self._api_key, self._settings, self._runs.discard, self.on_limits
        )
        self._runs.add(run)
        return run

    async def count_tokens(self, spec: RunSpec, prompt: Prompt) -> tuple[int, str]:
        """Return what *prompt* would take as the next turn of *spec*, and of which model.

        Raises `UpstreamError`.
        """
        http = await self._client()
        body = count_body(spec, prompt, self._settings)
        url = self._settings.url("/v1/messages/count_tokens")
        reading = PlainReading()
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                await http.post(url, headers_of(self._key()), body, reading)
        except BROKEN as broken:
            failure = failure_of(broken)
            if isinstance(broken, TimeoutError) and not broken.args:  # not the connection's
                failure = Failure("overload", f"Tokens were not counted within {COUNT_TIMEOUT_S:g} s.")
            raise UpstreamError(failure) from broken
        if reading.failure is not None:
            raise UpstreamError(reading.failure)
        try:
            counted = msgspec.json.decode(reading.said, type=_Counted).input_tokens
        except msgspec.MsgspecError as wrong:
            failure = Failure("protocol", f"The Messages API did not count: {wrong}.")
            raise UpstreamError(failure) from None
        return counted, resolve(spec.model or self._settings.model)

    async def close(self) -> None:
        """Break off every call and close every connection."""
        self._closed = True
        for run in list(self._runs):
            await run.close()
        if self._http is not None:
            await self._http.close()

    def _key(self) -> str:
        key = self._api_key()
        if key is None:
            raise UpstreamError(Failure("auth", "The daemon holds no API key."))
        return key

    async def _client(self) -> Http:
        """Return the connections, made the first time; loading their code does not hold up the loop."""
        if self._http is None:
            async with self._loading:
                if self._http is None:
                    self._http = await self._made()
        if self._closed:
            raise UpstreamError(Failure("crash", "The daemon is stopping."))
        return self._http

    async def _made(self) -> Http:
        settings = self._settings
        if settings.proxy is None:
            await asyncio.to_thread(importlib.import_module, "aiohappyeyeballs")
            return Connections(
                most=settings.max_connections, connect_timeout_s=settings.connect_timeout_s, keep_s=_KEEP_S
            )
        proxied = await asyncio.to_thread(importlib.import_module, "dragomand.upstream.messages_api.proxied")
        made: Http = proxied.Proxied(
            proxy=settings.proxy,
            most=settings.max_connections,
            connect_timeout_s=settings.connect_timeout_s,
            keep_s=_KEEP_S,
        )
        return made
