"""What the server is told of a method, and what a handler is given: the seam between the two columns.

To the server a method name is an opaque string; a route says how its parameters are decoded, who may call it
and how its calls are ordered. `app.py` builds the routes from the table of methods and the handlers.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgspec
from dragoman_protocol.codec import MAX_MESSAGE
from dragoman_protocol.wire import Id

T = TypeVar("T")

Lane = Literal["inline", "session", "free"]
"""See `dragoman_protocol.methods`: `inline` handlers are plain functions, the others are coroutines."""

LONGEST_EVENT = MAX_MESSAGE - 4096
"""Longest parameters of an event, in bytes: what is around them must fit into a message too."""


class Client(Protocol):
    """The connection as handlers see it."""

    @property
    def id(self) -> str:
        """The connection's id, stamped by the daemon; unique for the daemon's life."""

    @property
    def name(self) -> str:
        """How the client calls itself: a label."""

    @property
    def scopes(self) -> frozenset[str]:
        """What was granted in `initialize`."""

    @property
    def capabilities(self) -> dict[str, Any]:
        """What the client said it can answer."""

    @property
    def peer_pid(self) -> int | None:
        """The process at the other end; None where that cannot be told."""

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""

    def notify(self, method: str, params: Any) -> None:
        """Send a notification that is never dropped (small, rare ones)."""

    def event(self, method: str, params: Any, *, ephemeral: bool) -> bool:
        """Send one of many notifications; False if it was not taken.

        An ephemeral one is left out above the outbox's soft bound. A durable one is refused only above the
        hard bound (or after too long without progress): the caller must then end that subscription. What is
        longer than a message may be is never taken (`LONGEST_EVENT`).
        """

    async def request(self, method: str, params: Any, result: type[T]) -> T:
        """Ask the client and wait for its answer.

        The caller bounds the wait by cancelling (`anyio.fail_after`); a cancelled call forgets the answer and
        sends `$/cancelRequest`. Raises `RpcError`: the client's own error, `connection_closed`, or
        `invalid_params` when the answer does not fit *result*.
        """

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call *callback* once when the connection closes (at once if it is closed); returns its removal."""


class Call(msgspec.Struct, frozen=True):
    """One request as its handler sees it."""

    client: Client
    request_id: Id


Handler = Callable[[Call, Any], Any | Awaitable[Any]]
"""A plain function for `inline`, a coroutine function otherwise; raises `RpcError` for an error response."""


class Route(NamedTuple):
    """One method as the server knows it."""

    name: str
    params: type[msgspec.Struct]
    handler: Handler
    lane: Lane = "free"
    scope: str | None = None
    while_draining: bool = False
    """Answered even while the daemon finishes what it has begun, as `inline` ones always are."""
