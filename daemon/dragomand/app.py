"""The composition root: the one place where things are constructed and the two columns are joined.

`App.open` builds a whole daemon but for its socket and its signals (`life` adds those), so that a test can
have one in memory.
"""

import logging
import os
import resource
import secrets
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup
from dragoman_protocol import VERSION
from dragoman_protocol.lifecycle import DEFAULT_SCOPES, DaemonStatusResult, ServerInfo
from dragoman_protocol.methods import METHODS

from dragomand.config import Config
from dragomand.engine.admission import Admission
from dragomand.engine.attachments import Attachments
from dragomand.engine.auth import Auth
from dragomand.engine.orchestrations import Orchestrations
from dragomand.engine.permissions import Permissions
from dragomand.engine.queries import Queries, QueryLimits
from dragomand.engine.recovery import complete_interrupted
from dragomand.engine.runs import Runs
from dragomand.engine.sessions import Sessions
from dragomand.engine.streams import Streams
from dragomand.handlers.auth import auth_handlers
from dragomand.handlers.daemon import daemon_handlers
from dragomand.handlers.errors import translated
from dragomand.handlers.limits import limits_handlers
from dragomand.handlers.orchestrate import orchestrate_handlers
from dragomand.handlers.permission import permission_handlers
from dragomand.handlers.query import query_handlers
from dragomand.handlers.session import session_handlers
from dragomand.handlers.stream import stream_handlers
from dragomand.process.paths import Paths
from dragomand.server.route import Handler, Route
from dragomand.server.server import Server
from dragomand.store.store import Store
from dragomand.upstream.interface import Upstream


def new_uuid() -> str:
    """Return a new random UUID."""
    return str(uuid.uuid4())


