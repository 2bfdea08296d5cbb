"""The door's figures, from the settings by name: at the start, and whenever one is changed at run time."""

from collections.abc import Mapping
from typing import Any

from dragoman_protocol.limits import ClientShare

from dragomand.engine.admission import DoorSettings, Share
from dragomand.engine.limit_settings import Known
from dragomand.settings import Config, settings

SECTIONS = ("limits", "breaker", "retry", "budget")
"""Whose settings the door and the budgets know."""
_ONLY_AT_THE_START = frozenset({"limits.queueTimeoutMs", "budget.askTimeoutMs"})


def values_of(config: Config) -> dict[str, Any]:
    """Return what *config* says, by the names in the file: `limits.maxRunning`, …"""
    return {
        each.key: getattr(getattr(config, each.section), each.field)
        for each in settings()
        if each.section in SECTIONS
    }


def changeable(config: Config) -> list[Known]:
    """Return the settings that may be changed at run time (`limits/set`), with what *config* says of each."""
    values = values_of(config)
    return [
        Known(each.key, each.type, values[each.key], each.expected)
        for each in settings()
        if each.key in values and each.key not in _ONLY_AT_THE_START
    ]


def door_settings(
    values: Mapping[str, Any], clients: Mapping[str, ClientShare] | None = None
) -> DoorSettings:
    """Return the figures; 0 is no bound where the settings say so."""
    return DoorSettings(
        max_running=values["limits.maxRunning"],
        max_calls=values["limits.maxCalls"],
        calls_at_start=min(values["limits.callsAtStart"], values["limits.maxCalls"]),
        max_queued=values["limits.maxQueued"],
        max_queued_per_client=values["limits.maxQueuedPerClient"],
        keep_for_people=values["limits.peoplePlace"],
        max_depth=values["limits.maxDepth"],
        reserved_share=values["limits.peopleShare"],
        queries_per_minute=values["limits.queriesPerMinute"] or None,
        queries_per_hour=values["limits.queriesPerHour"] or None,
        requests_per_minute=values["limits.requestsPerMinute"] or None,
        input_tokens_per_minute=values["limits.inputTokensPerMinute"] or None,
        output_tokens_per_minute=values["limits.outputTokensPerMinute"] or None,
        failure_threshold=values["breaker.failureThreshold"],
        breaker_s=values["breaker.timeoutMs"] / 1000,
        half_open_requests=values["breaker.halfOpenRequests"],
        success_threshold=values["breaker.successThreshold"],
        attempts=values["retry.maxAttempts"],
        retry_budget=values["retry.budget"],
        clients={name: _share(each) for name, each in (clients or {}).items()},
    )


def _share(share: ClientShare) -> Share:
    return Share(1.0 if share.weight is None else share.weight, share.priority)
