"""Forks through the whole daemon: the real Claude Code and the Messages API, and every token counted once."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import connect
from dragoman_sim.remote import Remote, in_process
from dragoman_sim.script import Gate, Reply, Rule, Tokens, ToolUse, When

PATIENCE_S = 60
IN, OUT = 1000, 10
PRICES = {"claudeCode": (4e-6, 20e-6), "messagesApi": (2e-6, 10e-6)}
"""What a token in and a token out cost of each upstream's default model: Opus 5.5 and Sonnet 5.5."""
USAGE = Tokens(input_tokens=IN, output_tokens=OUT)
SCRIPT = [
    Rule(When(text="remember"), Reply(["You began with: {first_prompt}"], usage=USAGE)),
    Rule(When(), Reply(["You said: {prompt}"], usage=USAGE)),
]


@pytest.fixture(scope="module")
def sim() -> Iterator[Remote]:
    with in_process(SCRIPT) as sim:
        yield sim


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def client(home: Any, sim: Remote, converse: Callable[..., Any]) -> Any:
    home.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": "sk-ant-api03-for-the-simulator"}
    sim.use(SCRIPT)
    sim.reset()
    home.locate()
    client = converse(connect(home.paths))
    client.ask("initialize", {"scopes": ["query", "tools", "read-all-sessions"]})
    return client


def run(client: Any, prompt: str, **params: Any) -> Any:
    answer = client.ask("query/run", {"prompt": prompt, **params})
    assert "result" in answer, answer
    return answer["result"]


DIRECT = {"upstream": "messagesApi"}


@pytest.mark.parametrize("upstream", ["claudeCode", "messagesApi"])
def test_sums_are_the_truth(
    home: Any, client: Any, sim: Remote, work: Path, converse: Callable[..., Any], upstream: str
) -> None:
    """(02.4, 00.14) Whatever was forked from whatever, what the sessions took is what the API counted.

    Also over the daemon's end and a new one; and `stats/get` and `budget/get` say the same (03.17).
    """
    begin = {"cwd": str(work)} if upstream == "claudeCode" else DIRECT
    first = run(client, "Plan A", **begin)
    results = [first, run(client, "on", sessionId=first["sessionId"])]
    early = run(client, "remember", fork={"sessionId": first["sessionId"], "atTurnId": first["turnId"]})
    whole = run(client, "remember", fork={"sessionId": first["sessionId"]})
    results += [early, whole, run(client, "on", sessionId=early["sessionId"])]
    made = client.ask("session/fork", {"sessionId": early["sessionId"]})["result"]["session"]["sessionId"]
    results += [run(client, "more", sessionId=first["sessionId"]), run(client, "remember", sessionId=made)]
    home.kill()
    home.locate()
    client = converse(connect(home.paths))
    client.ask("initialize", {"scopes": ["query", "tools", "read-all-sessions", "admin"]})
    results += [run(client, "on", sessionId=first["sessionId"])]
    results += [run(client, "remember", fork={"sessionId": made})]
    assert {result["upstream"] for result in results} == {upstream}
    said = [result["text"] for result in results if "remember" not in result["text"]]
    assert said.count("You began with: Plan A") == 4
    sessions = client.ask("session/list")["result"]["data"]
    assert len(sessions) == 5
    calls = [request for request in sim.requests() if request["path"].endswith("/v1/messages")]
    assert len(calls) == len(results) == 9
    usage = [session["usage"] for session in sessions]
    assert sum(each["inputTokens"] for each in usage) == IN * len(calls)
    assert sum(each["outputTokens"] for each in usage) == OUT * len(calls)
    costs = [result["costUsd"] for result in results]
    assert max(costs) == pytest.approx(min(costs)), "each is one call of the same size"
    in_usd, out_usd = PRICES[upstream]
    assert sum(costs) == pytest.approx(len(calls) * (IN * in_usd + OUT * out_usd))
    assert sum(session["costUsd"] for session in sessions) == pytest.approx(sum(costs))
    total = client.ask("stats/get")["result"]["total"]
    assert (total["turns"], total["usage"]["inputTokens"]) == (len(calls), IN * len(calls))
    assert total["costUsd"] == pytest.approx(sum(costs))
    [day] = client.ask("budget/get", {"scope": "day"})["result"]["budgets"]
    assert day["spentUsd"] == pytest.approx(sum(costs))


