"""`session/*`."""

from dragoman_protocol import session as wire

from dragomand.engine.forks import Forks
from dragomand.engine.sessions import Sessions
from dragomand.server.route import Call, Handler

from .caller import caller_of
from .sessions_seen import noting


def session_handlers(sessions: Sessions, forks: Forks) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    async def list_(call: Call, params: wire.SessionListParams) -> wire.SessionListResult:
        everybodys = "read-all-sessions" in call.client.scopes
        only = None if everybodys else sessions.seen_by(call.client.id)
        return await sessions.list(
            limit=params.limit, cursor=params.cursor, cwd=params.cwd, tag=params.tag, only=only
        )

    async def get(_call: Call, params: wire.SessionGetParams) -> wire.SessionGetResult:
        return await sessions.get(params.session_id)

    async def messages(_call: Call, params: wire.SessionMessagesParams) -> wire.SessionMessagesResult:
        return await sessions.messages(params.session_id, limit=params.limit, cursor=params.cursor)

    async def fork(call: Call, params: wire.SessionForkParams) -> wire.SessionForkResult:
        made = await forks.fork(params, caller_of(call.client).name)
        noting(call.client, sessions)(made.session_id)
        return wire.SessionForkResult(session=made)

    async def delete(_call: Call, params: wire.SessionDeleteParams) -> wire.SessionDeleteResult:
        await sessions.delete(params.session_id)
        return wire.SessionDeleteResult(deleted=True)

    return {
        "session/list": list_,
        "session/get": get,
        "session/messages": messages,
        "session/fork": fork,
        "session/delete": delete,
    }
