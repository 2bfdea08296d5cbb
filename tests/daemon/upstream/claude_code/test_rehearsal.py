"""A spare's rehearsal with the real CLI: nobody is asked, nothing is paid, the model sees nothing of it."""

import asyncio
import json
import logging
import re
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from dragoman_sim import Simulator
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.calls import Calls
from dragomand.gateway.gateway import Gateway, GatewaySettings
from dragomand.upstream.claude_code import PoolSettings
from dragomand.upstream.claude_code.rehearsal import may_rehearse
from dragomand.upstream.claude_code.transcript import REHEARSED
from dragomand.upstream.interface import RunSpec

SERVER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked: continue
    result = {"tools": [{"name": "shout", "description": "Shouts.", "inputSchema": {"type": "object"}}]}
    if asked["method"] == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "instructions": "Shout rarely.",
                  "serverInfo": {"name": "s", "version": "1"}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""

CHOICES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "late choices": {"model": "haiku", "permission_mode": "acceptEdits"},
    "prompts and tools": {"system_prompt": "Be brief.", "tools": ("Read", "Bash")},
    "an addition": {"append_system_prompt": "And kind.", "disallowed_tools": ("Bash",), "max_turns": 1},
    "agents": {"agents": {"poet": {"description": "Rhymes.", "prompt": "You rhyme."}}, "agent": "poet"},
    "no tools": {"tools": (), "effort": "low"},
}


class Place:
    """A simulator behind a gateway, and upstreams in front of it."""

    def __init__(self, world: Any, sim: Simulator) -> None:
        self.world = world
        self.sim = sim
        runtime = world.root / "run"
        runtime.mkdir(mode=0o700)
        admission = Admission(DoorSettings(), clock=time.monotonic)
        self.calls = Calls(admission, clock=time.time, queue_timeout_s=60)
        self.gateway = Gateway(
            calls=self.calls,
            api_key=lambda: world.key,
            settings=GatewaySettings(base_url=sim.url),
            runtime_dir=str(runtime),
            clock=time.time,
            logger=logging.getLogger("test"),
        )

    def upstream(self, **settings: Any) -> Any:
        chosen = {"max_spare": 1, "fill_delay_s": 0.0, "min_free_bytes": 0, "generic": False, **settings}
        made = self.world.upstream(self.sim, pool=PoolSettings(**chosen))
        made.open_access = self.gateway.open_access
        return made

    async def warm(self, upstream: Any, **choices: Any) -> Any:
        """Return a run on a spare that was started for these choices."""
        made = self.world.spec(**choices)
        recipe, _ = upstream._recipes(made, upstream._start_of(made))
        upstream._machinery()[1].in_world(upstream._start_of(made).world)
        upstream._machinery()[1].use(recipe, None)()
        await self.ready(upstream)
        run = await upstream.open(made, self.world.deny)
        assert run.warm is True
        return run

    async def ready(self, upstream: Any) -> None:
        await self.world.until(lambda: any(spare.ready for spare in upstream.pool().spares))

    async def say(self, run: Any, prompt: str = "Say something.") -> Any:
        async with asyncio.timeout(60):
            outcome = await run.send(prompt, str(uuid.uuid4()), self.world.events())
        assert outcome.status == "completed", outcome
        return outcome

    def asked(self) -> list[str]:
        """Return what the model was asked last, line by line, without what is different each time."""
        body = json.dumps(json.loads(self.sim.requests[-1].body), indent=1)
        return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{64}", "ID", body).splitlines()


@pytest.fixture
async def place(world: Any) -> Any:
    git = ["git", "-c", "user.name=n", "-c", "user.email=e", "-C", str(world.cwd)]
    (world.cwd / "CLAUDE.md").write_text("This project sings.\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        await asyncio.to_thread(subprocess.run, [*git, *words], check=True, env=world.environment())
    async with Simulator() as sim:
        place = Place(world, sim)
        yield place
        await asyncio.gather(*(each.close() for each in world.upstreams))
        await place.gateway.close()


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=list(CHOICES))
async def test_what_the_model_sees_is_what_it_would_have_seen(place: Place, chosen: Any) -> None:
    cold, warm = place.upstream(max_spare=0), place.upstream()
    before = await cold.open(place.world.spec(**chosen), place.world.deny)
    first = await place.say(before)
    wanted = place.asked()
    await before.close()

    count = len(place.sim.requests)
    run = await place.warm(warm, **chosen)
    assert run.rehearsed
    assert len(place.sim.requests) == count, "nobody was asked"
    outcome = await place.say(run)
    assert place.asked() == wanted
    assert (outcome.text, outcome.usage, outcome.cost_usd) == (first.text, first.usage, first.cost_usd)
    assert outcome.message_count == first.message_count
    assert place.calls.total.calls == len(place.sim.requests), "and nothing was counted"
    await run.close()


async def test_the_conversation_goes_on_and_is_resumed_as_if_there_had_been_nothing(place: Place) -> None:
    cold, warm = place.upstream(max_spare=0), place.upstream()
    seen = []
    for upstream in (cold, warm):
        if upstream is cold:
            run = await upstream.open(place.world.spec(), place.world.deny)
        else:
            run = await place.warm(upstream)
        told = []
        for prompt in ("One.", "Two."):
            outcome = await place.say(run, prompt)
            told.append((place.asked(), outcome.message_count, outcome.cost_usd))
        await run.close()
        resume = place.world.spec(resume=run.upstream_session_id, resume_message_count=outcome.message_count)
        again = await upstream.open(resume, place.world.deny)
        outcome = await place.say(again, "Three.")
        told.append((place.asked(), outcome.message_count, None))
        await again.close()
        seen.append(told)
    assert seen[1] == seen[0]
    assert not any(REHEARSED.encode() in record.body for record in place.sim.requests)


