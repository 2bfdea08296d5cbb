"""One event loop around one daemon: the log, the app, its life, its signals."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from dragomand.app import App
from dragomand.life import Life
from dragomand.process.listen import Listener
from dragomand.process.lock import InstanceLock
from dragomand.process.paths import Paths
from dragomand.process.signals import Signals
from dragomand.settings import Config
from dragomand.telemetry.logging import close_logging, configure_logging, reopen_logging
from dragomand.telemetry.redaction import secrets_of


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

            def reopen() -> None:
                reopen_logging()
                life.look_at_socket()

            signals = Signals(
                asyncio.get_running_loop(), drain=app.stopping.set, stop=life.hurry, reopen=reopen
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
        async with App.open(
            config=config, paths=paths, environment=environment, logger=logger, open_files=open_files
        ) as app:
            yield app
    except Exception:
        logger.exception("the daemon failed")
        raise
    finally:
        logger.info("stopped")
        close_logging()


_COLLECT_AFTER = (20_000, 10, 10)
"""Python's own 700 makes a fifth of all work out of looking for cycles, of which a call leaves hardly any."""


def _run(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    gc.freeze()  # what was loaded stays
    gc.set_threshold(*_COLLECT_AFTER)
    factory = None
    if sys.platform != "win32":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, _known_library():
        runner.run(serve())


@contextmanager
def _known_library() -> Iterator[None]:
    """Say once for this thread which event loop library runs: anyio asks at each of its primitives."""
    try:
        import sniffio
    except ImportError:  # newer versions of anyio do without
        yield
        return
    sniffio.thread_local.name = "asyncio"
    try:
        yield
    finally:
        sniffio.thread_local.name = None
