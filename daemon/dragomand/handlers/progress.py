"""Events of a request to whoever asked for them with a `partialResultToken`."""

from collections.abc import Callable
from typing import Any

import msgspec
from dragoman_protocol.lifecycle import ProgressParams
from dragoman_protocol.orchestrate import OrchestrateOutcome

from dragomand.engine.channel import Published, Subscriber
from dragomand.server.route import Client

from .fitting import fitting

_encode = msgspec.json.Encoder().encode


def event_progress(client: Client, token: int | str | None) -> Subscriber | None:
    """Return what sends each event as `$/progress`; None without a token.

    A client too slow for durable events gets no more of them: the response carries the answer anyway, and
    the session's stream everything (`stream/attach`).
    """
    if token is None:
        return None
    taking = True

    def send(event: Published) -> None:
        nonlocal taking
        if taking:
            sent = client.event(
                "$/progress", ProgressParams(token=token, value=fitting(event)), ephemeral=event.ephemeral
            )
            taking = sent or event.ephemeral

    return send


def outcome_progress(client: Client, token: int | str | None) -> Callable[[OrchestrateOutcome], Any]:
    """Return what sends each outcome as `$/progress`; one that does nothing without a token."""

    def send(outcome: OrchestrateOutcome) -> None:
        if token is not None:
            value = msgspec.Raw(_encode(outcome))
            client.event("$/progress", ProgressParams(token=token, value=value), ephemeral=False)

    return send
