"""What the pool decides, with stand-ins for processes; then the real CLI, taken warm."""

import asyncio
import json
import os
import signal
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from dragoman_protocol.stream import TextDelta
from dragoman_sim import Simulator, read_script
from dragomand.policy.crash_breakers import CrashBreakers
from dragomand.upstream.claude_code import PoolSettings
from dragomand.upstream.claude_code.pool import Pool, Recipe
from dragomand.upstream.interface import Failure, RunSpec, UpstreamError


class Process:
    """Stands in for a run nobody uses."""

    pid = None
    closed = False
    rehearsed = False

    async def close(self):
        self.closed = True


@dataclass
class Stock:
    """A pool whose starts are ours to watch."""

    pool: Pool = None
    begun: list[Recipe] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    free: bool = True
    memory: int | None = 8 << 30

    async def begin(self, recipe):
        self.begun.append(recipe)
        await self.gate.wait()
        if self.fails:
            raise UpstreamError(Failure("crash", "no luck"))
        self.processes.append(Process())
        return self.processes[-1]

    def use(self, name, times=1, *, generic=None):
        over = [self.pool.use(recipe(name), generic) for _ in range(times)]
        for each in over:
            each()

    async def settle(self):
        for _ in range(10):
            await asyncio.sleep(0)

    def names(self):
        return [spare.cwd for spare in self.pool.state().spares]


def recipe(name, **more):
    return Recipe(f"key {name}", RunSpec(session_id="", cwd=Path("/", name)), **more)


ANYWHERE = recipe("anywhere", generic=True)


@pytest.fixture
async def stock():
    made = Stock()
    made.gate.set()

    def settings(**chosen):
        made.pool = Pool(
            PoolSettings(**{"fill_delay_s": 0.0, **chosen}),
            made.begin,
            lambda: made.free,
            available=lambda: made.memory,
        )
        made.pool.in_world("a world")
        return made

    yield settings
    if made.pool is not None:
        await made.pool.close()
        assert all(process.closed for process in made.processes[len(made.begun) :])


async def filled(stock):
    stock.pool.balance()
    await stock.settle()


async def test_what_was_used_is_kept_in_stock_the_most_recent_first(stock):
    at = stock(max_spare=2)
    for name in "abc":
        at.use(name)
    await filled(at)
    assert at.names() == ["/c", "/b"]
    at.use("a")
    await filled(at)
    assert sorted(at.names()) == ["/a", "/c"], "a needs the place of b, which was used longest ago"
    assert at.pool.state().ended == {"evicted": 1}
    assert at.processes[1].closed


async def test_one_of_no_folder_comes_after_the_first(stock):
    at = stock(max_spare=2)
    at.use("a", generic=ANYWHERE)
    at.use("b", generic=ANYWHERE)
    await filled(at)
    assert at.names() == ["/b", None]
    assert at.pool.take("key x", ANYWHERE.key).recipe is ANYWHERE


async def test_more_where_several_were_used_at_once(stock):
    at = stock(max_spare=4, generic=False)
    at.use("a", times=3)
    at.use("b")
    await filled(at)
    assert sorted(at.names()) == ["/a", "/a", "/a", "/b"]


async def test_a_spare_that_still_starts_is_better_than_none(stock):
    at = stock(max_spare=1)
    at.gate.clear()
    at.use("a")
    await filled(at)
    assert [spare.ready for spare in at.pool.state().spares] == [False]
    spare = at.pool.take("key a")
    assert at.names() == []
    at.pool.give_back(spare)  # whoever waited was cancelled
    assert at.names() == ["/a"]
    at.gate.set()
    await at.settle()
    assert at.pool.state().spares[0].ready


async def test_nothing_is_started_when_others_start_or_memory_is_short(stock):
    at = stock(max_spare=1)
    at.use("a")
    at.pool.unblocked()  # nothing has waited for it: the usual delay holds
    at.free = False
    await filled(at)
    assert at.pool.state().held_back == "starts"
    at.free, at.memory = True, 1 << 29
    at.pool.unblocked()
    await at.settle()
    assert at.pool.state().held_back == "memory"
    assert at.begun == []
    at.memory = None  # not known: the count alone bounds it
    await filled(at)
    assert at.names() == ["/a"]


