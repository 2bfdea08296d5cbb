"""Plans: order, failures that keep the others, places at the door, cancellation."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from dragoman_protocol.orchestrate import OrchestrateItem, OrchestrateOutcome, OrchestrateParallelParams
from dragomand.upstream.interface import TurnOutcome


def plan(engine: Any, prompts: list[str], **chosen: Any) -> OrchestrateParallelParams:
    items = [OrchestrateItem(prompt=prompt) for prompt in prompts]
    return OrchestrateParallelParams(**{"items": items, "cwd": str(engine.cwd), **chosen})


class Outcomes:
    """Where the outcomes go as they come."""

    def __init__(self) -> None:
        self.came: list[OrchestrateOutcome] = []
        self.started: list[str] = []

    def run(self, kit: Any, engine: Any, params: OrchestrateParallelParams) -> "asyncio.Task[Any]":
        return asyncio.create_task(
            engine.orchestrations.parallel(
                params, kit.caller(), started=self.started.append, outcome=self.came.append
            )
        )


async def test_every_outcome_in_the_order_of_the_items(kit: Any) -> None:
    async with kit.engine() as engine:
        gates = [asyncio.Event() for _ in range(3)]

        def script(turn: Any) -> Any:
            async def answer() -> TurnOutcome:
                await gates[int(turn.prompt)].wait()
                return TurnOutcome(status="completed", text=f"answer {turn.prompt}")

            return answer()

        engine.upstream.scripts = [script] * 3
        outcomes = Outcomes()
        work = outcomes.run(kit, engine, plan(engine, ["0", "1", "2"], max_concurrent=3))
        for index in (2, 0, 1):
            gates[index].set()
            await kit.until(lambda: len(outcomes.came) == [2, 0, 1].index(index) + 1)  # noqa: B023
        result = await work
        assert [outcome.index for outcome in outcomes.came] == [2, 0, 1]
        assert [outcome.index for outcome in result.data] == [0, 1, 2]
        assert [outcome.result.text for outcome in result.data] == ["answer 0", "answer 1", "answer 2"]
        assert (result.succeeded, result.failed) == (3, 0)
        assert sorted(outcomes.started) == sorted(outcome.result.session_id for outcome in result.data)
        assert len(set(outcomes.started)) == 3, "each has a session of its own"
        engine.check_idle()


async def test_one_failure_keeps_the_others(kit: Any) -> None:
    async with kit.engine() as engine:

        async def script(turn: Any) -> TurnOutcome:
            maker = kit.failing("overload", retry_after_ms=9) if turn.prompt == "1" else kit.answering("ok")
            return await maker(turn)

        engine.upstream.scripts = [script] * 3
        result = await Outcomes().run(kit, engine, plan(engine, ["0", "1", "2"]))
        assert (result.succeeded, result.failed) == (2, 1)
        failed = result.data[1]
        assert failed.result is None
        assert (failed.error["kind"], failed.error["retryAfterMs"]) == ("upstream_overloaded", 9)
        assert failed.error["sessionId"]


async def test_an_item_that_may_not_be_run_is_its_own_failure(kit: Any) -> None:
    async with kit.engine() as engine:
        items = [OrchestrateItem(prompt="a", timeout_ms=0), OrchestrateItem(prompt="b", env={"X": "y"})]
        result = await Outcomes().run(
            kit, engine, plan(engine, [], items=[*items, OrchestrateItem(prompt="c")])
        )
        assert [outcome.error and outcome.error["path"] for outcome in result.data] == [
            "$.timeoutMs",
            "$.env.X",
            None,
        ]


async def test_what_an_item_chooses_reaches_the_upstream(kit: Any) -> None:
    async with kit.engine() as engine:
        items = [OrchestrateItem(prompt="a", model="opus"), OrchestrateItem(prompt="b", system_prompt="sp")]
        await Outcomes().run(kit, engine, plan(engine, [], items=items, max_concurrent=1))
        specs = [run.spec for run in engine.upstream.runs]
        assert [(spec.model, spec.system_prompt) for spec in specs] == [("opus", None), (None, "sp")]


async def test_no_more_at_once_than_the_plan_may(kit: Any) -> None:
    async with kit.engine(max_running=10) as engine:
        most = running = 0

        async def script(turn: Any) -> TurnOutcome:
            nonlocal most, running
            running += 1
            most = max(most, running)
            for _ in range(5):
                await asyncio.sleep(0)
            running -= 1
            return TurnOutcome(status="completed", text="ok")

        engine.upstream.scripts = [script] * 20
        result = await Outcomes().run(kit, engine, plan(engine, ["x"] * 20, max_concurrent=3))
        assert (result.succeeded, most) == (20, 3)


async def test_a_full_door_makes_a_plan_wait_not_fail(kit: Any) -> None:
    """Plans keep their own backlog, even several of one client that want more places than there are."""
    async with kit.engine(max_running=1, max_queued=3, max_queued_per_client=2) as engine:
        plans = [Outcomes().run(kit, engine, plan(engine, ["x"] * 12, max_concurrent=12)) for _ in range(2)]
        async with asyncio.timeout(kit.PATIENCE_S):
            results = await asyncio.gather(*plans)
        assert [(result.succeeded, result.failed) for result in results] == [(12, 0), (12, 0)]
        engine.check_idle()


async def test_an_item_that_finds_no_room_in_its_time(kit: Any) -> None:
    async with kit.engine(max_running=1, max_queued=1) as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        first = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.soon(gate.reached)
        second = asyncio.create_task(engine.queries.run(engine.params(), kit.caller()))
        await kit.until(lambda: engine.admission.queued == 1)
        items = [OrchestrateItem(prompt="a", timeout_ms=1)]
        result = await Outcomes().run(kit, engine, plan(engine, [], items=items))
        assert result.data[0].error["kind"] == "queue_timeout"
        gate.go.set()
        await asyncio.gather(first, second)
        engine.check_idle()


@pytest.mark.parametrize(
    ("chosen", "path"),
    [
        ({"items": []}, "$.items"),
        ({"items": [OrchestrateItem(prompt="x")] * 1001}, "$.items"),
        ({"max_concurrent": 0}, "$.maxConcurrent"),
        ({"max_concurrent": 101}, "$.maxConcurrent"),
    ],
)
async def test_plans_that_are_none(kit: Any, chosen: dict[str, Any], path: str) -> None:
    async with kit.engine() as engine:
        error = await kit.refused(
            "invalid_params", Outcomes().run(kit, engine, plan(engine, ["x"], **chosen))
        )
        assert error.data["path"] == path
        assert not engine.upstream.opening.is_set()


async def test_what_would_fail_every_item_fails_the_plan(kit: Any) -> None:
    async with kit.engine() as engine:
        await kit.refused("invalid_cwd", Outcomes().run(kit, engine, plan(engine, ["x"], cwd="/nowhere")))
    async with kit.engine(api_key=None) as engine:
        await kit.refused("auth_required", Outcomes().run(kit, engine, plan(engine, ["x"])))


async def test_cancelling_a_plan_stops_what_runs_and_begins_nothing_more(kit: Any) -> None:
    async with kit.engine(max_running=2) as engine:
        gates = [kit.Gated(), kit.Gated()]
        engine.upstream.scripts = list(gates)
        outcomes = Outcomes()
        work = outcomes.run(kit, engine, plan(engine, ["x"] * 9, max_concurrent=4))
        for gate in gates:
            await kit.soon(gate.reached)
        await kit.until(lambda: engine.admission.queued == 2)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert engine.upstream.interrupts == 2
        assert len(engine.upstream.prompts) == 2
        for session_id in outcomes.started:
            if await engine.store.session(session_id) is not None:
                assert (await engine.store.session(session_id)).last_turn_status == "cancelled"
                await engine.check_whole(session_id)
        engine.check_idle()


async def test_a_plan_and_all_below_it_have_one_budget(kit: Any) -> None:
    """`budget.treeUsd`: what its turns' own tools ask for counts towards the plan; other plans do not."""
    async with kit.engine(ancestors=lambda _pid: (50,)) as engine:
        await engine.budgets.set("tree", "*", 0.1)
        engine.upstream.pid = 50
        gate = kit.Gated()
        engine.upstream.scripts.append(gate)
        outcomes = Outcomes()
        work = outcomes.run(kit, engine, plan(engine, ["one", "two"], max_concurrent=1))
        await kit.soon(gate.reached)
        engine.upstream.pid = None
        engine.upstream.scripts += [kit.answering("below", cost_usd=0.1), kit.answering("other")]
        tool = replace(kit.caller("tool"), peer_pid=77)
        assert (await engine.queries.run(engine.params(), tool)).text == "below"
        error = await kit.refused("budget_exhausted", engine.queries.run(engine.params(), tool))
        assert error.data["scope"] == "tree"
        assert (await engine.queries.run(engine.params(), kit.caller())).text == "other"
        gate.go.set()
        result = await work
        assert result.succeeded == 1
        assert result.data[1].error["kind"] == "budget_exhausted"
        again = await outcomes.run(kit, engine, plan(engine, ["three"], max_concurrent=1))
        assert again.succeeded == 1
        engine.check_idle()
