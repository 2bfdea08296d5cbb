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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from dragoman_protocol import VERSION
from dragoman_protocol.lifecycle import (
    DEFAULT_SCOPES,
    DaemonStatusResult,
    ServerInfo,
)
from dragoman_protocol.methods import METHODS

from dragomand.config import Config, read_api_key
from dragomand.door_config import changeable, door_settings, values_of
from dragomand.engine.admission import Admission, Keeper, family_of, replay
from dragomand.engine.agents import Agents
from dragomand.engine.attachments import Attachments
from dragomand.engine.auth import Auth, provider_of
from dragomand.engine.budgets import Budgets
from dragomand.engine.calls import Calls
from dragomand.engine.forks import Forks
from dragomand.engine.limit_settings import LimitSettings
from dragomand.engine.open_stream import StreamTimes
from dragomand.engine.orchestrations import Orchestrations
from dragomand.engine.permissions import Permissions
from dragomand.engine.pool_view import pool_result
from dragomand.engine.provider_limits import ProviderLimits
from dragomand.engine.queries import Queries, QueryLimits
from dragomand.engine.recovery import complete_interrupted
from dragomand.engine.rewinds import Rewinds
from dragomand.engine.runs import Runs
from dragomand.engine.sessions import Sessions
from dragomand.engine.statistics import Statistics
from dragomand.engine.streams import Streams
from dragomand.engine.token_counts import TokenCounts
from dragomand.gateway.gateway import Gateway, GatewaySettings
from dragomand.handlers.agent import agent_handlers
from dragomand.handlers.auth import auth_handlers
from dragomand.handlers.breaker import breaker_handlers
from dragomand.handlers.budget import budget_handlers
from dragomand.handlers.daemon import daemon_handlers
from dragomand.handlers.errors import translated
from dragomand.handlers.gateway import gateway_handlers
from dragomand.handlers.limits import limits_handlers
from dragomand.handlers.model import model_handlers
from dragomand.handlers.notices import Notice, notifier
from dragomand.handlers.orchestrate import orchestrate_handlers
from dragomand.handlers.permission import permission_handlers
from dragomand.handlers.query import query_handlers, token_count_handlers
from dragomand.handlers.session import session_handlers
from dragomand.handlers.stats import stats_handlers
from dragomand.handlers.stream import stream_handlers
from dragomand.policy.backoff import Backoff
from dragomand.policy.crash_breakers import CrashBreakers
from dragomand.process.ledger import Ledger
from dragomand.process.paths import Paths
from dragomand.server.route import Handler, Route
from dragomand.server.server import Server
from dragomand.store.store import Store
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode, PoolSettings
from dragomand.upstream.endpoint import DEFAULT_URL, proxy_for
from dragomand.upstream.interface import PoolState, Upstream
from dragomand.upstream.limits_heard import LimitsHeard
from dragomand.upstream.messages_api import CloudSettings, DirectSettings, Endpoint, MessagesApi

ANSWERED_WHILE_DRAINING = frozenset({"stream/interrupt", "stream/detach", "stream/close"})
"""What helps a stopping daemon to stop; beside these, whatever is answered at once."""


HOUR_S = 3600.0
BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def new_uuid() -> str:
    """Return a new random UUID, version 4."""
    digits = os.urandom(16).hex()  # `uuid.uuid4()` takes twice as long, and every turn needs four
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


