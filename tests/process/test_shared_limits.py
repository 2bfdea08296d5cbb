"""One limit that many processes share, and that neither a restart nor a kill of the daemon loosens."""

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import connect
from dragoman_sim.remote import Remote, in_process
from dragoman_sim.script import Limits, Reply, Rule, Script, Status, Tokens, When

BENCH = Path(__file__).parents[2] / "bench" / "limits.py"
KEY = "sk-ant-api03-for-the-simulator"
ANSWER = Rule(When(), Reply(["done"], usage=Tokens(input_tokens=1000, output_tokens=10)))
PER_MINUTE = 60
EACH_LIFE = 60
"""Queries sent to each of the daemons: one's burst, so that a second burst would be seen."""


@pytest.fixture
def sim() -> Iterator[Remote]:
    with in_process([ANSWER]) as sim:
        yield sim


@pytest.fixture
def begin(home: Any, sim: Remote, converse: Callable[..., Any]) -> Callable[[], Any]:
    """`begin()`: start the daemon, if there is none, and return a client that may do everything."""
    home.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": KEY}

    def begin() -> Any:
        home.locate()
        client = converse(connect(home.paths))
        client.ask("initialize", {"scopes": ["query", "admin"]})
        return client

    return begin


def done(answer: Any) -> Any:
    assert "result" in answer, answer
    return answer["result"]


def direct(prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "upstream": "messagesApi"}


@pytest.mark.slow
def test_one_limit_for_eight_processes() -> None:
    """(04.2, 00.28) Ten times the limit is offered: hardly a 429, none too early, most used, none starved."""
    command = [sys.executable, str(BENCH), "--only", "shared", "--seconds", "15", "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert run.returncode == 0, run.stderr
    [seen] = json.loads(run.stdout)
    assert seen["failed"] == 0, seen
    assert seen["left_out"] > 0, "more was offered than could be done"
    assert seen["refused_share"] <= 0.005, seen
    assert seen["early"] == 0, seen
    assert seen["used_share"] >= 0.9, seen
    assert seen["least_share"] >= 0.8, seen


def arrivals(sim: Remote) -> list[float]:
    return [each["at"] for each in sim.requests() if each["path"].endswith("/v1/messages")]


def kill_in_the_middle(home: Any, begin: Callable[[], Any], first: int) -> None:
    """Let three daemons be asked for a burst each, and kill each in the middle: the first after so many."""
    for answers in (first, 6, 6):
        client = begin()
        sent = [client.send("query/run", direct("on")) for _ in range(EACH_LIFE)]
        for request in sent[:answers]:
            assert "result" in client.answer(request)
        home.kill()


@pytest.mark.slow
def test_kills_loosen_no_limit_of_turns(home: Any, sim: Remote, begin: Callable[[], Any]) -> None:
    """(04.2) Over three lives, at every moment: no more than a minute's burst and the rate since."""
    begin()
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(sim.url + "/begin", timeout=10)
    start = sim.requests()[-1]["at"]
    kill_in_the_middle(home, begin, first=PER_MINUTE - 2)
    at = arrivals(sim)
    assert len(at) >= PER_MINUTE + 10
    assert [
        (number, each - start)
        for number, each in enumerate(at, 1)
        if number > PER_MINUTE + (each - start) * PER_MINUTE / 60
    ] == []


@pytest.mark.slow
def test_kills_loosen_no_limit_of_calls(home: Any, sim: Remote, begin: Callable[[], Any]) -> None:
    """The provider's rate, learnt from its headers: it refuses nothing, however often a daemon begins."""
    home.env["DRAGOMAN_LIMITS__QUERIES_PER_MINUTE"] = "0"
    sim.use(Script(rules=[ANSWER], limits=Limits(requests_per_minute=120, burst_s=20)))
    kill_in_the_middle(home, begin, first=38)
    counts = sim.limits()["total"]
    assert counts["requests"] >= 40
    assert counts["throttled"] == 0, counts


def test_what_was_set_and_spent_and_found_out_survives(
    home: Any, sim: Remote, begin: Callable[[], Any]
) -> None:
    """(04.18, 04.19) Limits, caps, spending, an open breaker: `kill -9` changes none."""
    sim.use([
        Rule(When(text="overloaded"), fault=Status(529)),
        ANSWER,
    ])  # fmt: skip
    client = begin()
    settings = {"limits.queriesPerMinute": 50, "breaker.failureThreshold": 1, "breaker.timeoutMs": 600_000}
    done(client.ask("limits/set", {"settings": settings}))
    done(client.ask("budget/set", {"scope": "day", "limitUsd": 5.0}))
    spent = done(client.ask("query/run", direct("hello")))["costUsd"]
    assert spent > 0
    assert "error" in client.ask("query/run", direct("overloaded"))
    home.kill()

    client = begin()
    kept = done(client.ask("limits/get"))
    assert {name: kept["settings"][name] for name in settings} == settings
    assert set(kept["changed"]) == set(settings)
    [day] = done(client.ask("budget/get", {"scope": "day"}))["budgets"]
    assert (day["limitUsd"], day["spentUsd"]) == (5.0, pytest.approx(spent))
    [breaker] = done(client.ask("breaker/state"))["breakers"]
    assert breaker["state"] == "open"
    had = len(arrivals(sim))
    assert "error" in client.ask("query/run", direct("hello"))
    assert len(arrivals(sim)) == had, "the breaker let nothing through"


def test_a_quota_that_is_used_up_costs_one_request_over_a_kill(
    home: Any, sim: Remote, begin: Callable[[], Any]
) -> None:
    """What was found out is kept before anybody hears of it."""
    spent = Status(429, error_code="enforced_spend_limit_reached", retry_after=3600)
    sim.use([Rule(When(text="more"), fault=spent), ANSWER])
    client = begin()
    kinds = [client.ask("query/run", direct("more"))["error"]["data"]["kind"]]
    home.kill()
    had = len(arrivals(sim))
    client = begin()
    kinds.append(client.ask("query/run", direct("more"))["error"]["data"]["kind"])
    assert kinds == ["quota_exhausted", "quota_exhausted"]
    assert len(arrivals(sim)) == had


def test_another_key_is_another_credential(home: Any, sim: Remote, begin: Callable[[], Any]) -> None:
    """Whoever replaces a key that was refused need not wait for the next try."""
    sim.use(Script(rules=[ANSWER], keys=["sk-ant-api03-a-good-one"]))
    assert begin().ask("query/run", direct("hello"))["error"]["data"]["kind"] == "auth_failed"
    home.kill()
    had = len(arrivals(sim))
    assert begin().ask("query/run", direct("hello"))["error"]["data"]["kind"] == "auth_failed"
    assert len(arrivals(sim)) == had, "the same one is let alone"
    home.kill()
    home.env["ANTHROPIC_API_KEY"] = "sk-ant-api03-a-good-one"
    assert done(begin().ask("query/run", direct("hello")))["text"]
