"""What reaches outside of the process, made from the settings: store, upstreams, gateway, agents."""

import logging
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from dragomand.config import read_api_key
from dragomand.engine.agents import Agents
from dragomand.engine.auth import Auth, provider_of
from dragomand.engine.calls import Calls
from dragomand.engine.recovery import complete_interrupted
from dragomand.gateway.gateway import Gateway, GatewaySettings
from dragomand.policy.crash_breakers import CrashBreakers
from dragomand.process.ledger import Ledger
from dragomand.process.paths import Paths
from dragomand.settings import Config
from dragomand.store.errors import StorageError
from dragomand.store.spending import KEPT_S
from dragomand.store.store import Store
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode, PoolSettings
from dragomand.upstream.endpoint import DEFAULT_URL, proxy_for
from dragomand.upstream.messages_api import CloudSettings, DirectSettings, Endpoint, MessagesApi


def agent_library(paths: Paths) -> Agents:
    """Return the agents that are shipped, and those beside the settings file."""
    return Agents(Path(__file__).parent / "agents", Path(paths.config_file).parent / "agents")


async def condense(store: Store, logger: logging.Logger) -> None:
    """Join what was spent long ago, so that the table of it does not grow for ever."""
    try:
        await store.condense_spending(time.time() - KEPT_S)
    except StorageError as failed:
        logger.warning("old spending was not condensed", extra={"reason": str(failed)})


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
