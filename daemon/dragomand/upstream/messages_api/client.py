"""The Messages API as an upstream: one pool of connections, loaded when the first query needs it."""

import asyncio
import importlib
from collections.abc import Callable

import msgspec
from dragoman_protocol.content import Prompt

from dragomand.upstream.interface import AskPermission, Failure, RunSpec, UpstreamError
from dragomand.upstream.limits_heard import OnLimits, nobody
from dragomand.upstream.messages_api.connections import Connections, Http, Reader
from dragomand.upstream.messages_api.endpoint import Call, Endpoint
from dragomand.upstream.messages_api.reading import PlainReading
from dragomand.upstream.messages_api.request import count_body, headers_of
from dragomand.upstream.messages_api.run import BROKEN, Cloud, MessagesRun, failure_of
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
        cloud: Endpoint | None = None,
    ) -> None:
        """Ask *api_key* for the key at every call, or with *cloud* that one; nothing is loaded yet."""
        self._api_key = api_key
        self._cloud = None if cloud is None else Cloud(cloud, self._post)
        self.on_limits: OnLimits = nobody
        """Is told what answers say of the provider's limits, where no admitted call is."""
        self._settings = settings or DirectSettings()
        self._http: Http | None = None
        self._proxied: dict[str, Http] = {}
        """For a cloud's calls, by the proxy that they name."""
        self._loading = asyncio.Lock()
        self._runs: set[MessagesRun] = set()
        self._closed = False

    async def open(self, spec: RunSpec, ask: AskPermission) -> MessagesRun:
        """Return a run; nothing is sent before its first turn. Raises `UpstreamError` (`auth`: no key)."""
        del ask  # there are no tools
        if self._cloud is None:
            self._key()
        http = await self._client()
        run = MessagesRun(
            spec, http, self._api_key, self._settings, self._runs.discard, self.on_limits, self._cloud
        )
        self._runs.add(run)
        return run

    async def count_tokens(self, spec: RunSpec, prompt: Prompt) -> tuple[int, str]:
        """Return what *prompt* would take as the next turn of *spec*, and of which model.

        Raises `UpstreamError`.
        """
        http = await self._client()
        body = count_body(spec, prompt, self._settings)
        name = spec.model or self._settings.model
        cloud = None if self._cloud is None else self._cloud.endpoint
        reading = PlainReading(cloud)  # counting has limits of its own: nobody is told of them
        try:
            async with asyncio.timeout(COUNT_TIMEOUT_S):
                if cloud is None:
                    url = self._settings.url("/v1/messages/count_tokens")
                    await http.post(url, headers_of(self._key()), body, reading)
                else:
                    await self._post(await cloud.count_call(body), reading)
        except BROKEN as broken:
            failure = failure_of(broken)
            if isinstance(broken, TimeoutError) and not broken.args:  # not the connection's
                failure = Failure("overload", f"Tokens were not counted within {COUNT_TIMEOUT_S:g} s.")
            raise UpstreamError(failure) from broken
        if reading.failure is not None:
            raise UpstreamError(reading.failure)
        try:
            if cloud is not None:
                return cloud.counted(bytes(reading.said)), cloud.model(name)
            counted = msgspec.json.decode(reading.said, type=_Counted).input_tokens
        except msgspec.MsgspecError as wrong:
            failure = Failure("protocol", f"The Messages API did not count: {wrong}.")
            raise UpstreamError(failure) from None
        return counted, resolve(name)

    async def close(self) -> None:
        """Break off every call and close every connection."""
        self._closed = True
        for run in list(self._runs):
            await run.close()
        if self._http is not None:
            await self._http.close()
        for http in self._proxied.values():
            await http.close()

    def _key(self) -> str:
        key = self._api_key()
        if key is None:
            raise UpstreamError(Failure("auth", "The daemon holds no API key."))
        return key

    async def _post(self, call: Call, reader: Reader) -> None:
        """Send a cloud's call."""
        http = await self._client(call.proxy)
        try:
            await http.post(call.url, call.headers, call.body, reader)
        except ValueError as wrong:
            raise UpstreamError(Failure("caller", f"{call.url!r} cannot be asked: {wrong}.")) from None

    async def _client(self, proxy: str | None = None) -> Http:
        """Return the connections, made the first time; loading their code does not hold up the loop.

        *proxy* is that of a cloud's call; None: the settings', if there is one.
        """
        http = self._http if proxy is None else self._proxied.get(proxy)
        if http is None:
            async with self._loading:
                http = self._http if proxy is None else self._proxied.get(proxy)
                if http is None:
                    http = await self._made(proxy or self._settings.proxy)
                    if proxy is None:
                        self._http = http
                    else:
                        self._proxied[proxy] = http
        if self._closed:
            raise UpstreamError(Failure("crash", "The daemon is stopping."))
        return http

    async def _made(self, proxy: str | None) -> Http:
        settings = self._settings
        if proxy is None:
            await asyncio.to_thread(importlib.import_module, "aiohappyeyeballs")
            return Connections(
                most=settings.max_connections, connect_timeout_s=settings.connect_timeout_s, keep_s=_KEEP_S
            )
        proxied = await asyncio.to_thread(importlib.import_module, "dragomand.upstream.messages_api.proxied")
        made: Http = proxied.Proxied(
            proxy=proxy,
            most=settings.max_connections,
            connect_timeout_s=settings.connect_timeout_s,
            keep_s=_KEEP_S,
        )
        return made
