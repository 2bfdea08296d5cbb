"""Grants, the permits of calls, and what is counted."""

import asyncio
import time
from typing import Any

import pytest
from dragoman_protocol.session import Usage
from dragomand.engine import calls as module
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.call import Grant, Payer
from dragomand.engine.calls import Calls
from dragomand.engine.errors import EngineError
from dragomand.upstream.limits_heard import LimitsHeard


def door(max_calls: int = 2, **bounds: int) -> Admission:
    figures = {"max_running": 1, "max_queued": 4, "max_queued_per_client": 4, **bounds}
    return Admission(DoorSettings(**figures, max_calls=max_calls), clock=time.monotonic)


def made(admission: Admission | None = None, queue_timeout_s: float = 20) -> Calls:
    return Calls(admission or door(), clock=lambda: 7.0, queue_timeout_s=queue_timeout_s)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0)


async def one(calls: Calls, grant: Grant, status: int = 200, usage: Usage | None = None) -> None:
    async with calls.call(grant) as call:
        call.status, call.usage, call.finished = status, usage, True


def test_a_bearer_finds_its_grant_and_only_that() -> None:
    calls = made()
    (first, token), (second, other) = calls.grant(), calls.grant("a program", tcp=True)
    assert calls.find(token) is first
    assert calls.find(other) is second
    assert (second.name, second.tcp, second.created_at) == ("a program", True, 7.0)
    assert calls.grants == [first, second]
    mixed = f"dragoman-{first.grant_id}-{other.split('-', 2)[2]}"
    for wrong in (mixed, token[:-1], token.upper(), "", "dragoman", "dragoman-x", "x" + token):
        assert calls.find(wrong) is None


def test_a_bearer_is_long_and_not_kept() -> None:
    grant, token = made().grant()
    secret = token.split("-", 2)[2]
    assert len(secret) == 43  # 256 bits
    assert secret not in repr(grant)
    assert secret.encode() not in grant.digest


def test_a_revoked_grant_is_none() -> None:
    calls, cut, unused = made(), [], []
    calls.on_unused = lambda: unused.append(True)
    (grant, token), (other, _) = calls.grant(), calls.grant()
    grant.cuts.add(lambda: cut.append(True))
    assert calls.revoke(grant.grant_id)
    assert not calls.revoke(grant.grant_id)
    assert calls.find(token) is None
    assert (cut, unused) == ([True], [])
    calls.charge(grant.grant_id, lambda: Payer("late"))  # nothing happens
    calls.revoke(other.grant_id)
    assert unused == [True]


def test_at_the_end_programs_lose_theirs() -> None:
    calls = made()
    run, _ = calls.grant()
    calls.grant("a program")
    calls.revoke_programs()
    assert calls.grants == [run]


async def test_what_is_counted_for_whom() -> None:
    calls = made()
    grant, _ = calls.grant()
    await one(calls, grant)
    turn: list[str | None] = [None]
    calls.charge(grant.grant_id, lambda: Payer("ann", "Ann's editor", turn[0]))
    await one(calls, grant, usage=Usage(input_tokens=1, output_tokens=2))
    turn[0] = "t1"
    await one(calls, grant, usage=Usage(input_tokens=10, cache_read_tokens=3, cache_creation_tokens=4))
    await one(calls, grant, status=429)
    program, _ = calls.grant("tool")
    await one(calls, program, usage=Usage(output_tokens=5))
    total = calls.total
    assert (total.calls, total.failed) == (5, 1)
    assert total.usage == Usage(
        input_tokens=11, output_tokens=7, cache_read_tokens=3, cache_creation_tokens=4
    )
    assert [(each.client, each.name, each.calls) for each in calls.clients()] == [
        ("daemon", "a process that nobody uses yet", 1),
        ("ann", "Ann's editor", 3),
        (f"gateway:{program.grant_id}", "tool", 1),
    ]
    assert [(each.turn_id, each.client, each.calls, each.failed) for each in calls.turns()] == [
        ("t1", "ann", 2, 1)
    ]
    assert [each.client for each in calls.clients("ann")] == ["ann"]
    assert calls.turns("somebody else") == []
    assert (program.counts.calls, program.counts.usage.output_tokens) == (1, 5)


async def test_a_call_that_ends_in_the_middle_has_failed_and_is_settled() -> None:
    admission = door()
    calls = made(admission)
    grant, _ = calls.grant()

    async def broken(error: BaseException) -> None:
        async with calls.call(grant) as call:
            call.status = 200
            call.usage = Usage(input_tokens=9)
            raise error

    for error in (RuntimeError(), asyncio.CancelledError()):
        with pytest.raises(type(error)):
            await broken(error)
    assert (calls.total.calls, calls.total.failed, calls.total.usage.input_tokens) == (2, 2, 18)
    assert admission.calls_running == 0


