"""Turns of the Messages API hold two permits, their own and one for each call. Nothing waits for itself."""

import asyncio
from typing import Any

import pytest
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import Waiting
from dragoman_sim import Gate, Reply, Rule, Simulator, Status, When
from dragomand.upstream.interface import RunSpec, TurnOutcome
from dragomand.upstream.messages_api import DirectSettings, MessagesApi


class Run:
    """A run whose call takes as long as `Direct.go` says."""

    warm = upstream_session_id = version = api_access = memory_bytes = pid = None

    def __init__(self, of: "Direct", spec: RunSpec) -> None:
        self.of, self.spec = of, spec
        self.task: asyncio.Task[Any] | None = None

    async def send(self, prompt: Any, message_id: str, sink: Any) -> TurnOutcome:
        self.task = asyncio.current_task()
        assert self.spec.admit_call is not None
        try:
            return await self.spec.admit_call(self.attempt(str(prompt)))
        except asyncio.CancelledError:
            return TurnOutcome(status="interrupted")

    def attempt(self, prompt: str) -> Any:
        async def attempt(call: Any) -> TurnOutcome:
            await self.of.call()
            call.status, call.usage, call.finished = 200, Usage(output_tokens=2), True
            return TurnOutcome(status="completed", text=prompt)

        return attempt

    async def interrupt(self) -> bool:
        assert self.task is not None
        return self.task.cancel()

    async def close(self) -> None:
        """Nothing is open."""


class Direct:
    """The Messages API, without one."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.go = asyncio.Event()

    async def open(self, spec: RunSpec, ask: Any) -> Run:
        return Run(self, spec)

    async def call(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
            await asyncio.sleep(0)
        finally:
            self.inside -= 1

    async def close(self) -> None:
        """Nothing is open."""


def asking(engine: Any, kit: Any, prompt: str = "hi", client: str = "client-1", **more: Any) -> Any:
    """A plain query, running."""
    subscriber = more.pop("subscriber", None)
    params = engine.params(prompt, cwd=None, upstream="messagesApi", **more)
    return asyncio.create_task(engine.queries.run(params, kit.caller(client), subscriber=subscriber))


async def test_one_call_permit_is_enough_for_any_number_of_turns_and_programs(kit: Any) -> None:
    """Turns hold one permit and wait for another, programs take only the other: all of them end."""
    direct = Direct()
    bounds = {"max_running": 8, "max_calls": 1, "max_queued": 40, "max_queued_per_client": 30}
    async with kit.engine(direct=direct, **bounds) as engine:
        grant, _ = engine.calls.grant("a program")

        async def program() -> None:
            async with engine.calls.call(grant) as call:
                await direct.call()
                call.status, call.finished = 200, True

        turns = [asking(engine, kit, str(at), f"client-{at % 3}") for at in range(30)]
        programs = [asyncio.create_task(program()) for _ in range(10)]
        await kit.until(lambda: direct.inside == 1 and engine.admission.running == 8)
        direct.go.set()
        async with asyncio.timeout(kit.PATIENCE_S):
            results = await asyncio.gather(*turns)
            await asyncio.gather(*programs)
        assert [result.text for result in results] == [str(at) for at in range(30)]
        assert direct.most == 1
        assert (engine.calls.total.calls, engine.calls.total.failed) == (40, 0)
        assert engine.calls.total.usage.output_tokens == 60
        assert {each.client: each.calls for each in engine.calls.clients()}["client-0"] == 10
        assert engine.admission.calls_running == engine.admission.calls_queued == 0
        engine.check_idle()


async def test_what_names_no_model_is_counted_with_the_model_that_answers(kit: Any) -> None:
    """A turn, its calls, and a later turn of the same session share the limits of the setting's model."""
    direct = Direct()
    direct.go.set()
    async with kit.engine(direct=direct, direct_model="claude-sonnet-5-5") as engine:
        first = await asking(engine, kit)
        await asking(engine, kit, session_id=first.session_id)
        assert [pool.models for pool in engine.admission.pools] == ["sonnet"]
        await asking(engine, kit, model="opus")
        assert [pool.models for pool in engine.admission.pools] == ["sonnet", "opus"]
        engine.check_idle()


async def test_a_thousand_queries_run_at_once(kit: Any) -> None:
    """00.101"""
    direct = Direct()
    bounds = {"max_running": 1000, "max_calls": 1000, "max_queued": 1, "max_queued_per_client": 1}
    async with kit.engine(direct=direct, **bounds) as engine:
        turns = [asking(engine, kit, str(at)) for at in range(1000)]
        await kit.until(lambda: direct.inside == 1000)
        direct.go.set()
        results = await asyncio.gather(*turns)
        assert [result.text for result in results] == [str(at) for at in range(1000)]
        assert engine.calls.total.calls == 1000
        assert (await engine.store.counts())["turns"] == 1000
        engine.check_idle()


async def test_a_turn_that_runs_is_not_refused_for_a_full_queue(kit: Any) -> None:
    direct = Direct()
    async with kit.engine(direct=direct, max_running=6, max_calls=1, max_queued_per_client=1) as engine:
        turns = []
        for at in range(6):
            turns.append(asking(engine, kit, str(at)))
            await kit.until(lambda: engine.admission.running == len(turns))
        await kit.until(lambda: engine.admission.calls_queued == 5)
        direct.go.set()
        assert [(await turn).text for turn in turns] == ["0", "1", "2", "3", "4", "5"]