async def test_servers_come_after_it(place: Place) -> None:
    program = place.world.root / "server.py"
    program.write_text(SERVER)
    servers = {"s": {"type": "stdio", "command": "/usr/bin/python3", "args": [str(program)], "env": {}}}
    seen = []
    for upstream in (place.upstream(max_spare=0), place.upstream()):
        if upstream.pool().max_spare:
            run = await place.warm(upstream, mcp_servers=servers)
        else:
            run = await upstream.open(place.world.spec(mcp_servers=servers), place.world.deny)
        await place.say(run)
        seen.append(place.asked())
        await run.close()
    assert seen[1] == seen[0]
    assert any("Shout rarely." in line for line in seen[1])
    assert any("mcp__s__shout" in line for line in seen[1])


async def test_what_the_prompt_depends_on_is_part_of_its_kind(place: Place) -> None:
    upstream = place.upstream()
    recipes = []
    edits = {"permission_mode": "acceptEdits"}
    for choice in ({}, {"model": "haiku"}, {"settings": {"a": 1}}, {"client": "c"}, edits):
        spec = place.world.spec(**choice)
        recipes.append(upstream._recipes(spec, upstream._start_of(spec))[0])
    assert len({recipe.key for recipe in recipes}) == 4
    assert recipes[0] == recipes[3]
    assert [recipe.rehearsed for recipe in recipes] == [True, True, False, True, True]


async def test_what_a_person_writes_into_their_memory_ends_what_was_rehearsed_before(place: Place) -> None:
    upstream = place.upstream()
    run = await place.warm(upstream)
    await run.close()
    await place.ready(upstream)
    (place.world.config / "CLAUDE.md").write_text("Nobody sings any more.")
    run = await upstream.open(place.world.spec(), place.world.deny)
    assert run.warm is False
    await place.say(run)
    assert any("Nobody sings any more." in line for line in place.asked())
    await run.close()


async def test_a_persons_hooks_do_not_run_for_it(place: Place) -> None:
    ran = place.world.root / "ran"
    hooks = {
        event: [{"hooks": [{"type": "command", "command": f"echo {event} >> {ran}"}]}]
        for event in ("UserPromptSubmit", "Stop")
    }
    (place.world.config / "settings.json").write_text(json.dumps({"hooks": hooks}))
    run = await place.warm(place.upstream())
    assert run.rehearsed
    assert not ran.exists()
    await place.say(run)
    await run.close()
    assert sorted(ran.read_text().split()) == ["Stop", "UserPromptSubmit"]


async def test_one_that_nobody_used_leaves_no_conversation_behind(place: Place) -> None:
    upstream = place.upstream()
    run = await place.warm(upstream)
    await place.say(run)
    await run.close()
    await place.ready(upstream)
    await upstream.close()
    left = [path.stem for path in (place.world.config / "projects").rglob("*.jsonl")]
    assert left == [run.upstream_session_id], "only what was said"


async def test_a_claude_code_that_cannot_do_it_is_found_out_once(place: Place) -> None:
    program = place.world.root / "older"
    program.write_text(
        "#!/usr/bin/python3 -I\nimport json, sys\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    if asked['type'] != 'control_request': continue\n"
        "    answer = {'request_id': asked['request_id'], 'subtype': 'success', 'response': {}}\n"
        "    if asked['request']['subtype'] == 'apply_flag_settings':\n"
        "        answer = {**answer, 'subtype': 'error', 'error': 'Unsupported control request subtype'}\n"
        "    print(json.dumps({'type': 'control_response', 'response': answer}), flush=True)\n"
    )
    program.chmod(0o755)
    upstream = place.world.upstream(
        place.sim,
        executable=str(program),
        pool=PoolSettings(max_spare=2, fill_delay_s=0.0, min_free_bytes=0, generic=False),
    )
    upstream.open_access = place.gateway.open_access
    run = await upstream.open(place.world.spec(), place.world.deny)
    await run.close()
    await place.world.until(lambda: upstream.pool().ended == {"failed": 1})
    await place.world.until(lambda: not upstream._runs)
    run = await place.warm(upstream)
    assert not run.rehearsed
    assert upstream.pool().ended == {"failed": 1}


async def test_one_that_is_not_wanted_any_more_ends_in_the_middle_of_it(place: Place) -> None:
    program = place.world.root / "slow"
    program.write_text(
        "#!/usr/bin/python3 -I\nimport json, sys\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    if asked['type'] != 'control_request': continue\n"
        "    answer = {'request_id': asked['request_id'], 'subtype': 'success', 'response': {}}\n"
        "    print(json.dumps({'type': 'control_response', 'response': answer}), flush=True)\n"
    )
    program.chmod(0o755)
    upstream = place.world.upstream(place.sim, executable=str(program), pool=PoolSettings(max_spare=1))
    upstream.open_access = place.gateway.open_access
    spec = place.world.spec()
    recipe = upstream._recipes(spec, upstream._start_of(spec))[0]
    starting = asyncio.create_task(upstream._begin_spare(recipe))
    await place.world.until(lambda: any(run.rehearsed for run in upstream._runs))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await place.world.until(lambda: not upstream._runs)


@pytest.mark.parametrize(
    ("choice", "managed", "may"),
    [
        ({}, "", True),
        ({}, "/nowhere", True),
        ({}, "/", False),
        ({"task_budget_tokens": 5}, "", False),
        ({"permission_mode": "plan"}, "", False),
        ({"settings": {"outputStyle": "Explanatory"}}, "", False),
    ],
)
def test_where_it_would_leave_a_trace_there_is_none(choice: Any, managed: str, may: bool) -> None:
    assert may_rehearse(RunSpec(session_id="", cwd=Path("/"), **choice), managed) is may
