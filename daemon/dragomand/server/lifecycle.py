"""The life of one connection: `initialize` first and once, after `shutdown` only `exit`.

A client may send `initialize` and its first calls in one go; `initialized` is optional. Until it has the
answer to `initialize` its messages may have at most `MAX_MESSAGE_BEFORE_INITIALIZE`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec
from dragoman_protocol import PROTOCOL_VERSION
from dragoman_protocol.codec import MAX_MESSAGE
from dragoman_protocol.errors import RpcError, invalid_params
from dragoman_protocol.lifecycle import (
    InitializeParams,
    InitializeResult,
    Scope,
    ServerCapabilities,
    ServerInfo,
)

from .inbox import MAX_RUNNING, MAX_WAITING_BYTES

Grant = Callable[[list[str] | None, int | None], list[str]]
"""From the scopes asked for (None: not said) and the peer's process id to those granted."""

State = Literal["new", "open", "shut"]
"""Before `initialize`, after it, after `shutdown`."""

_decode = msgspec.json.Decoder(InitializeParams).decode


@dataclass(frozen=True, slots=True)
class Opening:
    """What `initialize` answers on every connection of a server."""

    info: ServerInfo
    grant: Grant
    methods: list[str]
    features: list[str]


class Lifecycle:
    """The state of one connection, and who is at its other end."""

    def __init__(self, opening: Opening) -> None:
        """Begin before `initialize`."""
        self._opening = opening
        self.state: State = "new"
        self.name = ""
        self.scopes: frozenset[str] = frozenset()
        self.capabilities: dict[str, Any] = {}

    def initialize(self, raw: msgspec.Raw, peer_pid: int | None) -> InitializeParams:
        """Open the connection as *raw* asks. Raises `RpcError`, and then changes nothing."""
        if self.state != "new":
            raise RpcError("already_initialized")
        try:
            params = _decode(raw or b"{}")
        except (msgspec.MsgspecError, UnicodeError) as wrong:
            raise invalid_params(wrong, InitializeParams) from None
        requested = cast("list[str] | None", params.scopes)
        self.scopes = frozenset(self._opening.grant(requested, peer_pid))
        self.state = "open"
        self.name = params.client_info.name if params.client_info is not None else ""
        self.capabilities = params.capabilities
        return params

    def result(self, connection_id: str) -> InitializeResult:
        """Return the answer to `initialize`."""
        return InitializeResult(
            server_info=self._opening.info,
            protocol_version=PROTOCOL_VERSION,
            capabilities=ServerCapabilities(methods=self._opening.methods, features=self._opening.features),
            scopes=cast("list[Scope]", sorted(self.scopes)),
            connection_id=connection_id,
            limits={
                "maxMessageBytes": MAX_MESSAGE,
                "maxRunningRequests": MAX_RUNNING,
                "maxWaitingBytes": MAX_WAITING_BYTES,
            },
        )

    def refusal(self) -> RpcError:
        """Return why no request is taken now."""
        if self.state == "new":
            return RpcError("not_initialized")
        return RpcError(
            "invalid_request",
            "Invalid request: after `shutdown` only `exit` is accepted; open a new connection.",
            reason="after shutdown",
        )
