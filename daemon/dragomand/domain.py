"""The domain column, put together from the settings: everything that Dragoman does, with no way in yet."""

import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from anyio.abc import TaskGroup
from dragoman_protocol.breaker import BreakerChangedParams
from dragoman_protocol.limits import LimitsParkedParams
from msgspec.structs import asdict

from dragomand.door_config import changeable, door_settings, values_of
from dragomand.engine.admission import Admission, Keeper, family_of, replay
from dragomand.engine.agents import Agents
from dragomand.engine.attachments import Attachments
from dragomand.engine.auth import Auth
from dragomand.engine.budgets import Budgets
from dragomand.engine.calls import Calls
from dragomand.engine.forks import Forks
from dragomand.engine.limit_settings import LimitSettings
from dragomand.engine.notices import Notice
from dragomand.engine.open_stream import StreamTimes
from dragomand.engine.orchestrations import Orchestrations
from dragomand.engine.permissions import Permissions
from dragomand.engine.provider_limits import ProviderLimits
from dragomand.engine.queries import Queries
from dragomand.engine.query_limits import QueryLimits
from dragomand.engine.rewinds import Rewinds
from dragomand.engine.runs import Runs
from dragomand.engine.sessions import Sessions
from dragomand.engine.statistics import Statistics
from dragomand.engine.streams import Streams
from dragomand.engine.token_counts import TokenCounts
from dragomand.policy.backoff import Backoff
from dragomand.process.identity import ancestors
from dragomand.settings import Config
from dragomand.store.errors import StorageError
from dragomand.store.store import Store
from dragomand.upstream.endpoint import DEFAULT_URL
from dragomand.upstream.interface import Upstream
from dragomand.upstream.limits_heard import LimitsHeard
from dragomand.upstream.messages_api import MessagesApi

HOUR_S = 3600.0
KEY_STATE = "limits/key"
"""Where the store keeps a digest of the API key: by it another one is known, the key itself is not."""
CLOUDS = frozenset({"bedrock", "vertex"})
"""Credentials that are not for Anthropic itself."""

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
        self.auth = auth
        self.agents = agents
        self.notify: Callable[[Notice], None] = lambda _: None
        """Told what every client may want to know."""
        self._let_in(config, store, tasks, logger)
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
            direct_model=config.direct.model,
            ancestors=ancestors,
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

    def _let_in(self, config: Config, store: Store, tasks: TaskGroup, logger: logging.Logger) -> None:
        """Construct what decides who may do something now, and counts it."""
        self.admission = Admission(door_settings(values_of(config)), clock=clock_that_never_sleeps)
        self.admission.pools.host_of = lambda credential: host_of(config, credential)
        self.admission.on_breaker = lambda changed: self.notify(BreakerChangedParams(**asdict(changed)))
        self.admission.hearing.on_parked = self._tell_parked
        await_login(self.auth, self.admission, logger)
        self.keeper = Keeper(self.admission, store, logger)
        self.limit_settings = LimitSettings(store, changeable(config), self._apply)
        self.provider_limits = ProviderLimits()
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
            queue_timeout_s=config.limits.queue_timeout_ms / 1000,
            limits=self.provider_limits,
            budgets=self.budgets,
        )
        self.calls.keep = self.keeper.write

    def _tell_parked(self, credential: str, until: float | None, window: str) -> None:
        """Tell that a quota is used up (*until*, Unix seconds), or (None) there again."""
        lines = (self.admission.turns, self.admission.calls)
        waiting = sum(
            lane.waiting for line in lines for key, lane in line.keyed_lanes.items() if key[0] == credential
        )
        self.notify(LimitsParkedParams(until=until, window=window or None, parked=waiting))

    async def take_up(self, store: Store) -> None:
        """Go on with what an earlier life has set, and used up, of limits and budgets."""
        await self.limit_settings.load()
        await self.budgets.load()
        await self.keeper.load()
        await self._notice_another_key(store)
        direct = self.auth.direct_credential
        shared = direct == self.auth.credential
        since = time.time() - HOUR_S
        started = await store.turns_started(since, upstream=None if shared else "claude_code")
        replay(self.admission, self.auth.credential, started)
        if not shared:
            replay(self.admission, direct, await store.turns_started(since, upstream="messages_api"))

    async def _notice_another_key(self, store: Store) -> None:
        """What an earlier life has found out of its API key says nothing of another one."""
        key = self.auth.api_key() or ""
        digest = hashlib.sha256(b"dragoman" + key.encode("utf-8", "surrogateescape")).digest()[:16]
        known = await store.get_state(KEY_STATE)
        if known != digest:
            with suppress(StorageError):  # a full disk keeps nobody from asking
                await store.set_state(KEY_STATE, digest)
        if known is not None and known != digest:
            self.admission.credential_changed("apiKey")

    def overhear(self, heard: LimitsHeard) -> None:
        """Take what Claude Code says of limits; of calls through the gateway the gateway alone says it."""
        self.provider_limits.hear(heard)
        self.admission.hearing.overheard(self.auth.credential, family_of(heard.model), heard)

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


def await_login(auth: Auth, admission: Admission, logger: logging.Logger) -> None:
    """Let what waits because a credential was refused go on when there is another one."""

    def on_refused(name: str, said: str) -> None:
        logger.warning("the provider refused a credential", extra={"credential": name, "reason": said})
        auth.note_refused(name)

    def on_other(name: str) -> None:
        logger.info("another login was found", extra={"credential": name})
        admission.credential_changed(name)

    admission.hearing.on_refused = on_refused
    auth.is_refused, auth.on_other = admission.is_refused, on_other


def host_of(config: Config, credential: str) -> str:
    """Return whom calls with *credential* go to: one provider's failures say nothing of another's."""
    if credential in CLOUDS:
        return urlsplit(config.direct.cloud_url).hostname or credential
    return urlsplit(config.claude.base_url or DEFAULT_URL).hostname or ""


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


def query_limits(config: Config) -> QueryLimits:
    """Return what the settings say of a query."""
    return QueryLimits(
        timeout_ms=config.query.timeout_ms,
        queue_timeout_ms=config.limits.queue_timeout_ms,
        roots=list(config.session.roots),
        allowed_env=list(config.claude.allowed_env),
    )
