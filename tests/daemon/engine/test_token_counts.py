"""Counting tokens."""

from pathlib import Path
from typing import Any

import pytest
from dragoman_protocol.auth import CloudAuth
from dragoman_protocol.query import CountTokensParams, CountTokensResult
from dragomand.engine.auth import LOGIN_FILE, Auth
from dragomand.engine.errors import EngineError
from dragomand.engine.token_counts import TokenCounts
from dragomand.upstream.interface import Failure, RunSpec, UpstreamError


class Counter:
    """Counts characters."""

    def __init__(self) -> None:
        self.specs: list[RunSpec] = []
        self.error: UpstreamError | None = None

    async def count_tokens(self, spec: RunSpec, prompt: Any) -> tuple[int, str]:
        self.specs.append(spec)
        if self.error is not None:
            raise self.error
        return len(prompt), spec.model or "claude-default"


def auth(folder: Path, key: str | None) -> Auth:
    return Auth(api_key=key, environment={}, claude_config_dir=str(folder))


async def test_a_prompt_alone_and_as_the_next_turn_of_a_session(kit: Any, tmp_path: Path) -> None:
    async with kit.engine() as engine:
        counter = Counter()
        counts = TokenCounts(counter, auth(tmp_path, "k"), engine.sessions)
        given = CountTokensParams(prompt="four", model="opus", system_prompt="sp")
        assert await counts.count(given) == CountTokensResult(input_tokens=4, model="opus")
        assert (counter.specs[0].system_prompt, counter.specs[0].history) == ("sp", ())
        done = await engine.queries.run(engine.params("hi"), kit.caller())
        await counts.count(CountTokensParams(prompt="x", session_id=done.session_id))
        assert [message.content for message in counter.specs[1].history] == ["hi", "hello"]
        assert (counter.specs[1].model, counter.specs[1].system_prompt) == (None, None)
        await kit.refused("session_not_found", counts.count(CountTokensParams(prompt="x", session_id="no")))
        # Who answers in a session is counted with, unless another one is named.
        named = engine.params("hi", model="haiku", system_prompt="You count.")
        session_id = (await engine.queries.run(named, kit.caller())).session_id
        await counts.count(CountTokensParams(prompt="x", session_id=session_id))
        assert (counter.specs[-1].model, counter.specs[-1].system_prompt) == ("haiku", "You count.")
        other = CountTokensParams(prompt="x", session_id=session_id, model="opus", system_prompt="")
        await counts.count(other)
        assert (counter.specs[-1].model, counter.specs[-1].system_prompt) == ("opus", "")


async def test_failures_are_the_engines(kit: Any, tmp_path: Path) -> None:
    async with kit.engine() as engine:
        counter = Counter()
        counter.error = UpstreamError(Failure("throttle", "slow", retry_after_ms=5))
        counts = TokenCounts(counter, auth(tmp_path, "k"), engine.sessions)
        error = await kit.refused("throttled", counts.count(CountTokensParams(prompt="x")))
        assert error.data["retry_after_ms"] == 5


@pytest.mark.parametrize(("login", "kind"), [(True, "upstream_unavailable"), (False, "auth_required")])
async def test_a_login_counts_nothing(kit: Any, tmp_path: Path, login: bool, kind: str) -> None:
    if login:
        (tmp_path / LOGIN_FILE).write_text("{}")
    async with kit.engine() as engine:
        counter = Counter()
        counts = TokenCounts(counter, auth(tmp_path, None), engine.sessions)
        with pytest.raises(EngineError) as caught:
            await counts.count(CountTokensParams(prompt="x"))
    assert caught.value.kind == kind
    assert not counter.specs


@pytest.mark.parametrize("state", ["found", "failed", "notInstalled"])
async def test_a_cloud_counts_without_a_key(kit: Any, tmp_path: Path, state: Any) -> None:
    step = "pip install it" if state == "notInstalled" else None
    cloud = CloudAuth(provider="bedrock", state=state, next_step=step)
    holder = Auth(api_key=None, environment={}, claude_config_dir=str(tmp_path), cloud=lambda: cloud)
    (tmp_path / LOGIN_FILE).write_text("{}")
    async with kit.engine() as engine:
        counts = TokenCounts(Counter(), holder, engine.sessions)
        if step is None:
            assert (await counts.count(CountTokensParams(prompt="four"))).input_tokens == 4
            return
        error = await kit.refused("upstream_unavailable", counts.count(CountTokensParams(prompt="x")))
        assert error.data["next_step"] == step