async def test_calls_wait_and_are_told_when_in_vain() -> None:
    admission = door(max_calls=1)
    calls = made(admission, queue_timeout_s=0.01)
    grant, _ = calls.grant()
    async with calls.call(grant):
        assert (admission.calls_running, admission.running) == (1, 0)
        with pytest.raises(EngineError, match="API call waited") as late:
            await one(calls, grant)
    assert late.value.kind == "queue_timeout"
    await one(calls, grant)
    assert calls.total.calls == 2  # what was not admitted is no call


async def test_a_full_queue() -> None:
    calls = made(door(max_calls=1, max_queued=0))
    grant, _ = calls.grant()
    async with calls.call(grant):
        with pytest.raises(EngineError, match="API calls wait") as full:
            await one(calls, grant)
    assert full.value.kind == "queue_full"


async def test_who_pays_decides_the_class() -> None:
    admission = door(max_calls=1)
    calls = made(admission)
    order: list[str] = []

    async def call(client: str, priority: Any) -> None:
        grant, _ = calls.grant()
        calls.charge(grant.grant_id, lambda: Payer(client, priority=priority))
        async with calls.call(grant) as call:
            order.append(client)
            call.status, call.finished = 200, True

    grant, _ = calls.grant()
    async with calls.call(grant), asyncio.timeout(20):
        waiting = [asyncio.create_task(call("batch", "batch"))]
        await until(lambda: admission.calls_queued == 1)
        waiting.append(asyncio.create_task(call("person", "interactive")))
        await until(lambda: admission.calls_queued == 2)
    await asyncio.gather(*waiting)
    assert order == ["person", "batch"]


async def test_what_a_call_hears_reaches_the_one_who_keeps_it() -> None:
    calls = made()
    grant, _ = calls.grant()
    async with calls.call(grant) as call:
        assert call.failure is None
        call.note_limits(LimitsHeard(2, 2.0, status=429, retry_after_s=1.5))
        call.note_limits(LimitsHeard(1, 3.0, status=200, retry_after_s=9.0))
    newest = calls.limits.snapshot()
    assert newest is not None
    assert (newest.seen_at, newest.status, newest.retry_after_ms) == (2.0, 429, 1500)


async def test_counts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CLIENTS", 2)
    monkeypatch.setattr(module, "MOST_TURNS", 2)
    calls = made()
    grant, _ = calls.grant()
    for client in ("a", "b", "a", "c"):
        calls.charge(grant.grant_id, lambda client=client: Payer(client, turn_id=f"t{client}"))  # type: ignore[misc]
        await one(calls, grant)
    assert [each.client for each in calls.clients()] == ["a", "c"]
    assert [each.turn_id for each in calls.turns()] == ["ta", "tc"]
    assert calls.total.calls == 4


async def test_what_a_turn_may_cost() -> None:
    calls = made()
    grant, _ = calls.grant()
    payer = Payer("me", turn_id="t-1", max_cost_usd=0.5)
    calls.charge(grant.grant_id, lambda: payer)
    assert calls.overspent(payer) is None
    for cost in (0.25, None, 0.25):
        assert calls.overspent(payer) is None
        async with calls.call(grant) as call:
            call.cost_usd = cost
    assert calls.overspent(payer) == 0.5
    assert calls.overspent(Payer("me", turn_id="t-1")) is None, "it has no bound"
    assert calls.overspent(Payer("me", max_cost_usd=0.0)) is None, "it is nobody's turn"
    assert calls.overspent(Payer("me", turn_id="t-2", max_cost_usd=0.5)) is None


async def test_what_was_not_asked_is_not_counted() -> None:
    calls = made()
    grant, _ = calls.grant()
    async with calls.call(grant) as call:
        call.unasked = True
    assert (calls.total.calls, grant.counts.calls) == (0, 0)


async def test_limits_of_another_provider_are_not_told_as_these() -> None:
    calls = made()
    calls.unheard = frozenset({"bedrock"})
    for credential in ("bedrock", "apiKey"):
        async with calls.call_of(Payer("ann", credential=credential), lambda _told: None) as call:
            call.note_limits(LimitsHeard(1, 7.0, 429, retry_after_s=0.0))
            call.status, call.finished = 429, True
        assert (calls.limits.snapshot() is None) == (credential == "bedrock")
