"""A stop in order in the middle of a turn: the real Claude Code, in front of the simulator."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import connect
from dragoman_sim.remote import Remote, in_process
from dragoman_sim.script import Gate, Reply, Rule, When

SCRIPT = [Rule(When(text="slowly"), Reply(["It begins ", Gate("middle"), "and ends."]))]
PATIENCE_S = 60


@pytest.fixture(scope="module")
def sim() -> Iterator[Remote]:
    with in_process(SCRIPT) as sim:
        yield sim


@pytest.fixture
def home(new_home: Callable[..., Any], sim: Remote) -> Any:
    home = new_home()
    home.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": "sk-ant-api03-for-the-simulator"}
    home.env |= {"DRAGOMAN_DAEMON__GRACE_MS": "600000"}
    sim.reset()
    return home


@pytest.fixture
def begin(home: Any, sim: Remote, converse: Callable[..., Any], tmp_path: Path) -> Callable[[], Any]:
    """Connect, begin a turn and wait until it is in its middle; returns the conversation and the request."""
    folder = tmp_path / "work"
    folder.mkdir()
    turns: list[None] = []

    def begin() -> Any:
        turns.append(None)
        client = converse(connect(home.paths))
        client.ask("initialize")
        request = client.send("query/run", {"prompt": "Tell it slowly.", "cwd": str(folder)})
        sim.wait_arrived("middle", len(turns), PATIENCE_S)
        return client, request

    return begin


def drain(process: Any, client: Any) -> None:
    """Send the first signal and ask until it has been heard: a matter of a few round trips."""
    process.send_signal(signal.SIGTERM)
    states = (client.ask("daemon/status")["result"]["state"] for _ in range(10_000))
    assert "draining" in states


def test_a_turn_may_finish_within_the_grace(home: Any, sim: Remote, begin: Callable[[], Any]) -> None:
    process, _ = home.foreground()
    client, request = begin()
    drain(process, client)
    refusal = client.ask("query/run", {"prompt": "Me too!"})["error"]
    assert (refusal["data"]["kind"], refusal["data"]["retryable"]) == ("draining", True)
    assert not os.path.exists(home.paths.socket)
    sim.gate("middle", "open")
    assert client.answer(request)["result"]["text"] == "It begins and ends."
    assert client.ended()
    assert process.wait(PATIENCE_S) == 0
    assert home.others(process.pid) == []
    process.communicate()


def test_a_second_signal_ends_the_turn_at_once(home: Any, begin: Callable[[], Any]) -> None:
    process, _ = home.foreground()
    client, request = begin()
    drain(process, client)
    process.send_signal(signal.SIGTERM)
    answer = client.answer(request)
    assert answer["error"]["data"]["kind"] == "turn_interrupted"
    assert client.ended()
    assert process.wait(PATIENCE_S) == 0
    assert home.others(process.pid) == []
    assert home.said()[-1] == "stopped"
    process.communicate()
