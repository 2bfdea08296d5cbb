"""`dragoman agents` and `dragoman models`."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.agent import (
    AgentDefinition,
    AgentGetResult,
    AgentInfo,
    AgentListResult,
    AgentProblem,
)
from dragoman_protocol.model import MODELS, ModelListResult
from dragomand.engine.agent_files import parse

LIST = AgentListResult(
    data=[
        AgentInfo(name="debugger", description="Finds\nbugs", source="preset", group="debugging"),
        AgentInfo(name="crypto_auditor", description="Audits", source="preset", group="security"),
        AgentInfo(name="mine", description="My\x1b own", source="user", path="/a/mine.md"),
    ],
    problems=[AgentProblem(path="/a/bad.md", reason="no prompt")],
    folder="/a",
)


@pytest.fixture
def served(scripted: Any, home: Any) -> Any:
    scripted.listen(home.paths.socket)
    scripted.answers("agent/list", LIST)
    definition = AgentDefinition(
        description="Finds", prompt="You find.\nAll.", tools=["Read", "Grep"], max_turns=3
    )
    scripted.answers("agent/get", AgentGetResult(agent=LIST.data[0], definition=definition))
    scripted.answers("model/list", ModelListResult(data=list(MODELS[:2])))
    return scripted


@pytest.mark.parametrize("command", [["agents"], ["agents", "list"]])
def test_listing(run: Callable[..., Any], served: Any, command: list[str]) -> None:
    done = run(*command)
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "debugging\n  debugger               Finds\n"
        "\nsecurity\n  crypto_auditor         Audits\n"
        "\nyour own\n  mine                   My own\n"
        "\nnot usable\n  /a/bad.md: no prompt\n"
    )


def test_where_ones_own_would_be(run: Callable[..., Any], served: Any) -> None:
    served.answers("agent/list", AgentListResult(data=LIST.data[:1], folder="/conf/agents"))
    assert run("agents", "list", "--group", "debugging").out.endswith("\nYour own would be in /conf/agents\n")
    assert ("agent/list", {"group": "debugging"}) in served.requests


def test_as_json(run: Callable[..., Any], served: Any) -> None:
    assert [each["name"] for each in json.loads(run("agents", "list", "--json").out)["data"]] == [
        "debugger",
        "crypto_auditor",
        "mine",
    ]
    assert json.loads(run("agents", "show", "debugger", "--json").out)["definition"]["maxTurns"] == 3
    assert [each["alias"] for each in json.loads(run("models", "--json").out)["data"]] == ["opus", "sonnet"]


def test_one_is_shown_as_the_file_that_it_could_be(run: Callable[..., Any], served: Any) -> None:
    done = run("agents", "show", "debugger")
    assert (done.status, done.out) == (
        0,
        "---\nname: debugger\ndescription: Finds\ntools: Read, Grep\nmaxTurns: 3\n---\n\nYou find.\nAll.\n",
    )
    assert ("agent/get", {"name": "debugger"}) in served.requests


def test_what_is_shown_can_be_read_again(run: Callable[..., Any], served: Any) -> None:
    definition = AgentDefinition(description="First.\nSecond.", prompt="Go.", tools=["Read"], background=True)
    served.answers("agent/get", AgentGetResult(agent=LIST.data[0], definition=definition))
    assert parse(run("agents", "show", "debugger").out, "x") == ("debugger", definition)


def test_one_that_is_not_there(run: Callable[..., Any], served: Any) -> None:
    served.fails("agent/get", "agent_not_found")
    done = run("agents", "show", "nobody")
    assert (done.status, done.out) == (1, "")
    assert "There is no such agent" in done.err


def test_models(run: Callable[..., Any], served: Any) -> None:
    lines = run("models").out.splitlines()
    assert [line.split()[:2] for line in lines] == [[row.alias, row.model] for row in MODELS[:2]]