class Engine:
    """The domain column, put together."""

    def __init__(
        self,
        *,
        config: Config,
        auth: Auth,
        store: Store,
        upstream: Upstream,
        direct: MessagesApi,
        agents: Agents,
        tasks: TaskGroup,
        logger: logging.Logger,
    ) -> None:
        """Construct everything; nothing runs yet. Turns and streams will run in *tasks*."""
        limits = config.limits
        self.auth = auth
        self.agents = agents
        self.admission = Admission(door_settings(values_of(config)), clock=clock_that_never_sleeps)
        self.keeper = Keeper(self.admission, store, logger)
        self.limit_settings = LimitSettings(store, changeable(config), self._apply)
        self.provider_limits = ProviderLimits()
        self.notify: Callable[[Notice], None] = lambda _: None
        """Told what every client may want to know."""
        self.budgets = Budgets(
            store,
            tasks=tasks,
            clock=time.time,
            tell=lambda notice: self.notify(notice),
            ask_timeout_s=config.budget.ask_timeout_ms / 1000,
            logger=logger,
        )
        self.statistics = Statistics(store, time.time)
        self.calls = Calls(
            self.admission,
            clock=time.time,
            queue_timeout_s=limits.queue_timeout_ms / 1000,
            limits=self.provider_limits,
            budgets=self.budgets,
        )
        self.sessions = Sessions(store, time.time)
        self.forks = Forks(self.sessions, clock=time.time, new_id=new_uuid)
        self.permissions = Permissions(
            timeout_s=config.permission.timeout_ms / 1000,
            clock=time.time,
            new_id=lambda: secrets.token_hex(16),
            logger=logger,
        )
        self.runs = Runs(
            upstream=upstream,
            direct=direct,
            store=store,
            permissions=self.permissions,
            clock=time.time,
            new_id=new_uuid,
            calls=self.calls,
            credential=lambda: auth.credential,
            direct_credential=lambda: auth.direct_credential,
        )
        self.token_counts = TokenCounts(direct, auth, self.sessions)
        self.queries = self._queries(config, tasks, logger)
        self.streams = self._streams(config, tasks, logger)
        self.rewinds = Rewinds(self.streams, store)
        self.orchestrations = Orchestrations(self.queries)
        self.attachments = Attachments(self.sessions)

    def _apply(self, values: Mapping[str, Any]) -> None:
        """Limits were set at run time, or at the start."""
        self.admission.apply(door_settings(values, self.limit_settings.clients))
        self.calls.retries.backoff = Backoff(values["retry.maxAttempts"])
        self.budgets.caps.apply(values)

    @property
    def busy(self) -> bool:
        """Whether a turn runs or waits, or a call of another program."""
        working = self.queries.live > 0 or self.streams.busy or self.permissions.pending > 0
        return working or self.admission.calls.running > 0

    async def take_up(self, store: Store) -> None:
        """Go on with what an earlier life has set, and used up, of limits and budgets."""
        await self.limit_settings.load()
        await self.budgets.load()
        await self.keeper.load()
        replay(self.admission, self.auth.credential, await store.turns_started(time.time() - HOUR_S))

    def overhear(self, heard: LimitsHeard) -> None:
        """Take what Claude Code says of limits. Of calls through the gateway the gateway says more."""
        self.provider_limits.hear(heard)
        if self.auth.api_key() is None:
            models = family_of(heard.model)
            self.admission.hearing.overheard(self.auth.credential, models, heard)

    def stop_all(self) -> None:
        """End every turn, queue place, question and process; each turn still gets its terminal event."""
        self.permissions.deny_all()
        self.queries.stop_all()
        self.streams.stop_all()
        self.calls.revoke_programs()

    def _queries(self, config: Config, tasks: TaskGroup, logger: logging.Logger) -> Queries:
        return Queries(
            tasks=tasks,
            auth=self.auth,
            admission=self.admission,
            sessions=self.sessions,
            runs=self.runs,
            budgets=self.budgets,
            agents=self.agents,
            limits=query_limits(config),
            clock=time.time,
            new_id=new_uuid,
            logger=logger,
        )

    def _streams(self, config: Config, tasks: TaskGroup, logger: logging.Logger) -> Streams:
        return Streams(
            tasks=tasks,
            auth=self.auth,
            admission=self.admission,
            sessions=self.sessions,
            runs=self.runs,
            budgets=self.budgets,
            agents=self.agents,
            limits=query_limits(config),
            max_open=config.session.max_open,
            times=stream_times(config),
            clock=time.time,
            new_id=new_uuid,
            logger=logger,
        )


