"""The endpoints under /_sim/."""

from __future__ import annotations

import pytest
from dragoman_sim import Gate, Reply, Rule, Simulator


async def test_what_was_asked(http, key):
    async with Simulator() as sim:
        await http.message(sim.url, "hello")
        told = (await http.ask(sim.url, "GET", "/_sim/requests")).json()["requests"]
        assert len(sim.requests) == 1  # asking is no request
    assert told[0]["body"]["messages"][0]["content"] == "hello"
    assert (told[0]["number"], told[0]["outcome"], told[0]["status"]) == (1, "answered", 200)
    assert told[0]["headers"]["x-api-key"] == "…"


async def test_gates_from_outside(http):
    async with Simulator([Rule(reply=Reply(["a", Gate("a b")]))]) as sim:
        held = await http.start(sim.url, "x")
        arrived = await http.ask(sim.url, "POST", "/_sim/gates/a%20b/arrived?count=1")
        assert arrived.json() == {"open": False, "waiting": 1, "arrived": 1}
        assert (await http.ask(sim.url, "POST", "/_sim/gates/a%20b/release")).status == 200
        assert (await held.response()).text() == "a"
        assert (await http.ask(sim.url, "POST", "/_sim/gates/a%20b/open")).json()["open"] is True
        assert (await http.message(sim.url, "y")).text() == "a"
        assert (await http.ask(sim.url, "POST", "/_sim/gates/a%20b/close")).json()["open"] is False
        states = (await http.ask(sim.url, "GET", "/_sim/gates")).json()
    assert states == {"gates": {"a b": {"open": False, "waiting": 0, "arrived": 2}}}


async def test_waiting_for_requests(http):
    async with Simulator([Rule(reply=Reply(["a", Gate("g")]))]) as sim:
        waiting = await http.send(sim.url, "GET", "/_sim/wait?count=2&text=mine&outcome=ended")
        held = [await http.start(sim.url, prompt) for prompt in ("mine 1", "other", "mine 2")]
        begun = (await http.ask(sim.url, "GET", "/_sim/wait?count=2&text=mine")).json()
        assert begun["outcome"] == "answering"
        await sim.gate("g").wait_arrived(3)
        await held[2].close()
        ended = (await waiting.response()).json()
        assert (ended["number"], ended["outcome"]) == (begun["number"], "abandoned")
        gone = await http.ask(sim.url, "GET", "/_sim/wait?count=2&text=mine&outcome=abandoned")
        assert gone.json()["number"] == begun["number"]
        await http.ask(sim.url, "GET", "/v1/models")
        late = await http.ask(sim.url, "GET", "/_sim/wait?count=9&deadlineMs=1")
    assert late.status == 408
    assert "there were 4 requests" in late.json()["error"]


async def test_another_script_and_a_reset(http):
    async with Simulator() as sim:
        await http.message(sim.url, "x")
        assert (await http.ask(sim.url, "POST", "/_sim/script", b'[{"reply": "new"}]')).status == 200
        assert (await http.message(sim.url, "x")).text() == "new"
        wrong = await http.ask(sim.url, "POST", "/_sim/script", b'[{"fault": "odd"}]')
        assert wrong.status == 400
        assert "no fault 'odd'" in wrong.json()["error"]
        assert (await http.ask(sim.url, "POST", "/_sim/reset")).status == 200
        assert sim.requests == []
        assert (await http.message(sim.url, "x")).text() == "new"


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/_sim/nothing", 404, "There is no GET /_sim/nothing"),
        ("POST", "/_sim/gates/g/jump", 404, "There is no"),
        ("GET", "/_sim/wait?count=many", 400, "count is a number, not 'many'"),
        ("POST", "/_sim/gates/g/arrived?count=x", 400, "count is a number"),
        ("POST", "/_sim/gates/g/arrived?deadlineMs=1", 408, "1 replies at gate 'g'"),
    ],
)
async def test_what_cannot_be_done(http, method, path, status, words):
    async with Simulator() as sim:
        answer = await http.ask(sim.url, method, path)
    assert answer.status == status
    assert words in answer.json()["error"]


async def test_web_pages_are_refused(http):
    async with Simulator() as sim:
        assert (await http.ask(sim.url, "POST", "/_sim/reset", origin="http://x.example")).status == 403
