"""The composition root: the one place where things are constructed and the two columns are joined.

`App.open` builds a whole daemon but for its socket and its signals (`life` adds those), so that a test can
have one in memory.
"""

import logging
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from dragoman_protocol import VERSION
from dragoman_protocol.lifecycle import (
    DEFAULT_SCOPES,
    DaemonStatusResult,
    ServerInfo,
)
from dragoman_protocol.methods import METHODS

from dragomand.domain import Engine
from dragomand.engine.auth import provider_of
from dragomand.engine.pool_view import pool_result
from dragomand.engine.start_breakers import StartBreakers
from dragomand.gateway.gateway import Gateway
from dragomand.handlers.agent import agent_handlers
from dragomand.handlers.auth import auth_handlers
from dragomand.handlers.breaker import breaker_handlers
from dragomand.handlers.budget import budget_handlers
from dragomand.handlers.daemon import daemon_handlers
from dragomand.handlers.errors import translated
from dragomand.handlers.gateway import gateway_handlers
from dragomand.handlers.limits import limits_handlers
from dragomand.handlers.model import model_handlers
from dragomand.handlers.notices import notifier
from dragomand.handlers.orchestrate import orchestrate_handlers
from dragomand.handlers.permission import permission_handlers
from dragomand.handlers.query import query_handlers, token_count_handlers
from dragomand.handlers.session import session_handlers
from dragomand.handlers.stats import stats_handlers
from dragomand.handlers.stream import stream_handlers
from dragomand.outside import (
    agent_library,
    api_gateway,
    claude_code,
    cloud_endpoint,
    condense,
    credentials,
    messages_api,
    opened_store,
    reap,
)
from dragomand.process.ledger import Ledger
from dragomand.process.paths import Paths
from dragomand.server.route import Handler, Route
from dragomand.server.server import Server
from dragomand.settings import Config
from dragomand.upstream.claude_code import ClaudeCode
from dragomand.upstream.messages_api import MessagesApi

ANSWERED_WHILE_DRAINING = frozenset({"stream/interrupt", "stream/detach", "stream/close"})
"""What helps a stopping daemon to stop; beside these, whatever is answered at once."""


