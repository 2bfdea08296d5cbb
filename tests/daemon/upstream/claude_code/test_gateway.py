"""The real Claude Code through the real gateway: over a unix socket, over a port, and without it."""

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest
from dragoman_protocol.stream import Retrying, TextDelta
from dragoman_sim import Gate, Reply, Rule, Simulator, ToolUse, When
from dragomand.engine.admission import Admission, DoorSettings
from dragomand.engine.call import Payer
from dragomand.engine.calls import Calls
from dragomand.gateway.gateway import Gateway, GatewaySettings
from dragomand.upstream.interface import UpstreamError
from dragomand.upstream.limits_heard import LimitsHeard


class Front:
    """A gateway in front of a simulator."""

    def __init__(self, world: Any, sim: Simulator) -> None:
        runtime = world.root / "run"
        runtime.mkdir(mode=0o700)
        admission = Admission(DoorSettings(), clock=time.monotonic)
        self.calls = Calls(admission, clock=time.time, queue_timeout_s=60)
        self.said_by_claude_code: list[LimitsHeard] = []
        self.gateway = Gateway(
            calls=self.calls,
            api_key=lambda: world.key,
            settings=GatewaySettings(base_url=sim.url),
            runtime_dir=str(runtime),
            clock=time.time,
            logger=logging.getLogger("test"),
        )


@pytest.fixture
async def sim() -> Any:
    tool = Reply([ToolUse("Bash", {"command": "echo from the tool; env"})])
    async with Simulator([Rule(When(text="use a tool"), [tool, "Done."])]) as sim:
        yield sim


@pytest.fixture
async def front(world: Any, sim: Simulator) -> Any:
    front = Front(world, sim)
    yield front
    await front.gateway.close()


async def test_turns_with_tools(world: Any, sim: Simulator, front: Front, run_of: Callable[..., Any]) -> None:
    run = await run_of(front)
    assert run.api_access.unix_socket is not None
    outcome = await run.send("use a tool", "m-1", world.events())
    assert (outcome.status, outcome.text) == ("completed", "Done.")
    assert all(record.used_key(world.key) for record in sim.messages)
    total = front.calls.total
    assert (total.calls, total.failed) == (len(sim.requests), 0)
    assert total.usage.output_tokens == outcome.usage.output_tokens
    assert total.usage.input_tokens == outcome.usage.input_tokens
    assert len(front.calls.grants) == 1
    await run.close()
    assert front.calls.grants == [], "its token is worth nothing any more"


async def test_what_the_gateway_has_heard_is_not_heard_again(
    world: Any, sim: Simulator, front: Front, run_of: Callable[..., Any]
) -> None:
    """The gateway is told of the pause, and asks again after it: Claude Code does not hear of any."""
    sim.use([Rule(When(text="go"), fault="rate_limited_ms", times=1), Rule(When(text="go"), "Gone.")])
    heard: list[LimitsHeard] = []
    front.calls.limits.on_heard = heard.append
    run = await run_of(front)
    events = world.events()
    outcome = await run.send("go", "m-1", events)
    assert (outcome.status, outcome.text) == ("completed", "Gone.")
    assert events.of(Retrying) == []
    assert len(sim.messages) == 2
    (refused,) = [each for each in heard if each.failure is not None]
    assert (refused.failure.category, refused.retry_after_s) == ("throttle", 1.5)
    assert refused.model is not None
    assert front.said_by_claude_code == []
    await run.close()


async def test_one_that_knows_no_unix_sockets(
    world: Any, sim: Simulator, front: Front, run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragomand.upstream.claude_code.unix_socket._contains", lambda *_: False)
    # A proxy that is not there: it is not for the way to the gateway.
    run = await run_of(front, HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    assert run.api_access.base_url.startswith("http://127.0.0.1:")
    outcome = await run.send("hello", "m-1", world.events())
    assert outcome.text == "You said: hello"
    assert sim.messages[-1].used_key(world.key)
    assert front.calls.total.failed == 0


async def test_without_gateway_the_key_goes_by_descriptor(
    world: Any, sim: Simulator, front: Front, run_of: Callable[..., Any]
) -> None:
    front.gateway._settings = GatewaySettings(enabled=False)
    run = await run_of(front)
    assert run.api_access is None
    outcome = await run.send("hello", "m-1", world.events())
    assert outcome.text == "You said: hello"
    assert sim.messages[-1].used_key(world.key)
    assert front.calls.total.calls == 0


async def test_a_start_that_fails_leaves_no_token(
    world: Any, front: Front, run_of: Callable[..., Any]
) -> None:
    with pytest.raises(UpstreamError):
        await run_of(front, executable=shutil.which("false"))
    assert front.calls.grants == []


async def test_the_bearer_is_worth_its_turns_budget(
    world: Any, sim: Simulator, front: Front, run_of: Callable[..., Any]
) -> None:
    """The gateway stops a turn that has cost what it may, whatever Claude Code thinks of it."""
    run = await run_of(front)
    payer = Payer("me", turn_id="t-1", max_cost_usd=0.000001)
    front.calls.charge(run.api_access.grant_id, lambda: payer)
    outcome = await run.send("use a tool", "m-1", world.events())
    assert (outcome.status, outcome.failure.category) == ("failed", "caller")
    assert "maxBudgetUsd" in outcome.failure.message
    assert len(sim.messages) == 1, "the answer that used it up, and no other"
    payer = Payer("me", turn_id="t-2")
    assert (await run.send("hello", "m-2", world.events())).status == "completed"


async def test_a_runs_calls_end_with_it(
    world: Any, sim: Simulator, front: Front, run_of: Callable[..., Any]
) -> None:
    sim.use([Rule(When(text="wait"), Reply(["Now ", Gate("never"), "then"]))])
    run = await run_of(front)
    events = world.events()
    turn = asyncio.create_task(run.send("wait", "m-1", events))
    await events.wait_for(TextDelta)
    await run.close()
    assert (await turn).status == "interrupted"
    assert await sim.wait_ended(sim.messages[0]) == "abandoned"
    assert front.calls.grants == []


@pytest.fixture
def run_of(world: Any, sim: Simulator) -> Callable[..., Any]:
    """Open a run whose upstream has the front's gateway."""

    async def run_of(front: Front, executable: str | None = None, **environment: str) -> Any:
        upstream = world.upstream(
            sim, executable=executable, environment={**world.environment(), **environment}
        )
        upstream.open_access = front.gateway.open_access
        upstream.on_limits = front.said_by_claude_code.append
        return await upstream.open(world.spec(), world.allow)

    return run_of