async def test_who_watches_is_told_that_the_call_waits(kit: Any) -> None:
    direct = Direct()
    async with kit.engine(direct=direct, max_calls=1) as engine:
        first = asking(engine, kit)
        await kit.until(lambda: direct.inside == 1)
        watcher = kit.Watcher()
        second = asking(engine, kit, subscriber=watcher)
        await watcher.sees(Waiting)
        direct.go.set()
        await asyncio.gather(first, second)


async def test_a_call_that_waits_too_long_fails_its_turn(kit: Any) -> None:
    direct = Direct()
    async with kit.engine(direct=direct, max_calls=1, queue_timeout_ms=30) as engine:
        first = asking(engine, kit)
        await kit.until(lambda: direct.inside == 1)
        patient = asking(engine, kit, "a batch", priority="batch")
        error = await kit.refused("queue_timeout", asking(engine, kit))
        assert error.data["turn_id"]
        await engine.check_whole(error.data["session_id"])
        (turn,) = await engine.store.turns(error.data["session_id"])
        assert turn.status == "failed"
        direct.go.set()
        assert [(await first).text, (await patient).text] == ["hi", "a batch"]
        assert engine.calls.total.calls == 2
        engine.check_idle()


@pytest.mark.parametrize("end", ["client", "shutdown"])
async def test_stopped_while_its_call_waits(kit: Any, end: str) -> None:
    direct = Direct()
    async with kit.engine(direct=direct, max_calls=1) as engine:
        first = asking(engine, kit)
        await kit.until(lambda: direct.inside == 1)
        second = asking(engine, kit)
        await kit.until(lambda: engine.admission.calls_queued == 1)
        if end == "client":
            second.cancel()
            assert (await kit.ended(second)).kind == "request_cancelled"
        else:
            engine.queries.stop_all()
            assert (await kit.ended(second)).kind == "turn_interrupted"
        assert engine.admission.calls_queued == 0
        direct.go.set()
        await kit.ended(first)
        engine.check_idle()
        assert engine.admission.calls_running == 0


async def test_the_real_upstream_settles_what_the_answers_say(kit: Any) -> None:
    rules = [
        Rule(When(text="busy"), fault=Status(429, headers={"retry-after": "0"})),
        Rule(When(text="slowly"), Reply(["half", Gate("g")])),
        Rule(When(text="hi"), Reply(["Hello"])),
    ]
    async with Simulator(rules) as sim:
        settings = DirectSettings(base_url=sim.url)
        direct = MessagesApi(api_key=lambda: "sk-test", settings=settings)
        async with kit.engine(direct=direct, max_calls=1) as engine:
            result = await asking(engine, kit)
            await kit.refused("throttled", asking(engine, kit, "busy"))
            cancelled = asking(engine, kit, "slowly")
            await sim.wait_for(3)
            waiting = asking(engine, kit, "hi")
            await kit.until(lambda: engine.admission.calls_queued == 1)
            waiting.cancel()  # never sent, so it is no call
            assert (await kit.ended(waiting)).kind == "request_cancelled"
            cancelled.cancel()
            await kit.ended(cancelled)
            assert (await asking(engine, kit)).text == "Hello"
            counted = engine.calls.turns()
            assert [(each.calls, each.failed) for each in counted] == [(1, 0), (1, 1), (1, 1), (1, 0)]
            assert counted[0].turn_id == result.turn_id
            assert counted[0].usage == result.usage
            said = engine.calls.limits.snapshot()
            assert said is not None
            assert (said.status, said.retry_after_ms) == (429, 0)  # the others said nothing of limits
        await direct.close()


async def test_a_batch_waits_for_a_used_up_quota_and_goes_on_by_itself(kit: Any) -> None:
    """One request finds out; what is parked resumes, the one that found out too; a person is told at once."""
    spent = Status(429, message="You have reached your specified API usage limits.")
    async with Simulator([Rule(When(), fault=spent, times=1), Rule(When(), Reply(["Hello"]))]) as sim:
        direct = MessagesApi(api_key=lambda: "sk-test", settings=DirectSettings(base_url=sim.url))
        async with kit.engine(direct=direct, timeout_ms=50) as engine:
            jobs = [asking(engine, kit, "the one that finds out", priority="batch")]
            await kit.until(lambda: engine.admission.calls_queued == 1)
            jobs += [asking(engine, kit, f"job {at}", priority="batch") for at in range(2)]
            await kit.until(lambda: engine.admission.queued == 2)
            await kit.refused("quota_exhausted", asking(engine, kit))
            assert len(sim.messages) == 1
            engine.admission.reset_breakers()
            assert [(await job).text for job in jobs] == ["Hello"] * 3
            engine.check_idle()
        await direct.close()


async def test_what_was_stopped_while_its_call_waited_has_cost_nothing(kit: Any) -> None:
    """A turn of Claude Code's whose calls are not seen, and one of the API: neither was ever asked."""
    async with Simulator([Rule(When(text="slowly"), Reply(["half", Gate("g")]))]) as sim:
        direct = MessagesApi(api_key=lambda: "sk-test", settings=DirectSettings(base_url=sim.url))
        async with kit.engine(direct=direct, max_calls=1) as engine:
            first = asking(engine, kit, "slowly")
            await sim.wait_for(1)
            unseen = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
            waiting = [asking(engine, kit), unseen]
            await kit.until(lambda: engine.admission.calls_queued == 2)
            (spent,) = await engine.budgets.get("all", None)
            for each in waiting:
                each.cancel()
                assert (await kit.ended(each)).kind == "request_cancelled"
            (now,) = await engine.budgets.get("all", None)
            assert (now.spent_usd, spent.spent_usd) == (0, 0)
            assert now.reserved_usd < spent.reserved_usd
            first.cancel()
            await kit.ended(first)
        await direct.close()
