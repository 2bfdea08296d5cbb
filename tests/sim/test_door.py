"""What the simulator's own limits let in, how they refuse, and what they count."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import pytest
from dragoman_sim import Limits, Record, Script, Simulator, Status, Window
from dragoman_sim.door import FLIGHT_S, Door
from dragoman_sim.faults import error_body, error_headers


def asked(key: str = "k", *, subscription: bool = False) -> Record:
    kind: Any = "authorization" if subscription else "x-api-key"
    return Record(1, "POST", "/v1/messages", "", {}, b"", 0.0, kind, key)


def words(refusal: Status) -> dict[str, str]:
    return dict(error_headers(refusal))


def test_each_form_of_the_pause() -> None:
    for form in ("seconds", "ms", "date", "none"):
        door = Door(Limits(requests_per_minute=40, retry_after=form))
        for _ in range(40):
            assert door.admit(asked(), 1, 0.0) is None
        refusal = door.admit(asked(), 1, 0.0)
        assert refusal is not None
        assert refusal.status == 429
        said = words(refusal)
        if form == "seconds":
            assert said["retry-after"] == "2"  # 1.5 s, never less than it takes
        elif form == "ms":
            assert said["retry-after-ms"] == "1500"
            assert "retry-after" not in said
        elif form == "date":
            at = parsedate_to_datetime(said["retry-after"]).timestamp()
            assert 0.5 <= at - time.time() <= 3
        else:
            assert not any(name.startswith("retry-after") for name in said)


def test_who_comes_before_the_pause_is_over_is_counted() -> None:
    door = Door(Limits(requests_per_minute=60))
    for _ in range(60):
        door.admit(asked(), 1, 0.0)
    assert door.admit(asked(), 1, 0.0) is not None  # one second's pause
    assert door.admit(asked(), 1, FLIGHT_S / 2) is not None  # was sent before anybody could know
    assert door.counts()["total"]["early"] == 0
    assert door.admit(asked(), 1, 0.5) is not None
    assert door.counts()["total"]["early"] == 1
    assert door.admit(asked("another"), 1, 0.5) is None
    assert door.admit(asked(), 1, 2.0) is None
    assert door.counts() == {
        "total": {"requests": 65, "admitted": 62, "throttled": 3, "quota": 0, "early": 1},
        "credentials": {
            "k": {"requests": 64, "admitted": 61, "throttled": 3, "quota": 0, "early": 1},
            "another": {"requests": 1, "admitted": 1, "throttled": 0, "quota": 0, "early": 0},
        },
    }


def test_who_never_stops_asking_is_early_all_the_time() -> None:
    door = Door(Limits(requests_per_minute=60, burst_s=1))
    for n in range(1, 90):
        door.admit(asked(), 1, n / 100)  # one is let in at once, the others are to come a second later
    assert door.counts()["total"] == {
        "requests": 89, "admitted": 1, "throttled": 88, "quota": 0, "early": 77,
    }  # fmt: skip


def test_without_a_pause_nobody_is_early() -> None:
    door = Door(Limits(requests_per_minute=1, retry_after="none"))
    for _ in range(3):
        door.admit(asked(), 1, 0.0)
    door.admit(asked(), 1, 1.0)
    assert door.counts()["total"] == {"requests": 4, "admitted": 1, "throttled": 3, "quota": 0, "early": 0}


def test_windows_are_a_subscriptions_alone() -> None:
    door = Door(Limits(requests_per_minute=100, windows=[Window("5h", max_requests=1, seconds=50)]))
    one = asked(subscription=True)
    assert door.admit(one, 1, 0.0) is None
    names = [name for name, _ in door.headers(one, 0.0)]
    assert all(name.startswith("anthropic-ratelimit-unified-") for name in names)
    refusal = door.admit(one, 1, 10.0)
    assert refusal is not None
    assert (refusal.status, words(refusal)["retry-after"]) == (429, "40")
    assert door.counts()["total"]["quota"] == 1
    for _ in range(3):
        assert door.admit(asked("key"), 1, 10.0) is None
    assert "anthropic-ratelimit-requests-limit" in dict(door.headers(asked("key"), 10.0))


@pytest.mark.parametrize(("form", "status"), [("cap", 429), ("limit", 400), ("balance", 402)])
def test_each_form_of_a_spend_cap(form: Any, status: int) -> None:
    door = Door(Limits(spend_tokens=10, spend_answer=form))
    assert door.admit(asked(), 4, 0.0) is None
    door.settle(asked(), 6, 0.0)
    refusal = door.admit(asked(), 1, 0.0)
    assert refusal is not None
    said = msgspec.json.decode(error_body(refusal, "req")[1])["error"]
    assert refusal.status == status
    if form == "cap":
        assert said["details"] == {"error_code": "enforced_spend_limit_reached"}
    if form == "limit":
        assert "You will regain access on 20" in said["message"]
        assert said["message"].endswith("-01 at 00:00 UTC.")
    assert door.admit(asked("another"), 1, 0.0) is None


def test_nothing_is_refused_where_nothing_is_enforced() -> None:
    window = Window("5h", max_requests=1)
    door = Door(Limits(requests_per_minute=1, spend_tokens=1, windows=[window], enforce=False))
    for _ in range(5):
        assert door.admit(asked(subscription=True), 5, 0.0) is None
    assert door.counts()["total"]["admitted"] == 5


async def test_counts_are_told_over_http(http: Any) -> None:
    async with Simulator(Script(limits=Limits(requests_per_minute=1))) as sim:
        for _ in range(3):
            await http.message(sim.url, "hello")
        said = (await http.ask(sim.url, "GET", "/_sim/limits")).json()
        assert said["total"] == {"requests": 3, "admitted": 1, "throttled": 2, "quota": 0, "early": 0}
        assert said == sim.limit_counts()
        sim.use(Script())
        assert sim.limit_counts() == {"total": dict.fromkeys(said["total"], 0), "credentials": {}}
