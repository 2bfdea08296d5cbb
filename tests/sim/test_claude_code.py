"""The real Claude Code CLI takes the simulator for the API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import claude_agent_sdk
import pytest
from dragoman_sim import Cut, Gate, Reply, Rule, Simulator, Thinking, ToolUse, When

CLI = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
DEADLINE_S = 60
SETTINGS = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
}


class Claude:
    """The CLI with nothing of its own: an empty home, an empty configuration, an empty folder to work in."""

    def __init__(self, folder: Path, key: str) -> None:
        self.work = folder / "work"
        self.env = {"PATH": "/usr/bin:/bin", "ANTHROPIC_API_KEY": key, **SETTINGS}
        for name, at in (("HOME", "home"), ("CLAUDE_CONFIG_DIR", "config"), ("PWD", "work")):
            (folder / at).mkdir()
            self.env[name] = str(folder / at)

    async def start(self, sim, prompt, *arguments):
        return await asyncio.create_subprocess_exec(
            CLI, "-p", prompt, "--output-format", "stream-json", "--verbose", "--include-partial-messages",
            *arguments,
            env={**self.env, "ANTHROPIC_BASE_URL": sim.url}, cwd=self.work, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def ask(self, sim, prompt, *arguments):
        """Every line of one run."""
        process = await self.start(sim, prompt, *arguments)
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def claude(tmp_path, key):
    return Claude(tmp_path, key)


async def test_a_reply_and_a_resumed_conversation(claude, key):
    rules = [
        Rule(When(text="again"), "You began with: {first_prompt}, in {cwd}"),
        Rule(reply=Reply([Thinking("Let me see."), "Hello ", Gate("half"), "there."])),
    ]
    async with Simulator(rules) as sim:
        await sim.gate("half").open()
        lines = await claude.ask(sim, "good morning")
        session = lines[-1]["session_id"]
        resumed = await claude.ask(sim, "and again", "--resume", session)
    assert (lines[-1]["result"], lines[-1]["is_error"]) == ("Hello there.", False)
    deltas = [
        line["event"]["delta"] for line in lines if line.get("event", {}).get("type") == "content_block_delta"
    ]
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello there."
    assert "".join(delta.get("thinking", "") for delta in deltas) == "Let me see."
    assert resumed[-1]["result"] == f"You began with: good morning, in {claude.work}"
    for record in sim.requests:
        assert record.from_claude_code
        assert record.used_key(key)
        assert record.claude_session_id == session
    assert [record.path for record in sim.requests] == ["/v1/messages"] * 2  # and it asks for nothing else


async def test_a_tool_really_edits_a_file(claude):
    file = claude.work / "poem.txt"
    file.write_text("roses are blue\n")
    rules = [
        Rule(When(text="correct"), [
            Reply([ToolUse("Read", {"file_path": "{cwd}/poem.txt"})]),
            Reply(["Found: ", ToolUse("Edit", {
                "file_path": "{cwd}/poem.txt", "old_string": "blue", "new_string": "red"})]),
            "It says: {tool_result}",
        ]),
    ]  # fmt: skip
    async with Simulator(rules) as sim:
        lines = await claude.ask(sim, "correct it", "--permission-mode", "acceptEdits")
    assert file.read_text() == "roses are red\n"
    assert lines[-1]["result"].startswith("It says: The file")
    assert "roses are blue" in sim.messages[1].conversation.tool_results[0]
    assert [record.status for record in sim.messages] == [200, 200, 200]


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ("unauthorized", 401, "API key"),
        ("overloaded", 529, "Overloaded"),
        (Cut("inside_block"), None, "Connection"),
    ],
)
async def test_faults_reach_its_result(claude, fault, status, words):
    async with Simulator([Rule(reply="Something that is longer than one piece.", fault=fault)]) as sim:
        result = (await claude.ask(sim, "x"))[-1]
    assert result["is_error"]
    assert result["api_error_status"] == status
    assert words in result["result"]
    assert all(record.from_claude_code for record in sim.requests)
    assert {record.outcome for record in sim.requests} == ({"cut"} if status is None else {"answered"})


async def test_when_it_ends_in_the_middle_the_simulator_knows(claude):
    async with Simulator([Rule(reply=Reply(["Hello ", Gate("never"), "there."]))]) as sim:
        process = await claude.start(sim, "x")
        record = await sim.wait_for(1, DEADLINE_S)
        await sim.gate("never").wait_arrived(deadline_s=DEADLINE_S)
        process.kill()
        await process.communicate()
        assert await sim.wait_ended(record) == "abandoned"
