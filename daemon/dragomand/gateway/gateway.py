"""When there is a gateway and for whom: it opens with the first grant, closes a while after the last."""

import asyncio
import importlib
import importlib.util
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dragoman_protocol.gateway import (
    GatewayRevokeResult,
    GatewayTokenResult,
    GatewayTokensResult,
    IssuedToken,
)

from dragomand.engine.call import Grant
from dragomand.engine.calls import Calls
from dragomand.engine.errors import EngineError
from dragomand.upstream.endpoint import DEFAULT_URL
from dragomand.upstream.interface import ApiAccess

from . import listen

if TYPE_CHECKING:
    from .http import HttpGateway

HOST = "dragoman.invalid"
"""Stands for the gateway in a base URL beside a unix socket. No name server ever knows it (RFC 6761)."""
LINGER_S = 60.0
"""How long, in seconds, the sockets stay open after the last grant."""
SUBSCRIPTION = "sk-ant-oat"
"""So the tokens of subscriptions begin."""
LONGEST_NAME = 100
"""Of a longer label the rest is left out."""
MOST_TOKENS = 64
"""How many programs may have a token at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What the settings and the daemon's environment say of the gateway."""

    enabled: bool = True
    base_url: str | None = None
    """Where the Messages API is; None: Anthropic's own."""
    proxy: str | None = None
    ca_file: str | None = None
    first_byte_s: float = 600.0
    idle_s: float = 300.0
    pings_s: float = 300.0


