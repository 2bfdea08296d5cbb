"""`orchestrate/parallel` for a client: outcomes as they come, and all of them at the end."""

from typing import Any

import pytest


async def test_outcomes_come_as_progress_and_in_the_result(house: Any) -> None:
    async with house() as at:
        at.engine.upstream.scripts = [at.kit.failing("caller", "no"), at.kit.answering("yes")]
        client = at.client()
        items = [{"prompt": "a"}, {"prompt": "b"}]
        params = {"items": items, "cwd": str(at.engine.cwd), "maxConcurrent": 1}
        result = await at.call(client, "orchestrate/parallel", partialResultToken=5, **params)
        assert (result.succeeded, result.failed) == (1, 1)
        progress = client.of("$/progress")
        assert [(told["token"], told["value"]["index"]) for told in progress] == [(5, 0), (5, 1)]
        assert progress[0]["value"]["error"]["kind"] == "upstream_rejected"
        assert progress[1]["value"]["result"]["text"] == "yes"


@pytest.mark.parametrize("token", [None, 5])
async def test_the_result_comes_to_a_client_that_takes_no_progress(house: Any, token: int | None) -> None:
    async with house() as at:
        client = at.client()
        client.takes_durable = False
        params = {"items": [{"prompt": "a"}], "cwd": str(at.engine.cwd)}
        result = await at.call(
            client, "orchestrate/parallel", **params, **({"partialResultToken": 5} if token else {})
        )
        assert result.data[0].result.text == "hello"
        assert client.told == []


async def test_a_plan_that_cannot_be_run(house: Any) -> None:
    async with house() as at:
        error = await at.refused(
            "invalid_params", at.call(at.client(), "orchestrate/parallel", items=[], cwd=str(at.engine.cwd))
        )
        assert error.data.path == "$.items"
