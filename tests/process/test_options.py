"""What a client chooses, through the whole daemon to the real Claude Code: servers, forms, hooks."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dragoman.locate import connect
from dragoman_sim.remote import Remote, in_process
from dragoman_sim.script import Reply, Rule, ToolUse, When

SERVER = '''
import os
from mcp.server import MCPServer

server = MCPServer("library")


@server.tool()
def find(title: str, year: int = 1900) -> str:
    """Find a book."""
    return f"{title} ({year}) stands in {os.environ['SHELF']}"


server.run()
'''


@pytest.fixture(scope="module")
def sim() -> Iterator[Remote]:
    with in_process() as sim:
        yield sim


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def client(home: Any, sim: Remote, converse: Callable[..., Any]) -> Any:
    home.env |= {"ANTHROPIC_BASE_URL": sim.url, "ANTHROPIC_API_KEY": "sk-ant-api03-for-the-simulator"}
    sim.reset()
    home.locate()
    client = converse(connect(home.paths))
    client.ask("initialize", {"scopes": ["query", "tools", "admin"]})
    return client


def run(client: Any, prompt: str, **params: Any) -> Any:
    answer = client.ask("query/run", {"prompt": prompt, **params})
    assert "result" in answer, answer
    return answer["result"]


def items(client: Any, result: Any, kind: str) -> list[Any]:
    page = client.ask("session/messages", {"sessionId": result["sessionId"]})["result"]["data"]
    return [item["body"] for item in page if item["kind"] == kind]


def test_a_server_of_the_mcp_library(client: Any, sim: Remote, work: Path, tmp_path: Path) -> None:
    """Its tool has a schema, gets its arguments, runs with its own environment, and answers the model."""
    (tmp_path / "server.py").write_text(SERVER)
    find = ToolUse("mcp__library__find", {"title": "Emma", "year": 1815})
    sim.use([Rule(When(text="Emma"), [Reply([find]), "Found."])])
    command = {
        "command": sys.executable,
        "args": [str(tmp_path / "server.py")],
        "env": {"SHELF": "the third shelf"},
    }
    result = run(
        client,
        "Where is Emma?",
        cwd=str(work),
        mcpServers={"library": command},
        allowedTools=["mcp__library__find"],
    )
    assert result["text"] == "Found."
    (answer,) = items(client, result, "toolResult")
    assert "Emma (1815) stands in the third shelf" in json.dumps(answer["content"])
    asked = [each for each in sim.requests() if each["path"].endswith("/v1/messages")]
    assert len(asked) == 2


def test_an_answer_in_a_form(client: Any, sim: Remote, work: Path) -> None:
    """What does not fit is asked again with the reason, in one conversation of Claude Code's."""
    sim.use(
        [Rule(When(text="does not fit the schema"), '{"city": "Paris"}'), Rule(When(), '{"city": 7}')]
    )
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    result = run(client, "The capital of France?", cwd=str(work), outputSchema=schema)
    assert result["upstream"] == "claudeCode"
    structured = result["structured"]
    assert structured["value"] == {"city": "Paris"}
    first, second = structured["attempts"]
    assert first["path"] == "$.city"
    assert "error" not in second
    assert result["costUsd"] == pytest.approx(first["costUsd"] + second["costUsd"])


def test_hooks_of_settings_can_be_seen(client: Any, sim: Remote, work: Path) -> None:
    sim.use([])
    hook = {"type": "command", "command": f"echo seen > {work}/hook.txt; echo from the hook"}
    settings = {"hooks": {"UserPromptSubmit": [{"hooks": [hook]}]}}
    for told in (True, False):
        request = client.send(
            "query/run",
            {
                "prompt": "hello",
                "cwd": str(work),
                "settings": settings,
                "hookEvents": told,
                "partialResultToken": 1,
            },
        )
        frames = []
        while request not in client.responses:
            message = json.loads(client.file.readline())
            if "method" in message:
                event = message["params"]["value"]["event"]
                frames += [event["frame"]] if event["type"] == "raw" else []
            else:
                client.responses[message["id"]] = message
        assert "result" in client.answer(request), client.answer(request)
        assert (work / "hook.txt").read_text() == "seen\n"
        hooks = [frame for frame in frames if frame.get("hook_event") == "UserPromptSubmit"]
        subtypes = [frame["subtype"] for frame in hooks]
        assert subtypes == (["hook_started", "hook_response"] if told else [])
        assert not told or "from the hook" in hooks[-1]["output"]
        (work / "hook.txt").unlink()
