"""One event loop around one daemon: the log, the upstream, the app, its life, its signals."""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from dragomand.app import App
from dragomand.config import Config, read_api_key
from dragomand.life import Life
from dragomand.process.listen import Listener
from dragomand.process.lock import InstanceLock
from dragomand.process.paths import Paths
from dragomand.process.signals import Signals
from dragomand.telemetry.logging import close_logging, configure_logging, reopen_logging
from dragomand.telemetry.redaction import secrets_of
from typing import Any as ClaudeCode


def run(
    *,
    config: Config,
    paths: Paths,
    environment: Mapping[str, str],
    lock: InstanceLock,
    listener: Listener,
    ready: Callable[[], None],
) -> None:
    """Serve on *listener* until the daemon stops; *ready* is called when clients can connect."""

    async def serve() -> None:
        async with _app(config, paths, environment) as app:
            life = Life(app, lock, listener)
            signals = Signals(
                asyncio.get_running_loop(), drain=app.stopping.set, stop=life.hurry, reopen=reopen_logging
            )
            try:
                await life.run(ready)
            finally:
                signals.close()

    _run(serve)


def run_private(*, config: Config, paths: Paths, environment: Mapping[str, str]) -> None:
    """Serve one connection on stdin and stdout until it closes."""
    from dragomand.transport.stdio import serve_stdio

    async def serve() -> None:
        async with _app(config, paths, environment) as app:
            await serve_stdio(app.server)

    _run(serve)


@asynccontextmanager
async def _app(config: Config, paths: Paths, environment: Mapping[str, str]) -> AsyncIterator[App]:
    logger = configure_logging(paths, config, secrets_of(environment))
    try:
        api_key = read_api_key(environment)
        upstream = claude_code(config, paths, environment, api_key, logger)
        async with App.open(
            config=config,
            paths=paths,
            environment=environment,
            api_key=api_key,
            upstream=upstream,
            logger=logger,
        ) as app:
            yield app
    finally:
        logger.info("stopped")
        close_logging()


def claude_code(
    config: Config, paths: Paths, environment: Mapping[str, str], api_key: str | None, logger: logging.Logger
) -> ClaudeCode:
    """Make the upstream that starts Claude Code."""

    from dragomand.upstream.interface import Failure, UpstreamError
    class _None:
        async def open(self, spec, ask):
            raise UpstreamError(Failure("missing", "no upstream yet"))
        async def close(self): pass
    return _None()


def _run(serve: Callable[[], "asyncio._CoroutineLike[None]"]) -> None:
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