class Gateway:
    """Gives access to the API without the key."""

    def __init__(
        self,
        *,
        calls: Calls,
        api_key: Callable[[], str | None],
        settings: GatewaySettings,
        runtime_dir: str,
        clock: Callable[[], float],
        logger: logging.Logger,
    ) -> None:
        """Nothing is opened or loaded yet. Sockets go into *runtime_dir*; *clock* is Unix seconds."""
        self._calls = calls
        self._api_key = api_key
        self._settings = settings
        self._runtime_dir = runtime_dir
        self._clock = clock
        self._logger = logger
        self._unix: socket.socket | None = None
        self._tcp: socket.socket | None = None
        self._http: HttpGateway | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()
        self._linger: asyncio.TimerHandle | None = None
        self._closed = False
        calls.on_unused = self._unused

    # -- for runs of Claude Code

    async def open_access(self, *, unix: bool) -> ApiAccess | None:
        """Return access for one run, over the unix socket if it can use it (*unix*); None without gateway.

        Returns at once: what comes before the gateway is loaded waits at its socket.
        """
        if self._closed or self._why_not() is not None:
            return None
        try:
            base_url, path = self._open(tcp=not unix)
        except OSError as failed:
            self._logger.error("the gateway cannot listen", extra={"reason": str(failed)})
            return None
        grant, token = self._calls.grant(tcp=path is None)
        return ApiAccess(
            grant.grant_id,
            base_url,
            path,
            token,
            revoke=lambda: self._calls.revoke(grant.grant_id),
            last_failure=lambda: grant.failure,
            rehearse=lambda mark: self._calls.rehearse(grant.grant_id, mark),
        )

    # -- for other programs

    async def issue(self, name: str, tcp: bool) -> GatewayTokenResult:
        """Give a program a token. Raises `EngineError`: `upstream_unavailable`, `queue_full`."""
        why = self._why_not()
        if why is not None:
            raise EngineError("upstream_unavailable", why[0], next_step=why[1])
        if len(self._programs()) >= MOST_TOKENS:
            text = f"{MOST_TOKENS} tokens are valid already; revoke one (gateway/tokens lists them)."
            raise EngineError("queue_full", text, limit=MOST_TOKENS)
        base_url, path = self._open(tcp=tcp)
        if not tcp and path is None:
            text = "The runtime directory's path is too long for a unix socket."
            raise EngineError("upstream_unavailable", text, next_step="Ask for a token with tcp.")
        name = name[:LONGEST_NAME]
        grant, token = self._calls.grant(name, tcp=tcp)
        self._logger.info("gateway token", extra={"token": grant.grant_id, "of": name, "tcp": tcp})
        return GatewayTokenResult(
            token_id=grant.grant_id, token=token, base_url=base_url, unix_socket=path, name=name
        )

    def tokens(self) -> GatewayTokensResult:
        """Return the valid tokens of programs."""
        return GatewayTokensResult(
            data=[
                IssuedToken(
                    token_id=each.grant_id,
                    name=each.name or "",
                    created_at=each.created_at,
                    tcp=each.tcp,
                    counts=each.counts,
                )
                for each in self._programs()
            ]
        )

    def revoke(self, token_id: str) -> GatewayRevokeResult:
        """End a program's token; one of a run is not to be ended so."""
        known = any(each.grant_id == token_id for each in self._programs())
        return GatewayRevokeResult(revoked=known and self._calls.revoke(token_id))

    async def close(self) -> None:
        """End it: nobody gets access any more, what is under way is cut off."""
        self._closed = True
        if self._linger is not None:
            self._linger.cancel()
        for grant in self._calls.grants:
            self._calls.revoke(grant.grant_id)
        self._shut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- inside

    def _programs(self) -> list[Grant]:
        return [each for each in self._calls.grants if each.name is not None]

    def _why_not(self) -> tuple[str, str] | None:
        """Return why there is no gateway, and what to do; None if there is one."""
        if not self._settings.enabled:
            return "The gateway is switched off.", "Set gateway.enabled = true and restart the daemon."
        if not _is_for_calls(self._api_key()):
            text = "There is a gateway only with an API key: Claude Code's own login is for itself alone."
            return (
                text,
                "Set ANTHROPIC_API_KEY where the daemon is started and run `dragoman daemon restart`.",
            )
        if importlib.util.find_spec("aiohttp") is None:
            return "The package aiohttp is not installed.", "pip install 'dragoman[daemon]'"
        return None

    def _open(self, *, tcp: bool) -> tuple[str, str | None]:
        """Listen, if nobody does; return the base URL and the unix socket's path (None: over the port)."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if not tcp:
            if self._unix is None or not listen.is_in_place(self._unix):
                self._drop_unix()
                self._unix = listen.bind_unix(self._runtime_dir)
                self._serve_soon(self._unix)
            if self._unix is not None:
                return f"http://{HOST}", self._unix.getsockname()
        if self._tcp is None:
            self._tcp = listen.bind_loopback()
            self._serve_soon(self._tcp)
        return f"http://127.0.0.1:{self._tcp.getsockname()[1]}", None

    def _serve_soon(self, bound: socket.socket | None) -> None:
        if bound is not None:
            self._begin(self._serve(bound))

    def _begin(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work, name="gateway")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, bound: socket.socket) -> None:
        try:
            async with self._loading:
                # A fifth of a second the first time; it goes on beside the start of Claude Code.
                http = await asyncio.to_thread(importlib.import_module, "dragomand.gateway.http")
                if bound.fileno() < 0:
                    return  # it was closed meanwhile
                if self._http is None:
                    self._http = self._make(http)
                await self._http.serve(bound)
        except Exception:
            self._logger.exception("the gateway cannot be loaded")
            self._shut()

    def _make(self, http: "object") -> "HttpGateway":
        settings = self._settings
        provider = http.Provider(  # type: ignore[attr-defined]  # loaded late, as a module
            base_url=settings.base_url or DEFAULT_URL,
            proxy=settings.proxy,
            ca_file=settings.ca_file,
            first_byte_s=settings.first_byte_s,
            idle_s=settings.idle_s,
            pings_s=settings.pings_s,
        )
        made: HttpGateway = http.HttpGateway(  # type: ignore[attr-defined]  # as above
            calls=self._calls,
            api_key=self._api_key,
            provider=provider,
            clock=self._clock,
            logger=self._logger,
        )
        return made

    def _unused(self) -> None:
        """The last grant is gone: nobody may call, so soon nothing listens."""
        if self._linger is None and not self._closed:
            self._linger = asyncio.get_running_loop().call_later(LINGER_S, self._shut)

    def _drop_unix(self) -> None:
        if self._unix is not None:
            listen.withdraw(self._unix)
            self._unix = None

    def _shut(self) -> None:
        self._linger = None
        self._drop_unix()
        if self._tcp is not None:
            listen.withdraw(self._tcp)
            self._tcp = None
        http, self._http = self._http, None
        if http is not None:
            self._begin(http.close())


def _is_for_calls(key: str | None) -> bool:
    """Whether *key* is an API key: a subscription's token is never passed on, wherever it was put."""
    return key is not None and not key.startswith(SUBSCRIPTION)