class App:
    """A daemon without a socket."""

    def __init__(
        self,
        *,
        config: Config,
        paths: Paths,
        engine: Engine,
        gateway: Gateway,
        pool: Callable[[], PoolState],
        logger: logging.Logger,
    ) -> None:
        """Put the RPC column in front of *engine*; *pool* tells what is kept warm. Made by `open`."""
        self.gateway = gateway
        self.config = config
        self.paths = paths
        self.socket = paths.socket
        """Where clients reach it."""
        self.logger = logger
        self.engine = engine
        self.pool = pool
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
            tasks.start_soon(engine.keeper.keep)
            gateway = api_gateway(config, environment, auth, engine.calls, paths, logger)
            upstream.open_access = gateway.open_access
            upstream.on_pressure = engine.streams.rest
            upstream.on_limits = engine.overhear
            if cloud is None or provider_of(environment) != "anthropic":
                direct.on_limits = engine.provider_limits.hear  # else its limits are another provider's
            app = cls(
                config=config, paths=paths, engine=engine, gateway=gateway, pool=upstream.pool, logger=logger
            )
            try:
                yield app
            finally:
                engine.stop_all()
                with anyio.CancelScope(shield=True):
                    await upstream.close()
                    await direct.close()
                    await gateway.close()
                    await engine.keeper.close()

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
            **breaker_handlers(engine.admission),
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


def clock_that_never_sleeps() -> float:
    """Return monotonic seconds that go on while the machine sleeps, where there are such."""
    return time.clock_gettime(BOOTTIME)


def stream_times(config: Config) -> StreamTimes:
    """Return what the settings say of streams."""
    session = config.session
    return StreamTimes(
        idle_s=session.idle_close_ms / 1000,
        sleep_s=session.sleep_ms / 1000,
        recycle_turns=session.recycle_turns,
        recycle_bytes=session.recycle_memory,
    )


def agent_library(paths: Paths) -> Agents:
    """Return the agents that are shipped, and those beside the settings file."""
    return Agents(Path(__file__).parent / "agents", Path(paths.config_file).parent / "agents")


def query_limits(config: Config) -> QueryLimits:
    """Return what the settings say of a query."""
    return QueryLimits(
        timeout_ms=config.query.timeout_ms,
        queue_timeout_ms=config.limits.queue_timeout_ms,
        roots=list(config.session.roots),
        allowed_env=list(config.claude.allowed_env),
    )


@asynccontextmanager
async def opened_store(paths: Paths, logger: logging.Logger) -> AsyncIterator[Store]:
    """Open the database for the block; turns that a killed daemon left get their terminal event first."""
    store = await Store.open(paths.database, clock=time.time)
    try:
        if store.moved_aside:
            damaged = {"path": store.moved_aside.path, "reason": store.moved_aside.reason}
            logger.error("the database was damaged and moved aside; the history begins empty", extra=damaged)
        if store.recovery_due:
            logger.error("the disk is full: turns that were cut off are marked once something can be written")
        if store.unfinished_delete:
            logger.error("deleted text is not overwritten yet", extra={"reason": store.unfinished_delete})
        cut_off = await complete_interrupted(store, time.time)
        if cut_off:
            logger.warning("turns were cut off by the daemon's end", extra={"sessions": cut_off})
        yield store
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


def claude_code(
    config: Config,
    environment: Mapping[str, str],
    auth: Auth,
    ledger: Ledger,
    open_files: int | None,
    state_dir: str,
) -> ClaudeCode:
    """Make the upstream that starts Claude Code, in *environment* as far as it is allowed."""
    claude = config.claude
    seen = dict(environment)
    if claude.bare_home:
        seen |= {"HOME": claude.bare_home, "CLAUDE_CONFIG_DIR": claude_config_dir(config, environment)}
    return ClaudeCode(
        ledger=ledger,
        environment=seen,
        api_key=auth.api_key,
        executable=claude.path,
        api=ApiSettings(
            base_url=claude.base_url or None, max_retries=claude.max_retries, timeout_ms=claude.api_timeout_ms
        ),
        start_timeout_s=claude.start_timeout_ms / 1000,
        stall_s=claude.stall_timeout_ms / 1000,
        open_files=open_files,
        pool=PoolSettings(
            max_spare=config.pool.max_spare,
            ttl_s=config.pool.ttl_ms / 1000,
            max_bytes=config.pool.max_memory,
            min_free_bytes=config.pool.min_free_memory,
            generic=config.pool.generic == "on",
            rehearse=config.pool.rehearse == "on",
            reuse=config.pool.reuse == "on",
        ),
        neutral_dir=os.path.join(state_dir, "spare"),
        breaker=CrashBreakers(),
    )


