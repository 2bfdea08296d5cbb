"""`model/list`."""

from typing import Any


async def test_the_table(house: Any) -> None:
    async with house() as at:
        models = at.call(at.client(), "model/list").data
        assert [model.alias for model in models] == ["opus", "sonnet", "haiku", "fable"]
        assert models[0].fallback_model == "sonnet"