@pytest.mark.parametrize("upstream", ["claudeCode", "messagesApi"])
def test_who_answers_is_inherited(client: Any, sim: Remote, work: Path, upstream: str) -> None:
    """By the next turn, and by a fork's, whichever upstream answers: what reaches the API is the same."""
    begin = {"cwd": str(work)} if upstream == "claudeCode" else DIRECT
    named = {"model": "haiku", "systemPrompt": "You are a parrot."}
    first = run(client, "one", **begin, **named)
    run(client, "two", sessionId=first["sessionId"])
    forked = run(client, "three", fork={"sessionId": first["sessionId"]})
    run(client, "four", sessionId=forked["sessionId"], systemPrompt="You are an owl.")
    run(client, "five", sessionId=forked["sessionId"])
    bodies = [each["body"] for each in sim.requests() if each["path"].endswith("/v1/messages")]
    assert len(bodies) == 5
    assert all(body["model"].startswith("claude-haiku-") for body in bodies)
    prompts = [json.dumps(body["system"]) for body in bodies]
    assert ["parrot" in prompt for prompt in prompts] == [True, True, True, False, False]
    assert ["owl" in prompt for prompt in prompts] == [False, False, False, True, True]


def test_streams_and_files(client: Any, sim: Remote, work: Path) -> None:
    """A stream goes on from a turn of another session, and rewinds the files that were changed there."""
    note = work / "note.txt"
    note.write_text("before\n")
    read = ToolUse("Read", {"file_path": str(note)})
    write = ToolUse("Write", {"file_path": str(note), "content": "after\n"})
    sim.use([Rule(When(text="write"), [Reply([read]), Reply([write]), "Over."])])
    options = {"fileCheckpointing": True, "permissionMode": "acceptEdits"}
    first = run(client, "write", cwd=str(work), **options)
    assert note.read_text() == "after\n"
    fork = {"sessionId": first["sessionId"]}
    opened = client.ask("stream/open", {"fork": fork, **options})
    session_id = opened["result"]["sessionId"]
    sent = client.ask("stream/send", {"sessionId": session_id, "prompt": "hello"})
    assert "result" in sent, sent
    inherited = client.ask("session/get", {"sessionId": session_id})["result"]["turns"][0]
    assert inherited["forkedFrom"] == first["turnId"]
    asked = {"sessionId": session_id, "turnId": inherited["turnId"]}
    # While the turn runs it is refused; `stream/interrupt` waits for nothing, so ask until it is over.
    answers = (client.ask("stream/rewindFiles", {**asked, "dryRun": True}) for _ in range(10_000))
    dry = next(each["result"] for each in answers if "result" in each)
    assert (dry["files"], dry["rewound"]) == ([str(note)], False)
    assert note.read_text() == "after\n"
    assert client.ask("stream/rewindFiles", asked)["result"]["rewound"]
    assert note.read_text() == "before\n"
    client.ask("stream/close", {"sessionId": session_id})


def test_a_daemon_killed_in_a_forks_first_turn(
    home: Any, client: Any, sim: Remote, work: Path, converse: Callable[..., Any]
) -> None:
    """What Claude Code had copied until then, or nothing of it: the fork goes on from where it was forked."""
    first = run(client, "Plan A", cwd=str(work))
    slow = Rule(When(text="slowly"), Reply(["It begins ", Gate("middle"), "and ends."], usage=USAGE))
    sim.use([slow, *SCRIPT])
    fork_id = "00000000-0000-4000-8000-0000000000f0"
    client.send(
        "query/run",
        {"prompt": "slowly", "fork": {"sessionId": first["sessionId"]}, "newSessionId": fork_id},
    )
    sim.wait_arrived("middle", 1, PATIENCE_S)
    home.kill()
    sim.use(SCRIPT)  # what was not answered is part of the next question
    sim.reset()
    home.locate()
    client = converse(connect(home.paths))
    client.ask("initialize")
    found = client.ask("session/get", {"sessionId": fork_id})["result"]
    assert [turn["status"] for turn in found["turns"]] == ["completed", "interrupted"]
    assert found["session"]["forkedFrom"]["sessionId"] == first["sessionId"]
    assert run(client, "remember", sessionId=fork_id)["text"] == "You began with: Plan A"
    assert run(client, "on", sessionId=first["sessionId"])["text"] == "You said: on"


def test_the_commands(home: Any, client: Any, work: Path) -> None:
    first = run(client, "Plan A", cwd=str(work))
    more = ["--cwd", str(work), "--json"]
    done = home.dragoman("ask", "remember", "--fork", first["sessionId"][:8], *more, stdin=-3)
    assert done.returncode == 0, done.stderr
    forked = json.loads(done.stdout)
    assert forked["text"] == "You began with: Plan A"
    shown = home.dragoman("sessions", "show", forked["sessionId"]).stdout
    assert f"forked from {first['sessionId']}" in shown
    assert "> Plan A" in shown
    made = home.dragoman("sessions", "fork", first["sessionId"], "--title", "Other", "--json")
    assert json.loads(made.stdout)["session"]["title"] == "Other"
