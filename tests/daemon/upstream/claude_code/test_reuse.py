"""One process for several conversations of one client, with the real CLI; what must not be used again."""

import asyncio
import uuid

import pytest
from dragoman_sim import Simulator
from dragomand.upstream.claude_code import PoolSettings
from dragomand.upstream.claude_code.reuse import Kept
from dragomand.upstream.interface import UpstreamError

SETTINGS = {"reuse": True, "max_spare": 0}


def reusing(world, sim=None, executable=None, **chosen):
    return world.upstream(sim, executable=executable, pool=PoolSettings(**{**SETTINGS, **chosen}))


async def one_turn(world, run, prompt="hello"):
    async with asyncio.timeout(60):
        outcome = await run.send(prompt, str(uuid.uuid4()), world.events())
        pid = run.run.pid
        await run.close()
    return outcome, pid


async def test_the_same_client_goes_on_with_a_fresh_conversation(world):
    async with Simulator() as sim:
        upstream = reusing(world, sim)
        first = await upstream.open(world.spec(client="one"), world.deny)
        outcome, pid = await one_turn(world, first, "the first secret")
        assert (outcome.status, first.warm, first.version is None) == ("completed", False, False)
        session = first.upstream_session_id
        assert upstream.pool().kept == 1
        second = await upstream.open(world.spec(client="one"), world.deny)
        assert (second.run.pid, second.warm, upstream.pool().kept) == (pid, True, 0)
        outcome, _ = await one_turn(world, second, "the second")
        assert outcome.status == "completed"
        assert outcome.cost_usd is not None
        assert b"first secret" not in sim.requests[-1].body
        assert first.upstream_session_id == session, "what has ended keeps its name"
        assert second.upstream_session_id != session
        await first.close()
        assert not await first.interrupt()


async def test_a_conversation_on_a_used_process_can_be_forked_and_is_rewound_only_while_it_lasts(world):
    async with Simulator() as sim:
        upstream = reusing(world, sim)
        await one_turn(world, await upstream.open(world.spec(client="one"), world.deny), "the first secret")
        second = await upstream.open(world.spec(client="one"), world.deny)
        assert second.warm
        with pytest.raises(UpstreamError, match="not enabled"):
            await second.rewind_files(str(uuid.uuid4()), dry_run=True)
        outcome, _ = await one_turn(world, second, "the second")
        with pytest.raises(UpstreamError, match="has ended"):
            await second.rewind_files(str(uuid.uuid4()), dry_run=True)
        spec = world.spec(
            resume=second.upstream_session_id,
            resume_message_count=outcome.message_count,
            resume_holds=outcome.leaf_id,
            fork=True,
        )
        fork = await upstream.open(spec, world.deny)
        answer = await fork.send("and on", str(uuid.uuid4()), world.events())
        assert (answer.status, fork.warm) == ("completed", False)
        body = sim.requests[-1].body
        assert b"the second" in body
        assert b"first secret" not in body


@pytest.mark.parametrize("differs", ["client", "model", "tools"])
async def test_others_get_another_process(world, differs):
    async with Simulator() as sim:
        upstream = reusing(world, sim)
        choices = {"client": "one"}
        _, pid = await one_turn(world, await upstream.open(world.spec(**choices), world.deny))
        choices[differs] = ("Read",) if differs == "tools" else "haiku"
        run = await upstream.open(world.spec(**choices), world.deny)
        assert run.warm is False
        assert run.run.pid != pid
        await run.close()
        assert upstream.pool().kept == 2, "one that has not been used is as good as new"


PRETENDER = """#!/usr/bin/python3 -I
import json, subprocess, sys
session, turns = "first", 0
def say(**frame): print(json.dumps(frame), flush=True)
for line in sys.stdin:
    frame = json.loads(line)
    if frame["type"] == "control_request":
        answer = {{"request_id": frame["request_id"], "subtype": "success", "response": {{}}}}
        say(type="control_response", response=answer)
        continue
    text = frame["message"]["content"]
    failed = text == "fail"
    if text == "background":
        subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if text == "/clear" and {clears}:
        turns += 1
        session = f"cleared {{turns}}"
    say(type="result", subtype="success", is_error=failed, session_id=session, result="Over.",
        terminal_reason="api_error" if failed else "completed")
"""


@pytest.fixture
def pretender(world):
    def write(clears=True):
        path = world.root / "pretender"
        path.write_text(PRETENDER.format(clears=clears))
        path.chmod(0o755)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("prompt", "clears", "kept"),
    [("hello", True, 1), ("fail", True, 0), ("background", True, 0), ("hello", False, 0)],
)
async def test_what_is_not_as_new_is_ended(world, pretender, prompt, clears, kept):
    upstream = reusing(world, executable=pretender(clears))
    session = str(uuid.uuid4())
    run = await upstream.open(world.spec(session_id=session, client="one"), world.deny)
    run.run._session_id, run.run._session_seen = "first", True
    await one_turn(world, run, prompt)
    assert upstream.pool().kept == kept
    if not kept:
        assert world.survivors() == []


async def test_kept_ones_are_few_and_end_after_a_while_or_when_they_die(world, pretender):
    program = pretender()
    upstream = reusing(world, executable=program, most_kept=1)
    runs = [await upstream.open(world.spec(client="one"), world.deny) for _ in range(2)]
    for run in runs:
        run.run._session_id, run.run._session_seen = "first", True
        await run.close()
    assert upstream.pool().kept == 1
    await upstream.close()
    assert upstream.pool().kept == 0
    assert world.survivors() == []

    upstream = reusing(world, executable=program, keep_s=0.01)
    run = await upstream.open(world.spec(client="one"), world.deny)
    run.run._session_id, run.run._session_seen = "first", True
    await run.close()
    await world.until(lambda: not world.survivors())
    assert upstream.pool().kept == 0


async def test_nothing_waits_for_nobody():
    kept = Kept(2, 10.0)
    kept.drop()
    await kept.close()
    assert kept.count == 0
