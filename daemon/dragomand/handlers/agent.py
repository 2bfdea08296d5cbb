"""`agent/*`."""

from dragoman_protocol import agent as wire

from dragomand.engine.agents import Agents
from dragomand.server.route import Call, Handler


def agent_handlers(agents: Agents) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    async def list_(_call: Call, params: wire.AgentListParams) -> wire.AgentListResult:
        return await agents.list(params.group)

    async def get(_call: Call, params: wire.AgentGetParams) -> wire.AgentGetResult:
        return await agents.get(params.name)

    return {"agent/list": list_, "agent/get": get}
