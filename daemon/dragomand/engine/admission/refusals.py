"""What is said to who is not let in."""

from typing import TYPE_CHECKING

from dragomand.engine.errors import EngineError

if TYPE_CHECKING:
    from .lane import Ticket
    from .line import Line

_KINDS = {
    "rate": "rate_limited",
    "throttled": "throttled",
    "quota": "quota_exhausted",
    "auth": "auth_failed",
    "breaker": "circuit_open",
}
_WITH_QUEUE = ("rate_limited", "queue_timeout")


def queue_full(line: "Line", bound: str) -> EngineError:
    """Return why one may not even wait: *bound* is `client` or `queue`."""
    what, settings = line.gate.what, line.settings
    if bound == "client":
        limit = settings.max_queued_per_client
        text = f"This client has {limit} {what}s waiting already, as many as it may."
    else:
        limit = settings.max_queued
        text = f"{limit} {what}s wait already, as many as may."
    return EngineError(
        "queue_full", f"{text} Send it again when some have run.", queued=line.queued, limit=limit
    )


def too_deep(what: str, depth: int, most: int) -> EngineError:
    """Return why something that descends from so many others is not let in at all."""
    text = (
        f"This {what} would be the {depth}th below another: turns have started turns that started turns. "
        f"At most {most} may (limits.maxDepth)."
    )
    return EngineError("queue_full", text, limit=most, retryable=False)


def waited_in_vain(line: "Line", ticket: "Ticket", now: float) -> EngineError:
    """Return what is said when the deadline came first."""
    waited = round((now - ticket.since) * 1000)
    blocked, what = ticket.lane.blocked, line.gate.what
    why = "" if blocked is None or blocked.reason == "concurrency" else f" {blocked.text}"
    return EngineError(
        "queue_timeout",
        f"The {what} waited {waited} ms and was not admitted: "
        f"{line.running} {what}s are running and {line.queued} wait.{why} "
        "Send it again later, or with a longer queueTimeoutMs.",
        waited_ms=waited,
        queued=line.queued,
    )


def too_late(line: "Line", ticket: "Ticket", expected_s: float, timeout_s: float) -> EngineError:
    """Return what is said when its turn would come after its deadline."""
    blocked = ticket.lane.blocked
    reason = "concurrency" if blocked is None else blocked.reason
    kind = _KINDS.get(reason, "queue_timeout")
    text = "" if blocked is None else f"{blocked.text} "
    facts = {"queued": line.queued} if kind in _WITH_QUEUE else {}
    if kind == "quota_exhausted" and blocked is not None:
        facts["resets_at"] = blocked.resets_at  # type: ignore[assignment]
    return EngineError(
        kind,
        f"{text}It would be let in after {expected_s:.1f} s, and was to wait {timeout_s:g} s at most. "
        "Send it again later, or with a longer queueTimeoutMs.",
        retry_after_ms=max(1, round(expected_s * 1000)),
        **facts,
    )
