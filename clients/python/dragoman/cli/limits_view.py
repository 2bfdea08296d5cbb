"""The picture of the limits: what runs, what waits, what is left. From `limits/state` to lines of text."""

from collections.abc import Iterator

from dragoman_protocol.budget import BudgetState
from dragoman_protocol.limits import (
    Bucket,
    LimitsExplainResult,
    LimitsStateResult,
    ModelPool,
    QuotaWindow,
    WaitingTurn,
)

from dragoman.cli.gauges import bar, count, instant, money, span
from dragoman.cli.terminal import printable


def picture(state: LimitsStateResult, now: float) -> Iterator[str]:
    """Yield the lines; *now* in Unix seconds."""
    yield from _doors(state, now)
    for bucket in state.buckets:
        yield _bucket(bucket)
    for pool in state.pools:
        yield from _pool(pool, now)
    if state.windows:
        yield ""
        yield "The account's windows"
        for window in state.windows:
            yield _window(window, now)
    if state.budget:
        yield ""
        yield "Budget (estimated)"
        for budget in state.budget:
            yield budget_line(budget, now)


def explanation(found: LimitsExplainResult, now: float) -> Iterator[str]:
    """Yield why each of what waits does, next first, and who holds the places."""
    if not found.waiting:
        yield "Nothing waits."
    for number, each in enumerate(found.waiting, 1):
        yield from _waiting(number, each, now)
    if found.holders:
        yield "Running:"
    for holder in found.holders:
        name = printable(holder.name) or holder.client
        yield f"  {holder.kind} of {name}, for {span(now - holder.since)}"


def budget_line(budget: BudgetState, now: float) -> str:
    """Return one cap and what is left of it."""
    name = budget.scope if budget.key is None else f"{budget.scope} {printable(budget.key)}"
    if budget.key == "*":
        most = "no cap" if budget.limit_usd is None else f"{money(budget.limit_usd)} at most"
        return f"  {name:<24} {most}, for each that has no cap of its own"
    spent = money(budget.spent_usd)
    if budget.limit_usd is None:
        return f"  {name:<24} {spent} spent, no cap"
    used = budget.spent_usd + budget.reserved_usd
    share = used / budget.limit_usd if budget.limit_usd else 1.0
    reserved = f", {money(budget.reserved_usd)} reserved" if budget.reserved_usd else ""
    resets = "" if budget.resets_at is None else f", begins anew {instant(budget.resets_at, now)}"
    return f"  {name:<24} {bar(share)} {spent} of {money(budget.limit_usd)}{reserved}{resets}"


def _doors(state: LimitsStateResult, now: float) -> Iterator[str]:
    parked = ""
    if state.parked:
        until = "" if state.parked_until is None else f" until {instant(state.parked_until, now)}"
        parked = f", {state.parked} of them parked{until}"
    yield _door("Turns", state.running, state.max_running, state.queued) + parked
    yield _door("Calls", state.calls_running, state.max_calls, state.calls_queued)
    if state.parked_until is not None and not state.parked:
        yield f"A quota is used up: what needs it waits until {instant(state.parked_until, now)}"
    if state.waiting_for_auth:
        yield "The credential was refused. Nothing is sent until it is replaced: see dragoman auth status"
    if state.human_active:
        yield "A person was active lately: one place is kept for people."


def _door(what: str, running: int, most: int, waiting: int) -> str:
    return f"{what}  {bar(_share(running, most))} {running} of {most} run, {waiting} wait"


def _bucket(bucket: Bucket) -> str:
    debt = f", {-bucket.level:.0f} of debt" if bucket.level < 0 else ""
    return (
        f"  {bucket.name:<24} {bar(_share(bucket.level, bucket.capacity))} "
        f"{max(bucket.level, 0):.0f} of {bucket.capacity:.0f} left{debt}, +{_rate(bucket.per_second)}"
    )


def _pool(pool: ModelPool, now: float) -> Iterator[str]:
    yield ""
    calls = f"{pool.running} of {pool.ceiling:.0f} calls run, {pool.waiting} wait"
    yield f"{printable(pool.models)} ({printable(pool.credential)}): {calls}"
    if pool.paused_until is not None and pool.paused_until > now:
        yield f"  The provider asked for a pause until {instant(pool.paused_until, now)}."
    breaker = pool.breaker
    if breaker is not None and breaker.state != "closed":
        again = "" if breaker.retry_at is None else f", tries again {instant(breaker.retry_at, now)}"
        reason = f": {printable(breaker.reason)}" if breaker.reason else ""
        yield f"  The breaker is {breaker.state.replace('_', ' ')}{again}{reason}"
    for bucket in pool.buckets:
        yield _bucket(bucket)


def _window(window: QuotaWindow, now: float) -> str:
    share = window.utilization
    used = f"{bar(share)} {share:.0%} used" if share is not None else window.status
    said = "" if window.status == "allowed" or share is None else f", {window.status}"
    resets = "" if window.resets_at is None else f", resets {instant(window.resets_at, now)}"
    out = "" if window.exhausted_at is None else f"; at this pace used up {instant(window.exhausted_at, now)}"
    return f"  {printable(window.name):<24} {used}{printable(said)}{resets}{out}"


def _waiting(number: int, each: WaitingTurn, now: float) -> Iterator[str]:
    name = printable(each.name) or each.client
    of = "" if each.session_id is None else f" in session {each.session_id[:8]}"
    yield f"{number}. {each.kind} of {name}{of}, {each.priority}, waits for {span(each.waited_ms / 1000)}"
    expected = "" if each.expected_at is None else f" Expected to run {instant(each.expected_at, now)}."
    expires = "" if each.expires_at is None else f" Given up {instant(each.expires_at, now)}."
    ahead = f" {count(each.position, 'other')} before it." if each.position else " It is next."
    yield f"   {printable(each.text)}{ahead}{expected}{expires}"


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _rate(per_second: float) -> str:
    for size, name in ((1, "s"), (60, "min"), (3_600, "h")):
        if per_second * size >= 1:
            return f"{per_second * size:.0f}/{name}"
    return f"{per_second * 86_400:.1f}/d"
