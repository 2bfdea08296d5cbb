"""From the first client to the last: serve, leave when nobody needs the daemon, stop in six phases.

1. stop accepting: the socket's file goes, so that the next client starts a daemon, which waits for our lock
2. draining: what is asked now is answered `draining`
3. what started may finish, within the grace
4. the rest is cancelled; each turn still gets its terminal event
5. outboxes are flushed, connections closed
6. the store is closed and the lock released (by whoever made them: `App.open`, `__main__`)
"""

import asyncio
from collections.abc import Callable

import anyio
from dragoman.locate import LocateError
from dragoman_protocol import VERSION

from dragomand.app import App
from dragomand.process.listen import Listener, bind, bind_anew
from dragomand.process.lock import InstanceLock
from dragomand.transport.socket import SocketServer, serve_socket

CANCEL_S = 13.0
"""How long, in seconds, cancelled turns get to end: an interrupt, then their process's closing ladder."""
FIRST_CLIENT_MS = 5_000
"""How long, in milliseconds, a new daemon stays at least: whoever started it is on its way in."""
FLUSH_S = 2.0
"""How long, in seconds, clients get to read their last answers."""


class Life:
    """One daemon's time on its socket."""

    def __init__(self, app: App, lock: InstanceLock, listener: Listener) -> None:
        """Serve *app* on *listener*; *lock* allows to bind anew when somebody comes as we leave."""
        self._app = app
        self._lock = lock
        self._listener = listener
        self._hurry = anyio.Event()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle = anyio.Event()
        self._missed = anyio.Event()

    def look_at_socket(self) -> None:
        """Bind anew if the socket's file is gone; somebody missed it (SIGHUP)."""
        if not self._listener.is_in_place():
            self._missed.set()

    def hurry(self) -> None:
        """Skip the grace (a second signal)."""
        self._app.stopping.set()
        self._hurry.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until somebody asks to stop, or nobody came for `daemon.idleExitMs`; then stop."""
        app = self._app
        sockets = await serve_socket(
            app.server, self._listener.socket, max_connections=app.config.daemon.max_connections
        )
        app.server.on_change = app.engine.admission.on_idle = self._arm_idle_timer
        self._arm_idle_timer(FIRST_CLIENT_MS)
        ready()
        app.logger.info("ready", extra={"socket": self._listener.path})
        while True:
            await self._until_leaving()
            if app.stopping.is_set():
                break
            if self._missed.is_set():
                await self._bind_anew(sockets)
            elif not await self._somebody_came(sockets):
                break
        await self._stop(sockets)

    # -- leaving when nobody is there

    def _arm_idle_timer(self, at_least_ms: int = 0) -> None:
        """Start the timer anew whenever connections, requests or turns change."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        app = self._app
        idle_ms = app.config.daemon.idle_exit_ms
        if idle_ms and not app.server.connections and not app.engine.busy:
            self._idle_timer = asyncio.get_running_loop().call_later(
                max(idle_ms, at_least_ms) / 1000, self._idle.set
            )

    async def _until_leaving(self) -> None:
        async with anyio.create_task_group() as waiting:

            async def wait_for(event: anyio.Event) -> None:
                await event.wait()
                waiting.cancel_scope.cancel()

            waiting.start_soon(wait_for, self._app.stopping)
            waiting.start_soon(wait_for, self._idle)
            waiting.start_soon(wait_for, self._missed)

    async def _somebody_came(self, sockets: SocketServer) -> bool:
        """Withdraw the socket before an idle exit; whoever waited at the door is served, and we stay."""
        self._idle = anyio.Event()
        if self._app.server.connections or self._app.engine.busy:
            self._arm_idle_timer()
            return True
        late = self._listener.withdraw()
        if not late:
            self._app.logger.info("leaving: nobody has needed the daemon", extra={"idle": True})
            return False
        await self._listen(sockets, bind(self._lock))
        for connection in late:
            await sockets.adopt(connection)
        return True

    async def _bind_anew(self, sockets: SocketServer) -> None:
        """Somebody removed the socket's file, or its folder; connections that are open go on."""
        self._missed = anyio.Event()
        log = self._app.logger
        try:
            listener = bind_anew(self._lock)
        except (LocateError, OSError) as failed:
            log.error("the socket was removed and cannot be bound anew", extra={"reason": str(failed)})
            return
        await self._listen(sockets, listener)
        log.warning("the socket was removed, and bound anew", extra={"socket": listener.path})

    async def _listen(self, sockets: SocketServer, listener: Listener) -> None:
        sockets.close()
        self._listener = listener
        await sockets.listen(listener.socket)
        self._app.socket = listener.path
        self._lock.record(listener.path, VERSION)

    # -- the six phases

    async def _stop(self, sockets: SocketServer) -> None:
        app, log = self._app, self._app.logger
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        log.info("stopping: 1 no new connections")
        late = self._listener.withdraw()
        self._lock.leaving()
        for connection in late:
            await sockets.adopt(connection)
        sockets.close()
        log.info("stopping: 2 draining", extra={"running": app.server.running})
        app.server.draining = True
        log.info("stopping: 3 grace", extra={"graceMs": app.grace_ms})
        await self._until_finished(app.grace_ms / 1000)
        log.info("stopping: 4 cancelling", extra={"running": app.server.running})
        app.engine.stop_all()
        with anyio.move_on_after(CANCEL_S):
            await app.engine.admission.until_idle()
            await app.server.finished(None)
        app.server.cancel_running()
        log.info("stopping: 5 flushing", extra={"connections": app.server.connections})
        await app.server.flush_and_close(FLUSH_S)
        log.info("stopping: 6 closing the store")

    async def _until_finished(self, grace_s: float) -> None:
        with anyio.move_on_after(grace_s):
            async with anyio.create_task_group() as waiting:

                async def wait_for(event: anyio.Event) -> None:
                    await event.wait()
                    waiting.cancel_scope.cancel()

                waiting.start_soon(wait_for, self._hurry)
                await self._app.server.finished(None)
                await self._app.engine.admission.until_idle()
                waiting.cancel_scope.cancel()
