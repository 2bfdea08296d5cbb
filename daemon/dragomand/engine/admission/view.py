"""The door as it is told: what runs, what waits and why, what is left of what."""

from collections.abc import Iterator

from dragoman_protocol.limits import (
    Bucket,
    Holder,
    LimitsExplainResult,
    LimitsStateResult,
    ModelPool,
    QuotaWindow,
    WaitingTurn,
)

from dragomand.policy.fair_queue import PRESENT_S
from dragomand.policy.rate_limiter import RateLimiter

from .asked import Kind
from .credential import Credential
from .door import Admission
from .lane import Lane, Ticket
from .line import Line
from .pool import Pool

_SETTINGS = frozenset([
    "queriesPerMinute", "queriesPerHour",
    "requestsPerMinute", "inputTokensPerMinute", "outputTokensPerMinute",
])  # fmt: skip
_WIRE = {"input-tokens": "inputTokens", "output-tokens": "outputTokens"}


def state_of(door: Admission) -> LimitsStateResult:
    """Return the door's state, without what others keep: the counts of calls, the money."""
    now, wall, settings = door.clock(), door.wall(), door.settings
    credentials = list(door.pools.credentials.values())
    parked = [lane for line in (door.turns, door.calls) for lane in line.lanes if _is_parked(lane)]
    until = [lane.blocked.resets_at for lane in parked if lane.blocked and lane.blocked.resets_at]
    until += [instant for credential in credentials for instant in credential.parked_instants(wall)]
    rates = [(name, rate) for name, rate in door.turn_gate.rates.items()]
    return LimitsStateResult(
        running=door.turns.running,
        queued=door.turns.queued,
        max_running=settings.max_running,
        max_queued=settings.max_queued,
        max_queued_per_client=settings.max_queued_per_client,
        calls_running=door.calls.running,
        calls_queued=door.calls.queued,
        max_calls=settings.max_calls,
        parked=sum(lane.waiting for lane in parked),
        parked_until=max(until, default=None),
        waiting_for_auth=any(credential.refused for credential in credentials),
        buckets=[bucket for _, rate in rates for bucket in _buckets(rate, now)],
        pools=[_pool(door, pool, now, wall) for pool in door.pools],
        windows=[window for credential in credentials for window in _windows(credential, wall)],
        retry_budget=door.call_gate.retries.tenths / 10,
        human_active=now - door.turns.person_at <= PRESENT_S,
    )


def explained(
    door: Admission, client: str | None, *, session_id: str | None = None, turn_id: str | None = None
) -> LimitsExplainResult:
    """Return why what *client* has waiting waits (None: what everybody has), and who holds the places."""
    waiting: list[WaitingTurn] = []
    holders: list[Holder] = []
    for kind, line in (("turn", door.turns), ("call", door.calls)):
        for each in _waiting(door, line, kind):  # type: ignore[arg-type]  # it is one of the two
            mine = client in (None, each.client)
            wanted = session_id in (None, each.session_id) and turn_id in (None, each.turn_id)
            if mine and wanted:
                waiting.append(each)
        holders += _holders(door, line, kind, client)  # type: ignore[arg-type]  # as above
    return LimitsExplainResult(waiting=waiting, holders=holders)


def _waiting(door: Admission, line: Line, kind: Kind) -> Iterator[WaitingTurn]:
    now, wall = door.clock(), door.wall()
    for lane in line.in_order():
        for position, ticket in enumerate(lane.in_order()):
            yield _ticket(line, lane, ticket, position, kind, now, wall)


def _ticket(
    line: Line, lane: Lane, ticket: Ticket, position: int, kind: Kind, now: float, wall: float
) -> WaitingTurn:
    asked, blocked = ticket.asked, lane.blocked
    expected_s = lane.expected_s(position, now, line.gate.places)
    return WaitingTurn(
        kind=kind,
        client=asked.client,
        name=asked.name,
        session_id=asked.session_id,
        turn_id=asked.turn_id,
        priority=asked.priority,
        reason="concurrency" if blocked is None else blocked.reason,
        text="It goes next." if blocked is None else blocked.text,
        waited_ms=round((now - ticket.since) * 1000),
        position=position,
        expected_at=None if expected_s is None else wall + expected_s,
        expires_at=None if ticket.deadline is None else wall + ticket.deadline - now,
    )


def _holders(door: Admission, line: Line, kind: Kind, client: str | None) -> Iterator[Holder]:
    now, wall = door.clock(), door.wall()
    for permit in line.holding:
        asked = permit.asked
        yield Holder(
            client=asked.client,
            name=asked.name,
            kind=kind,
            turn_id=asked.turn_id if client in (None, asked.client) else None,
            since=wall - (now - permit.since),
        )


def _is_parked(lane: Lane) -> bool:
    return lane.blocked is not None and lane.blocked.reason == "quota"


def _buckets(limiter: RateLimiter, now: float) -> Iterator[Bucket]:
    for each in limiter.state(now):
        yield Bucket(
            name=_WIRE.get(each.name, each.name),
            source="settings" if each.name in _SETTINGS else "provider",
            level=each.level,
            capacity=each.capacity,
            per_second=each.rate,
        )


def _pool(door: Admission, pool: Pool, now: float, wall: float) -> ModelPool:
    limiter = pool.limiter
    paused = limiter.paused_until(now)
    info = pool.provider.info(now, wall)
    waiting = [
        lane.waiting
        for (credential, models, _), lane in door.calls.keyed_lanes.items()
        if (credential, models) == (pool.credential.name, pool.models)
    ]
    return ModelPool(
        credential=pool.credential.name,
        models=pool.models,
        running=pool.ceiling.running,
        waiting=sum(waiting),
        ceiling=pool.ceiling.limit,
        buckets=list(_buckets(limiter, now)),
        paused_until=None if paused is None else wall + paused - now,
        ignored=limiter.absurd,
        breaker=info if info.state != "closed" or info.failures else None,
    )


def _windows(credential: Credential, wall: float) -> Iterator[QuotaWindow]:
    for parking in credential.parkings.values():
        for each in parking.forecast(wall):
            yield QuotaWindow(
                name=each.window,
                status="rejected" if each.rejected else "allowed",
                resets_at=each.resets_at,
                utilization=each.used,
                exhausted_at=each.runs_out_at,
            )
