"""`agent/list`, `agent/get`."""

from typing import Any


async def test_the_library(house: Any) -> None:
    async with house() as at:
        client = at.client()
        everything = await at.call(client, "agent/list")
        assert len(everything.data) >= 12
        security = await at.call(client, "agent/list", group="security")
        assert [info.name for info in security.data] == ["crypto_auditor", "security_reviewer"]
        found = await at.call(client, "agent/get", name="security_reviewer")
        assert found.agent in security.data
        assert "OWASP" in found.definition.prompt


async def test_one_that_is_not_there(house: Any) -> None:
    async with house() as at:
        client = at.client()
        error = await at.refused("agent_not_found", at.call(client, "agent/get", name="debuger"))
        assert (error.code, error.data.agent, error.data.nearest) == (1310, "debuger", "debugger")
        error = await at.refused("agent_not_found", at.query(client, agent="debuger"))
        assert error.data.nearest == "debugger"
