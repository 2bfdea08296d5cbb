"""One event loop around one daemon: the log, the upstream, the app, its life, its signals."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread

from dragomand.app import App, claude_config_dir
from dragomand.config import Config, read_api_key
from dragomand.life import Life
from dragomand.process.ledger import Ledger
from dragomand.process.listen import Listener
from dragomand.process.lock import InstanceLock
from dragomand.process.paths import Paths
from dragomand.process.signals import Signals
from dragomand.telemetry.logging import close_logging, configure_logging, reopen_logging
from dragomand.telemetry.redaction import secrets_of
from dragomand.upstream.claude_code import ApiSettings, ClaudeCode


def run(
    *,
    config: Config,
    paths: Paths,
    environment: Mapping[str, str],
    lock: InstanceLock,
    listener: Listener,
    ready: Callable[[], None],
    open_files: int,
) -> None:
    """Serve on *listener* until the daemon stops; *ready* is called when clients can connect.

    *open_files* is the soft limit of file descriptors that Claude Code is given.
    """

    async def serve() -> None:
        async with _app(config, paths, environment, open_files) as app:
            life = Life(app, lock, listener)
            signals = Signals(
                asyncio.get_running_loop(), drain=app.stopping.set, stop=life.hurry, reopen=reopen_logging
            )
            try:
                await life.run(ready)
            finally:
                signals.close()

    _run(serve)


def run_private(*, config: Config, paths: Paths, environment: Mapping[str, str], open_files: int) -> None:
    """Serve one connection on stdin and stdout until it closes."""
    from dragomand.transport.stdio import serve_stdio

    async def serve() -> None:
        async with _app(config, paths, environment, open_files) as app:
            await serve_stdio(app.server)

    _run(serve)


@asynccontextmanager
async def _app(
    config: Config, paths: Paths, environment: Mapping[str, str], open_files: int
) -> AsyncIterator[App]:
    logger = configure_logging(paths, config, secrets_of(environment))
    try:
        api_key = read_api_key(environment)
        ledger = Ledger(paths.state_dir)
        upstream = claude_code(config, environment, api_key, ledger, open_files)
        async with (
            anyio.create_task_group() as background,
            App.open(
                config=config,
                paths=paths,
                environment=environment,
                api_key=api_key,
                upstream=upstream,
                logger=logger,
            ) as app,
        ):
            background.start_soon(_reap, ledger, logger)
            yield app
            background.cancel_scope.cancel()
    except Exception:
        logger.exception("the daemon failed")
        raise
    finally:
        logger.info("stopped")
        close_logging()


def claude_code(
    config: Config,
    environment: Mapping[str, str],
    api_key: str | None,
    ledger: Ledger,
    open_files: int | None,
) -> ClaudeCode:
    """Make the upstream that starts Claude Code, in *environment* as far as it is allowed."""
    claude = config.claude
    seen = dict(environment)
    if claude.bare_home:
        seen |= {"HOME": claude.bare_home, "CLAUDE_CONFIG_DIR": claude_config_dir(config, environment)}
    return ClaudeCode(
        ledger=ledger,
        environment=seen,
        api_key=lambda: api_key,
        executable=claude.path,
        api=ApiSettings(
            base_url=claude.base_url or None, max_retries=claude.max_retries, timeout_ms=claude.api_timeout_ms
        ),
        start_timeout_s=claude.start_timeout_ms / 1000,
        open_files=open_files,
    )


async def _reap(ledger: Ledger, logger: logging.Logger) -> None:
    """End what a killed daemon left behind, beside the first clients."""
    reaped = await anyio.to_thread.run_sync(ledger.reap, abandon_on_cancel=True)
    if reaped.guards:
        logger.warning("reaped", extra={"guards": reaped.guards, "killed": reaped.killed})


def _run(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    factory = None
    if sys.platform != "win32":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve())