async def test_memory_is_a_bound_too(stock):
    at = stock(max_spare=4, max_bytes=250 << 20, generic=False)
    at.use("a", times=4)
    await filled(at)
    assert at.names() == ["/a", "/a"], "two of 120 MB each"


async def test_pressure_empties_it_and_it_stays_empty_for_a_while(stock):
    at = stock(max_spare=1)
    at.use("a")
    await filled(at)
    at.pool.drop("pressure")
    await filled(at)
    assert at.names() == []
    assert at.processes[0].closed
    assert at.pool.state().ended == {"pressure": 1}


async def test_another_world_makes_all_of_it_out_of_date(stock):
    at = stock(max_spare=1)
    at.use("a")
    await filled(at)
    at.pool.in_world("a world")
    assert at.names() == ["/a"]
    at.pool.in_world("another world")
    assert at.names() == []
    assert at.pool.state().ended == {"outdated": 1}


async def test_old_spares_end_and_are_not_replaced_when_nobody_asks(stock, world):
    at = stock(max_spare=1, ttl_s=0.02)
    at.use("a")
    await filled(at)
    await world.until(lambda: not at.pool.state().spares and at.processes[0].closed)
    assert at.pool.state().ended == {"expired": 1}


async def test_a_spare_that_cannot_be_started_is_counted(stock):
    at = stock(max_spare=1)
    at.fails = True
    at.use("a")
    await filled(at)
    assert at.names() == []
    assert at.pool.state().ended == {"failed": 1}


async def test_a_spare_that_dies_is_gone(stock):
    at = stock(max_spare=1)
    at.use("a")
    await filled(at)
    assert at.pool.lost(at.processes[0])
    assert not at.pool.lost(at.processes[0])
    assert at.names() == []
    assert at.pool.state().ended == {"died": 1}


async def test_closed_while_one_starts(stock):
    at = stock(max_spare=1)
    at.gate.clear()
    at.use("a")
    await filled(at)
    spare = at.pool.take("key a")
    await at.pool.close()
    at.gate.set()
    at.pool.give_back(spare)
    await at.settle()
    assert at.names() == []
    at.pool.balance()
    assert len(at.begun) == 1


async def test_only_so_many_kinds_are_remembered(stock):
    at = stock(max_spare=1)
    for number in range(100):
        at.use(str(number))
    assert at.pool.state().keys == 64


# the real CLI


@pytest.fixture
def warming(world):
    """An upstream with a pool that fills at once."""

    def warming(sim, **settings):
        chosen = {"fill_delay_s": 0.0, "min_free_bytes": 0, **settings}
        return world.upstream(sim, pool=PoolSettings(**chosen), neutral_dir=str(world.root / "spare"))

    return warming


async def ready(world, upstream, count):
    """Wait until so many spares are ready."""
    await world.until(lambda: sum(spare.ready for spare in upstream.pool().spares) >= count)


async def one_turn(world, run, prompt="hello"):
    events = world.events()
    async with asyncio.timeout(60):
        outcome = await run.send(prompt, str(uuid.uuid4()), events)
    assert outcome.status == "completed", outcome
    assert events.of(TextDelta)
    await run.close()
    return outcome


async def test_the_second_conversation_is_warm_with_its_own_choices(world, warming):
    async with Simulator() as sim:
        upstream = warming(sim, max_spare=1)
        first = await upstream.open(world.spec(), world.deny)
        await one_turn(world, first)
        assert first.warm is False
        await ready(world, upstream, 1)
        spec = world.spec(model="haiku", permission_mode="acceptEdits")
        second = await upstream.open(spec, world.deny)
        assert second.warm is True
        outcome = await one_turn(world, second)
        assert "haiku" in outcome.model
        assert second.upstream_session_id not in (None, spec.session_id, first.upstream_session_id)
        # What it has become is known and can be resumed, which is always a new process.
        resumed = await upstream.open(
            world.spec(resume=second.upstream_session_id, resume_message_count=2), world.deny
        )
        assert resumed.warm is False
        assert (await one_turn(world, resumed, "again")).message_count == 4
        state = upstream.pool()
        assert (state.warm, state.cold) == (1, 1)


