"""The clients with the real daemon, the real Claude Code and, behind it, the simulator."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dragoman
import pytest
from dragoman.errors import (
    AgentNotFoundError,
    BudgetExhaustedError,
    RequestCancelledError,
    SessionNotFoundError,
)
from dragoman.sync import Client
from dragoman_protocol.budget import BudgetRaiseParams
from dragoman_protocol.lifecycle import PermissionDecision, PermissionRequestParams
from dragoman_protocol.stream import (
    AssistantText,
    PermissionResolved,
    TextDelta,
    ToolResult,
    ToolUse,
    TurnCompleted,
)
from dragoman_sim.remote import in_process
from dragoman_sim.script import Gate, Reply, Rule, When
from dragoman_sim.script import ToolUse as Use

KEY = "sk-ant-api03-anything"
RULES = [
    Rule(When(text="who was first"), "You said first: {first_prompt}"),
    Rule(When(text="slowly"), Reply(["Half of it, ", Gate("half"), "and the rest."])),
    Rule(
        When(text="write"),
        [Reply([Use("Write", {"file_path": "{cwd}/note.txt", "content": "by Claude"})]), "Tried."],
    ),
]


@pytest.fixture
def world(place: Any, tmp_path: Path) -> Iterator[Any]:
    """A home with a simulator behind it: `env`, `sim`, and a folder to work in."""
    with in_process(RULES) as sim:
        kept = {name: value for name, value in os.environ.items() if name.startswith("COV") or name == "PATH"}
        place.env = {
            **kept,
            "HOME": place.env["HOME"],
            "XDG_RUNTIME_DIR": place.env["XDG_RUNTIME_DIR"],
            "ANTHROPIC_BASE_URL": sim.url,
            "ANTHROPIC_API_KEY": KEY,
        }
        place.sim = sim
        place.work = tmp_path / "work"
        place.work.mkdir()
        yield place


def connect(world: Any, **options: Any) -> Client:
    return dragoman.connect("tests", env=world.env, **options)


def test_a_conversation_that_outlives_the_daemon(world: Any) -> None:
    with connect(world) as claude:
        first = claude.query("Remember the moon.", cwd=world.work)
        assert first.text == "You said: Remember the moon."
        assert claude.auth_status().source == "environment"
        assert claude.server.server_info.name == "dragoman"
    agents = [
        record["headers"]["user-agent"] for record in world.sim.requests() if record["method"] == "POST"
    ]
    assert agents
    assert all(agent.startswith("claude-cli/") for agent in agents)
    world.kill(signal.SIGTERM)
    with connect(world) as claude:
        second = claude.query("who was first?", session_id=first.session_id)
        assert second.text == "You said first: Remember the moon."
        assert second.session_id == first.session_id
        with pytest.raises(SessionNotFoundError):
            claude.session_get(session_id="12345678-1234-1234-1234-123456789012")


def test_an_answer_that_is_stopped_half_way(world: Any) -> None:
    with connect(world) as claude:
        streaming = claude.stream("slowly, please", cwd=world.work)
        for event in streaming:
            if isinstance(event, TextDelta):
                streaming.cancel()
        assert isinstance(streaming.last.event, TurnCompleted)  # type: ignore[union-attr]
        with pytest.raises(RequestCancelledError) as cancelled:
            _ = streaming.result
        assert cancelled.value.data.text == "Half of it, "  # type: ignore[attr-defined]
        again = claude.query("who was first?", session_id=streaming.last.session_id)  # type: ignore[union-attr]
        assert again.text == "You said first: slowly, please"


@pytest.mark.parametrize("allowed", [True, False])
def test_a_permission(world: Any, allowed: bool) -> None:
    asked: list[PermissionRequestParams] = []

    def decide(question: PermissionRequestParams) -> PermissionDecision:
        asked.append(question)
        return PermissionDecision(decision="allow" if allowed else "deny", message="Not today.")

    with connect(world, on_permission=decide) as claude:
        events = list(claude.stream("write it down", cwd=world.work))
    note = world.work / "note.txt"
    assert [question.tool_name for question in asked] == ["Write"]
    assert asked[0].input["file_path"] == str(note)
    assert note.exists() == allowed
    kinds = [type(event) for event in events]
    assert [kind for kind in kinds if kind in (ToolUse, ToolResult, AssistantText)] == [
        ToolUse,
        ToolResult,
        AssistantText,
    ]
    (resolved,) = [event for event in events if isinstance(event, PermissionResolved)]
    assert resolved.decision == ("allow" if allowed else "deny")


def test_00_30_a_budget_of_nothing_is_raised(world: Any) -> None:
    asked: list[BudgetRaiseParams] = []

    def more(question: BudgetRaiseParams) -> float | None:
        asked.append(question)
        return None if len(asked) == 1 else 5

    with connect(world, scopes=["query", "approve", "admin"], on_budget=more) as claude:
        claude.budget_set(scope="hour", limit_usd=0)
        with pytest.raises(BudgetExhaustedError):
            claude.query("Hello", upstream="messagesApi")
        assert claude.query("Hello", upstream="messagesApi").text == "You said: Hello"
        (hour,) = claude.budget_get(scope="hour").budgets
    assert [(each.budget.scope, each.budget.limit_usd) for each in asked] == [("hour", 0), ("hour", 0)]
    assert asked[0].needed_usd > 0
    assert hour.limit_usd == 5
    with connect(world) as other:  # it is the cap that was raised, not this client's alone
        assert other.query("Hello", upstream="messagesApi").text == "You said: Hello"


async def test_00_30_a_budget_of_nothing_is_raised_with_asyncio(world: Any) -> None:
    async def more(question: BudgetRaiseParams) -> float:
        assert (await claude.budget_get(scope="all")).budgets[0].limit_usd == 0
        return question.needed_usd + 1

    scopes: Any = ["query", "approve", "admin"]
    async with dragoman.aio.connect("tests", env=world.env, scopes=scopes, on_budget=more) as claude:
        await claude.budget_set(scope="all", limit_usd=0)
        answer = await claude.query("Hello", upstream="messagesApi")
        assert answer.text == "You said: Hello"


async def test_with_asyncio(world: Any) -> None:
    async with dragoman.aio.connect("tests", env=world.env) as claude:
        pieces = [text async for text in claude.stream("Hello there", cwd=world.work).texts()]
        assert "".join(pieces) == "You said: Hello there"
        assert len(pieces) > 1
        task = asyncio.create_task(claude.query("slowly", cwd=world.work))
        await asyncio.to_thread(world.sim.wait_arrived, "half", 1, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(world.sim.wait_for, 1, text="slowly", outcome="abandoned", deadline_s=30)


def test_ask_and_ctrl_c(world: Any) -> None:
    command = [sys.executable, "-P", "-m", "dragoman.cli.main", "ask", "slowly"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        command, env=world.env, cwd=world.work, stdin=subprocess.DEVNULL, **pipes
    ) as process:
        first = process.stdout.read(12)  # type: ignore[union-attr]
        process.send_signal(signal.SIGINT)
        rest, err = process.stdout.read(), process.stderr.read()  # type: ignore[union-attr]
    assert (process.returncode, first + rest) == (130, "Half of it, \n")
    assert err.startswith("Cancelled. Go on with: dragoman ask --session ")
    world.sim.wait_for(1, text="slowly", outcome="abandoned", deadline_s=30)
    again = [*command[:-1], "who was first?", "--continue"]
    done = subprocess.run(
        again, env=world.env, cwd=world.work, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "You said first: slowly\n", "")


def test_one_client_works_and_another_watches(world: Any) -> None:
    with connect(world) as worker, connect(world) as watcher:
        opened = worker.stream_open(cwd=str(world.work))
        worker.stream_send(session_id=opened.session_id, prompt="first")
        watching = watcher.events(opened.session_id)
        seen: list[str] = []
        for event in watching:
            if isinstance(event, AssistantText):
                seen.append(event.text)
            if isinstance(event, TurnCompleted) and len(seen) == 1:
                worker.stream_send(session_id=opened.session_id, prompt="second")
            elif isinstance(event, TurnCompleted):
                break
        worker.stream_close(session_id=opened.session_id)
        assert seen == ["You said: first", "You said: second"]
        assert watching.last is not None
        replayed = watcher.events(opened.session_id)
        numbers = []
        for _ in replayed:
            if replayed.last is not None and replayed.last.seq is not None:
                numbers.append(replayed.last.seq)
            if numbers[-1:] == [watching.last.seq]:
                break
        assert numbers == list(range(1, len(numbers) + 1))


def test_an_agent_of_the_users_own_and_none_of_the_folders(world: Any) -> None:
    """02.26, 02.30; who has written a repository does not choose who answers in it."""
    world.sim.reset()
    mine = Path(world.paths.config_file).parent / "agents" / "sam.md"
    theirs = world.work / ".claude" / "agents" / "trap.md"
    for file in (mine, theirs):
        file.parent.mkdir(parents=True)
        file.write_text(
            f"---\ndescription: of {file.stem}\ntools: Read\nmodel: haiku\n---\nYou are {file.stem}.\n"
        )
    with connect(world) as claude:
        assert [each.name for each in claude.agent_list().data if each.source == "user"] == ["sam"]
        answer = claude.query("hello", cwd=world.work, agent="sam")
        assert str(answer.model).startswith("claude-haiku-")
        with pytest.raises(AgentNotFoundError, match="There is no agent `trap`"):
            claude.query("hello", cwd=world.work, agent="trap")
    bodies = [str(record["body"]) for record in world.sim.requests() if record["path"] == "/v1/messages"]
    assert len(bodies) == 1
    assert "You are sam." in bodies[0]
    assert "trap" not in bodies[0]