def credentials(config: Config, environment: Mapping[str, str], cloud: Endpoint | None) -> Auth:
    """Make what knows of the API key, of Claude Code's login, and of the *cloud*."""
    return Auth(
        api_key=read_api_key(environment),
        environment=environment,
        claude_config_dir=claude_config_dir(config, environment),
        cloud=None if cloud is None else cloud.status,
    )


def cloud_endpoint(config: Config, environment: Mapping[str, str]) -> Endpoint | None:
    """Make the cloud that answers direct queries; None: Anthropic does. Nothing is loaded or asked yet."""
    direct = config.direct
    provider = provider_of(environment) if direct.provider == "auto" else direct.provider
    if provider == "anthropic":
        return None
    settings = CloudSettings(
        region=direct.region,
        project=direct.project,
        profile=direct.profile,
        url=direct.cloud_url,
        model_prefix=direct.model_prefix,
        credential_timeout_s=direct.credential_timeout_ms / 1000,
        environment=environment,
    )
    if provider == "bedrock":
        from dragomand.upstream.messages_api.bedrock import Bedrock

        return Bedrock(settings)
    from dragomand.upstream.messages_api.vertex import Vertex

    return Vertex(settings)


def messages_api(
    config: Config, environment: Mapping[str, str], auth: Auth, cloud: Endpoint | None
) -> MessagesApi:
    """Make the upstream that calls the API itself. Nothing is loaded before the first query needs it."""
    direct = config.direct
    url = config.claude.base_url or DEFAULT_URL
    return MessagesApi(
        api_key=auth.api_key,
        cloud=cloud,
        settings=DirectSettings(
            base_url=url,
            proxy=proxy_for(url, environment) if cloud is None else None,
            model=direct.model,
            max_tokens=direct.max_tokens,
            max_connections=direct.max_connections,
            connect_timeout_s=direct.connect_timeout_ms / 1000,
            first_byte_timeout_s=direct.first_byte_timeout_ms / 1000,
            idle_timeout_s=direct.idle_timeout_ms / 1000,
            pings_timeout_s=direct.pings_timeout_ms / 1000,
        ),
    )


def api_gateway(
    config: Config,
    environment: Mapping[str, str],
    auth: Auth,
    calls: Calls,
    paths: Paths,
    logger: logging.Logger,
) -> Gateway:
    """Make the gateway. Nothing listens before something wants to call."""
    url = config.claude.base_url or DEFAULT_URL
    return Gateway(
        calls=calls,
        api_key=auth.api_key,
        settings=GatewaySettings(
            enabled=config.gateway.enabled,
            base_url=url,
            proxy=proxy_for(url, environment),
            ca_file=environment.get("NODE_EXTRA_CA_CERTS") or environment.get("SSL_CERT_FILE"),
            first_byte_s=config.claude.api_timeout_ms / 1000,
        ),
        runtime_dir=paths.runtime_dir,
        clock=time.time,
        logger=logger.getChild("gateway"),
    )


async def reap(ledger: Ledger, logger: logging.Logger) -> None:
    """End what a killed daemon left behind, beside the first clients."""
    reaped = await anyio.to_thread.run_sync(ledger.reap, abandon_on_cancel=True)
    if reaped.guards:
        logger.warning("reaped", extra={"guards": reaped.guards, "killed": reaped.killed})


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