class App:
    """A daemon without a socket."""

    def __init__(
        self,
        *,
        config: Config,
        paths: Paths,
        environment: Mapping[str, str],
        api_key: str | None,
        store: Store,
        upstream: Upstream,
        tasks: TaskGroup,
        logger: logging.Logger,
    ) -> None:
        """Construct everything; nothing runs yet. `open` is the way to come by one."""
        self.config = config
        self.paths = paths
        self.logger = logger
        self.started_at = time.time()
        self.stopping = anyio.Event()
        """Set when somebody asked the daemon to stop; `grace_ms` says how long turns may take to finish."""
        self.grace_ms = config.daemon.grace_ms
        self._upstream = upstream
        self.auth = Auth(
            api_key=api_key, environment=environment, claude_config_dir=claude_config_dir(config, environment)
        )
        self.admission = Admission(
            max_running=config.limits.max_running,
            max_queued=config.limits.max_queued,
            max_queued_per_client=config.limits.max_queued_per_client,
            clock=time.monotonic,
        )
        self.sessions = Sessions(store, time.time)
        self.permissions = Permissions(
            timeout_s=config.permission.timeout_ms / 1000,
            clock=time.time,
            new_id=lambda: secrets.token_hex(16),
            logger=logger,
        )
        self.runs = Runs(
            upstream=upstream, store=store, permissions=self.permissions, clock=time.time, new_id=new_uuid
        )
        limits = QueryLimits(
            timeout_ms=config.query.timeout_ms,
            queue_timeout_ms=config.limits.queue_timeout_ms,
            roots=list(config.session.roots),
            allowed_env=list(config.claude.allowed_env),
        )
        self.queries = Queries(
            tasks=tasks,
            auth=self.auth,
            admission=self.admission,
            sessions=self.sessions,
            runs=self.runs,
            limits=limits,
            clock=time.time,
            new_id=new_uuid,
            logger=logger,
        )
        self.streams = Streams(
            tasks=tasks,
            auth=self.auth,
            admission=self.admission,
            sessions=self.sessions,
            runs=self.runs,
            limits=limits,
            max_open=config.session.max_open,
            idle_s=config.session.idle_close_ms / 1000,
            clock=time.time,
            new_id=new_uuid,
            logger=logger,
        )
        self.attachments = Attachments(self.sessions)
        self.server = Server(
            list(self._routes()),
            info=ServerInfo(name="dragoman", version=VERSION),
            grant=self._grant,
            logger=logger.getChild("server"),
            clock=time.monotonic,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        config: Config,
        paths: Paths,
        environment: Mapping[str, str],
        api_key: str | None,
        upstream: Upstream,
        logger: logging.Logger,
    ) -> AsyncIterator["App"]:
        """Open the store, build a daemon for the block, and end everything in it afterwards."""
        store = await Store.open(paths.database, clock=time.time)
        try:
            cut_off = await complete_interrupted(store, time.time)
            if cut_off:
                logger.warning(
                    "turns were cut off by the end of the daemon before", extra={"sessions": cut_off}
                )
            async with anyio.create_task_group() as tasks:
                app = cls(
                    config=config,
                    paths=paths,
                    environment=environment,
                    api_key=api_key,
                    store=store,
                    upstream=upstream,
                    tasks=tasks,
                    logger=logger,
                )
                try:
                    yield app
                finally:
                    app.cancel_turns()
                    with anyio.CancelScope(shield=True):
                        await upstream.close()
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()

    # -- its life

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits."""
        return self.queries.live > 0 or self.streams.busy or self.permissions.pending > 0

    def request_stop(self, grace_ms: int | None = None) -> int:
        """Ask the daemon to stop; returns how many turns get the grace."""
        if grace_ms is not None:
            self.grace_ms = grace_ms
        self.stopping.set()
        return self.admission.running

    def cancel_turns(self) -> None:
        """End every turn, queue place, question and process; each still gets its terminal event."""
        self.permissions.deny_all()
        self.queries.stop_all()
        self.streams.stop_all()

    def status(self) -> DaemonStatusResult:
        """Return the daemon as it is."""
        return DaemonStatusResult(
            pid=os.getpid(),
            version=VERSION,
            socket=self.paths.socket,
            started_at=self.started_at,
            uptime_ms=round((time.time() - self.started_at) * 1000),
            state="draining" if self.server.draining else "running",
            connections=self.server.connections,
            running=self.admission.running,
            queued=self.admission.queued,
            sessions_open=self.sessions.open,
            claude_version=self.runs.version,
            memory_bytes=resident_bytes(),
        )

    # -- the seam

    def _routes(self) -> Iterator[Route]:
        handlers: dict[str, Handler] = {
            **auth_handlers(self.auth),
            **query_handlers(self.queries, self.sessions),
            **orchestrate_handlers(Orchestrations(self.queries), self.sessions),
            **session_handlers(self.sessions),
            **stream_handlers(self.streams, self.queries, self.sessions, self.attachments),
            **permission_handlers(self.permissions),
            **limits_handlers(self.admission),
            **daemon_handlers(self.status, self.request_stop),
        }
        for name, handler in handlers.items():
            row = METHODS[name]
            yield Route(name, row.params, translated(handler), row.lane, row.scope)

    def _grant(self, requested: list[str] | None, _peer_pid: int | None) -> list[str]:
        wanted = DEFAULT_SCOPES if requested is None else requested
        return [scope for scope in wanted if scope in self.config.security.grantable_scopes]


def claude_config_dir(config: Config, environment: Mapping[str, str]) -> str:
    """Return Claude Code's configuration folder: of `claude.bareHome`, CLAUDE_CONFIG_DIR, or `~/.claude`."""
    if config.claude.bare_home:
        return os.path.join(config.claude.bare_home, ".claude")
    return environment.get("CLAUDE_CONFIG_DIR") or os.path.join(environment.get("HOME", "/"), ".claude")


def resident_bytes() -> int | None:
    """Return this process's resident memory; elsewhere than on Linux its peak."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
