"""The requests of one connection that have no answer yet: how many run, which wait, how much may wait.

- At most `MAX_RUNNING` run at a time; the others wait. `inline` requests do not run, they are answered at
  once: they overtake waiting requests of the other lanes, since a turn may be waiting for just that word
  (`permission/respond`). No promise of order is broken: lanes make none between one another.
- While the client does not read its answers, nothing new begins, `inline` ones included, which keep their
  order.
- What waits is bounded by `MAX_WAITING_BYTES`; a request beyond is refused, `overloaded`.
"""

from collections import OrderedDict

from dragoman_protocol.errors import RpcError
from dragoman_protocol.wire import Id

from .lanes import Incoming, Lanes

MAX_RUNNING = 64
"""Requests of one connection that run at a time."""
MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Bytes of one connection's requests that wait."""
OVERHEAD_BYTES = 512
"""What a waiting request counts for beside its parameters: roughly what it occupies."""


class Inbox:
    """Keeps count; begins and answers nothing itself."""

    __slots__ = ("_held", "_lanes", "holds_inline", "running", "waiting", "waiting_bytes")

    def __init__(self) -> None:
        """Begin empty."""
        self.running: dict[Id, Incoming] = {}
        self.waiting: dict[Id, Incoming] = {}
        self.waiting_bytes = 0
        self._held: OrderedDict[Id, Incoming] = OrderedDict()
        """The `inline` ones among `waiting`."""
        self.holds_inline = False
        """Whether there are any."""
        self._lanes = Lanes()

    def may_begin(self, session: str | None) -> bool:
        """Whether a request that just came for *session* may run at once."""
        return len(self.running) < MAX_RUNNING and self._lanes.is_open(session)

    def begin(self, incoming: Incoming) -> None:
        """Count in *incoming*, which runs without having waited."""
        self.running[incoming.request.id] = incoming
        self._lanes.take(incoming.session)

    def wait(self, incoming: Incoming) -> None:
        """Let *incoming* wait. Raises `RpcError`: `overloaded`, when too much waits already."""
        request = incoming.request
        size = len(request.params) + OVERHEAD_BYTES
        if self.waiting_bytes + size > MAX_WAITING_BYTES:
            raise RpcError("overloaded", limit=MAX_WAITING_BYTES, actual=self.waiting_bytes + size)
        # Raw parameters keep the whole message they are a part of; only what is counted shall be kept.
        request.params = request.params.copy()
        incoming.size = size
        self.waiting_bytes += size
        self.waiting[request.id] = incoming
        if incoming.route.inline:
            self._held[request.id] = incoming
            self.holds_inline = True
        else:
            self._lanes.put(incoming)

    def next(self) -> Incoming | None:
        """Take out the one to answer or begin now, or None. One that is begun is counted as running."""
        incoming: Incoming | None
        if self._held:
            incoming = self._held.popitem(last=False)[1]
            self.holds_inline = bool(self._held)
        elif len(self.running) < MAX_RUNNING:
            incoming = self._lanes.next()
        else:
            incoming = None
        if incoming is None:
            return None
        id = incoming.request.id
        del self.waiting[id]
        self.waiting_bytes -= incoming.size
        if not incoming.route.inline:
            self.running[id] = incoming
        return incoming

    def ended(self, incoming: Incoming) -> None:
        """Count out *incoming*, which ran."""
        del self.running[incoming.request.id]
        self._lanes.ended(incoming.session)

    def remove(self, incoming: Incoming) -> None:
        """Count out *incoming*, which waits."""
        id = incoming.request.id
        del self.waiting[id]
        self.waiting_bytes -= incoming.size
        if incoming.route.inline:
            del self._held[id]
            self.holds_inline = bool(self._held)
        else:
            self._lanes.remove(incoming)