async def test_a_spare_of_no_folder_is_bound_to_the_folder_of_whoever_asks(world, warming):
    other = world.root / "other"
    other.mkdir()
    where = {"type": "tool_use", "name": "Bash", "input": {"command": "echo $PWD; pwd; echo x > made-here"}}
    rules = [{"when": {"text": "where"}, "reply": [{"content": [where]}, {"content": ["There."]}]}]
    async with Simulator(read_script(json.dumps(rules))) as sim:
        upstream = warming(sim, max_spare=2)
        await one_turn(world, await upstream.open(world.spec(), world.deny))
        await ready(world, upstream, 2)
        run = await upstream.open(world.spec(cwd=other), world.allow)
        assert run.warm is True
        assert os.readlink(f"/proc/{cli_of(run.pid)}/cwd") == str(other)
        await one_turn(world, run, "where")
        assert f"{other}\\n{other}".encode() in sim.requests[-1].body
        assert (other / "made-here").exists()
        resumed = await upstream.open(world.spec(cwd=other, resume=run.upstream_session_id), world.deny)
        assert (await one_turn(world, resumed)).message_count == 6


async def test_servers_are_given_to_a_warm_process_when_it_is_handed_out(world, warming):
    broken = {"s": {"type": "stdio", "command": "/nowhere", "args": [], "env": {}}}
    async with Simulator() as sim:
        upstream = warming(sim, max_spare=1)
        await one_turn(world, await upstream.open(world.spec(), world.deny))
        await ready(world, upstream, 1)
        with pytest.raises(UpstreamError) as caught:
            await upstream.open(world.spec(mcp_servers=broken), world.deny)
        assert caught.value.failure.category == "caller"
        assert "MCP servers could not be started" in caught.value.failure.message


@pytest.mark.parametrize("choice", [{"setting_sources": ("user", "project")}, {"plugins": ("/p",)}])
async def test_what_would_read_code_of_the_folder_is_never_started_ahead(world, warming, choice):
    async with Simulator() as sim:
        upstream = warming(sim, max_spare=1)
        await one_turn(world, await upstream.open(world.spec(**choice), world.deny))
        assert upstream.pool().keys == 0


async def test_nobody_gets_a_process_of_another_environment_or_folder(world, warming):
    other = world.root / "other"
    other.mkdir()
    async with Simulator() as sim:
        upstream = warming(sim, max_spare=1, generic=False)
        await one_turn(world, await upstream.open(world.spec(), world.deny))
        await ready(world, upstream, 1)
        for choice in ({"cwd": other}, {"env": {"LANG": "fr_FR.UTF-8"}}, {"system_prompt": "Be brief."}):
            run = await upstream.open(world.spec(**choice), world.deny)
            assert run.warm is False, choice
            await run.close()


async def test_a_killed_spare_is_replaced_and_nothing_survives_the_end(world, warming):
    async with Simulator() as sim:
        upstream = warming(sim, max_spare=1)
        await one_turn(world, await upstream.open(world.spec(), world.deny))
        await ready(world, upstream, 1)
        (spare,) = (run for run in upstream._runs)
        os.kill(cli_of(spare.pid), signal.SIGKILL)
        await world.until(lambda: upstream.pool().ended == {"died": 1})
        await ready(world, upstream, 1)
        await upstream.close()
        assert world.survivors() == []