class App:
    """A daemon without a socket."""

    def __init__(
        self,
        *,
        config: Config,
        paths: Paths,
        engine: Engine,
        gateway: Gateway,
        upstream: ClaudeCode,
        logger: logging.Logger,
    ) -> None:
        """Put the RPC column in front of *engine*; *upstream* is Claude Code. Made by `open`."""
        self.gateway = gateway
        self.config = config
        self.paths = paths
        self.socket = paths.socket
        """Where clients reach it."""
        self.logger = logger
        self.engine = engine
        self.pool = upstream.pool
        self.starts = StartBreakers(upstream)
        self.started_at = time.time()
        self.stopping = anyio.Event()
        """Set when somebody asked the daemon to stop; `grace_ms` says how long turns may take to finish."""
        self.grace_ms = config.daemon.grace_ms
        self.server = Server(
            list(self._routes()),
            info=ServerInfo(name="dragoman", version=VERSION),
            grant=self._grant,
            logger=logger.getChild("server"),
            clock=time.monotonic,
        )
        engine.notify = notifier(self.server.broadcast)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        config: Config,
        paths: Paths,
        environment: Mapping[str, str],
        logger: logging.Logger,
        open_files: int | None = None,
    ) -> AsyncIterator["App"]:
        """Open the store, build a daemon for the block, and end everything in it afterwards.

        *environment* is the daemon's own: of it come the API key and what Claude Code may see.
        *open_files* is the soft limit of file descriptors that Claude Code is given (None: ours).
        """
        cloud = cloud_endpoint(config, environment)
        auth = credentials(config, environment, cloud)
        ledger = Ledger(paths.state_dir)
        upstream = claude_code(config, environment, auth, ledger, open_files, paths.state_dir)
        direct = messages_api(config, environment, auth, cloud)
        async with opened_store(paths, logger) as store, anyio.create_task_group() as tasks:
            tasks.start_soon(reap, ledger, logger)
            engine = Engine(
                config=config,
                auth=auth,
                store=store,
                upstream=upstream,
                direct=direct,
                agents=agent_library(paths),
                tasks=tasks,
                logger=logger,
            )
            await engine.take_up(store)
            tasks.start_soon(condense, store, logger)
            tasks.start_soon(engine.keeper.keep)
            gateway = api_gateway(config, environment, auth, engine.calls, paths, logger)
            upstream.open_access = gateway.open_access
            upstream.on_pressure = engine.streams.rest
            upstream.on_limits = engine.overhear
            if cloud is None or provider_of(environment) != "anthropic":
                direct.on_limits = engine.provider_limits.hear
            else:  # its limits are another provider's than those of Claude Code's calls
                engine.calls.unheard = frozenset({auth.direct_credential})
            app = cls(
                config=config, paths=paths, engine=engine, gateway=gateway, upstream=upstream, logger=logger
            )
            try:
                yield app
            finally:
                with anyio.CancelScope(shield=True):
                    await ended(engine, upstream, direct, gateway)

    # -- its life

    def request_stop(self, grace_ms: int | None = None) -> int:
        """Ask the daemon to stop; returns how many turns get the grace."""
        if grace_ms is not None:
            self.grace_ms = grace_ms
        self.stopping.set()
        return self.engine.admission.turns.running

    def status(self) -> DaemonStatusResult:
        """Return the daemon as it is."""
        return DaemonStatusResult(
            pid=os.getpid(),
            version=VERSION,
            socket=self.socket,
            started_at=self.started_at,
            uptime_ms=round((time.time() - self.started_at) * 1000),
            state="draining" if self.server.draining else "running",
            connections=self.server.connections,
            running=self.engine.admission.turns.running,
            queued=self.engine.admission.turns.queued,
            sessions_open=self.engine.sessions.open,
            claude_version=self.engine.runs.version,
            memory_bytes=resident_bytes(),
        )

    # -- the seam

    def _routes(self) -> Iterator[Route]:
        engine = self.engine
        handlers: dict[str, Handler] = {
            **auth_handlers(engine.auth),
            **agent_handlers(engine.agents),
            **model_handlers(),
            **query_handlers(engine.queries, engine.sessions),
            **token_count_handlers(engine.token_counts),
            **orchestrate_handlers(engine.orchestrations, engine.sessions),
            **session_handlers(engine.sessions, engine.forks),
            **stream_handlers(
                engine.streams, engine.queries, engine.sessions, engine.attachments, engine.rewinds
            ),
            **permission_handlers(engine.permissions),
            **limits_handlers(engine.admission, engine.calls, engine.limit_settings, engine.budgets),
            **budget_handlers(engine.budgets),
            **stats_handlers(engine.statistics),
            **breaker_handlers(engine.admission, self.starts),
            **gateway_handlers(self.gateway.issue, self.gateway.tokens, self.gateway.revoke),
            **daemon_handlers(self.status, self.request_stop, lambda: pool_result(self.pool())),
        }
        for name, handler in handlers.items():
            row = METHODS[name]
            yield Route(
                name, row.params, translated(handler), row.lane, row.scope, name in ANSWERED_WHILE_DRAINING
            )

    def _grant(self, requested: list[str] | None, _peer_pid: int | None) -> list[str]:
        wanted = DEFAULT_SCOPES if requested is None else requested
        return [scope for scope in wanted if scope in self.config.security.grantable_scopes]


async def ended(engine: Engine, upstream: ClaudeCode, direct: MessagesApi, gateway: Gateway) -> None:
    """End everything that runs, in the order in which one uses the other."""
    engine.stop_all()
    await upstream.close()
    await direct.close()
    await gateway.close()
    engine.admission.close()
    await engine.keeper.close()


def resident_bytes() -> int | None:
    """Return this process's resident memory; elsewhere than on Linux its peak."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
