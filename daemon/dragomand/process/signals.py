"""What signals mean to the daemon.

=================  ========================================================================================
SIGTERM, SIGINT    the first: drain (finish what runs, within the grace); each further one: stop at once
SIGHUP             open the log file anew, and the socket if its file is gone: `lock` sends it then.
                   A terminal that closes sends it as well: a daemon started from it by hand stays, for
                   it serves other clients by then
=================  ========================================================================================

Handlers run in the event loop, between callbacks, never in the middle of one. The ends of children are not
a matter of signals (`process.children` uses process descriptors).
"""

import asyncio
import signal
from collections.abc import Callable

_STOPPING = (signal.SIGTERM, signal.SIGINT)


def start_clean() -> None:
    """Undo what a starter may have left us: blocked signals, and ignored ones, survive `exec`.

    Call it first of all: with SIGCHLD ignored no process could wait for its children, and with SIGTERM
    blocked none of ours could be stopped. Until `Signals` is made, SIGTERM and SIGINT end the process.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Signals:
    """Routes signals to three functions until `close`. One per process, made in its main thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        drain: Callable[[], None],
        stop: Callable[[], None],
        reopen: Callable[[], None],
    ) -> None:
        """Call in `loop`: `drain` at the first SIGTERM or SIGINT, `stop` at the next, `reopen` at SIGHUP."""
        self._loop = loop
        self._drain = drain
        self._stop = stop
        self._asked = False
        for number in _STOPPING:
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, reopen)

    def close(self) -> None:
        """Give the signals back to the system's defaults; SIGHUP is ignored from here on."""
        for number in (*_STOPPING, signal.SIGHUP):
            self._loop.remove_signal_handler(number)
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _end(self) -> None:
        if self._asked:
            self._stop()
        else:
            self._asked = True
            self._drain()