async def test_a_cli_that_knows_nothing_of_claims_is_not_asked_again(world):
    program = world.root / "old-cli"
    program.write_text(
        "#!/usr/bin/python3 -I\nimport json, sys\n"
        "if '--await-claim' in sys.argv: sys.exit('unknown option')\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    answer = {'request_id': asked['request_id'], 'subtype': 'success', 'response': {}}\n"
        "    print(json.dumps({'type': 'control_response', 'response': answer}), flush=True)\n"
    )
    program.chmod(0o755)
    upstream = world.upstream(
        executable=str(program),
        pool=PoolSettings(fill_delay_s=0.0, min_free_bytes=0),
        neutral_dir=str(world.root / "spare"),
        breaker=CrashBreakers(),
    )
    for _ in range(2):
        await (await upstream.open(world.spec(), world.deny)).close()
        await ready(world, upstream, 1)
    await world.until(lambda: upstream.pool().ended == {"failed": 1})
    run = await upstream.open(world.spec(), world.deny)
    assert run.warm is True
    assert upstream._recipes(world.spec(), upstream._start_of(world.spec()))[1] is None


async def test_three_crashes_stop_the_starting_for_a_while(world):
    program = world.root / "crashing"
    program.write_text("#!/bin/sh\necho started >> " + str(world.root / "starts") + "\nexit 3\n")
    program.chmod(0o755)
    upstream = world.upstream(executable=str(program), breaker=CrashBreakers())
    assert (upstream.start_breakers(), upstream.reset_starts()) == ([], 0)
    failures = []
    for _ in range(5):
        with pytest.raises(UpstreamError) as caught:
            await upstream.open(world.spec(), world.deny)
        failures.append(caught.value.failure)
    assert [failure.retry_after_ms is None for failure in failures] == [True] * 3 + [False] * 2
    assert (world.root / "starts").read_text().count("started") == 3
    assert "next attempt" in failures[-1].message
    stops = [each for each in upstream.start_breakers() if each.state == "open"]
    assert [(each.of_all, each.failures) for each in stops] == [(False, 3)]
    assert upstream.reset_starts() == 1
    assert upstream.start_breakers() == []
    with pytest.raises(UpstreamError):
        await upstream.open(world.spec(), world.deny)
    assert (world.root / "starts").read_text().count("started") == 4, "it is tried at once"


async def test_a_client_whose_environment_breaks_every_start_keeps_nobody_else_from_starting(world):
    program = world.root / "touchy"
    program.write_text(
        "#!/usr/bin/python3 -I\nimport json, os, sys\n"
        "if 'BROKEN' in os.environ: sys.exit(3)\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    answer = {'request_id': asked['request_id'], 'subtype': 'success', 'response': {}}\n"
        "    print(json.dumps({'type': 'control_response', 'response': answer}), flush=True)\n"
    )
    program.chmod(0o755)
    upstream = world.upstream(executable=str(program), breaker=CrashBreakers())
    refused = 0
    for number in range(8):
        # The same environment in ever other circumstances: none of them may be held against the others.
        prompt = "p" if number < 4 else f"p {number}"
        with pytest.raises(UpstreamError) as caught:
            await upstream.open(world.spec(env={"BROKEN": "1"}, system_prompt=prompt), world.deny)
        refused += caught.value.failure.retry_after_ms is not None
    assert refused == 1, "the fourth of the same kind"
    await (await upstream.open(world.spec(), world.deny)).close()
    await (await upstream.open(world.spec(env={"OTHER": "1"}), world.deny)).close()


async def test_no_spare_is_started_of_a_kind_that_crashes(stock):
    at = stock(max_spare=2, generic=False)
    at.pool.is_sound = lambda recipe: recipe.key != "key a"
    at.use("b")
    at.use("a")
    await filled(at)
    assert at.names() == ["/b"]
    assert at.pool.state().held_back == "crashes"


def cli_of(guard):
    """Return the process id of the CLI under *guard*."""
    return int(Path(f"/proc/{guard}/task/{guard}/children").read_text().split()[0])


def test_a_recipe_is_a_value():
    assert recipe("a") == replace(recipe("a"))
