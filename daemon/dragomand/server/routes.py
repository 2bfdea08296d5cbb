"""The routes as dispatch needs them: looked up by name, parameters decoded by one prepared decoder."""

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from dragoman_protocol.errors import RpcError, invalid_params

from .route import Handler, Route

EMPTY = msgspec.Raw(b"{}")
"""What absent parameters are."""
UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding can raise."""
_LONGEST_SHOWN = 100


class Prepared(NamedTuple):
    """A route, ready to be called."""

    name: str
    handler: Handler
    decode: Callable[[Any], Any]
    inline: bool
    by_session: bool
    scope: str | None
    while_draining: bool
    kind: type | None = None
    """What parameters are decoded as."""

    def params(self, raw: msgspec.Raw) -> Any:
        """Decode *raw* (absent and `null` are an empty object). Raises `RpcError`: `invalid_params`."""
        try:
            return self.decode(raw or EMPTY)
        except UNREADABLE as wrong:
            if bytes(raw).strip() == b"null":
                return self.params(EMPTY)
            raise invalid_params(wrong, self.kind) from None


class Routes:
    """All methods of a server."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Prepare *routes*; `ValueError` for a name twice, or a coroutine function in the `inline` lane."""
        self.by_name: dict[str, Prepared] = {}
        for route in routes:
            if route.name in self.by_name:
                raise ValueError(f"Two routes are called {route.name}.")
            if route.lane == "inline" and inspect.iscoroutinefunction(route.handler):
                raise ValueError(f"The handler of {route.name} is a coroutine, but its lane is `inline`.")
            self.by_name[route.name] = Prepared(
                route.name,
                route.handler,
                msgspec.json.Decoder(route.params).decode,
                route.lane == "inline",
                route.lane == "session",
                route.scope,
                route.while_draining or route.lane == "inline",
                route.params,
            )
        self._plain = {_plain(name): name for name in self.by_name}

    def unknown(self, method: str, *, look_closely: bool) -> RpcError:
        """Return the error for *method*, naming the one most like it.

        To *look_closely* takes a millisecond; otherwise only case and punctuation are overlooked.
        """
        nearest = None
        if len(method) <= _LONGEST_SHOWN:
            nearest = self._plain.get(_plain(method))
            if nearest is None and look_closely:
                nearest = next(iter(difflib.get_close_matches(method, self.by_name, 1)), None)
        shown = method if len(method) <= _LONGEST_SHOWN else method[:_LONGEST_SHOWN] + "…"
        hint = f" Did you mean `{nearest}`?" if nearest else " `initialize` lists the methods there are."
        return RpcError(
            "method_not_found", f"There is no method `{shown}`.{hint}", method=shown, nearest=nearest
        )


def _plain(method: str) -> str:
    return "".join(char for char in method.lower() if char.isalnum())
