"""`auth/status`."""

from typing import Any

import pytest


@pytest.mark.parametrize("key", [None, "sk-test"])
async def test_status(house: Any, key: str | None) -> None:
    async with house(api_key=key) as at:
        status = at.call(at.client(), "auth/status")
        assert (status.authenticated, status.token_present) == (key is not None, key is not None)
        assert status.source == ("environment" if key else "none")
