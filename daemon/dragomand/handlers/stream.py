"""`stream/*`."""

from dragoman_protocol import stream as wire
from dragoman_protocol.values import Empty

from dragomand.engine.attachments import Attachments, Deliver, Dropped
from dragomand.engine.channel import Published
from dragomand.engine.queries import Queries
from dragomand.engine.rewinds import Rewinds
from dragomand.engine.sessions import Sessions
from dragomand.engine.streams import Streams
from dragomand.server.route import Call, Client, Handler

from .caller import caller_of
from .fitting import fitting
from .sessions_seen import noting


def stream_handlers(
    streams: Streams,
    queries: Queries,
    sessions: Sessions,
    attachments: Attachments,
    rewinds: Rewinds,
) -> dict[str, Handler]:
    """Return the group's handlers by method."""

    async def open_(call: Call, params: wire.StreamOpenParams) -> wire.StreamOpenResult:
        session_id, channel = await streams.open(params, caller_of(call.client))
        attached = await attach_to(call.client, session_id, channel.cursor)
        run = streams.process_of(session_id)
        return wire.StreamOpenResult(
            session_id=session_id,
            cursor=attached.cursor,
            claude_session_id=None if run is None else run.upstream_session_id,
            start=None if run is None else "warm" if run.warm else "cold",
        )

    async def send(call: Call, params: wire.StreamSendParams) -> wire.StreamSendResult:
        return wire.StreamSendResult(turn_id=await streams.send(params, caller_of(call.client)))

    async def attach(call: Call, params: wire.StreamAttachParams) -> wire.StreamAttachResult:
        return await attach_to(call.client, params.session_id, params.cursor)

    async def attach_to(client: Client, session_id: str, cursor: str | None) -> wire.StreamAttachResult:
        deliver, dropped = _reader(client, session_id)
        attached = await attachments.attach(session_id, cursor, client.id, deliver, dropped)
        # Only now: what is noted is known to exist, and a connection that closed meanwhile is left at once.
        noting(client, sessions)(session_id)
        if attachments.enters(client.id):
            client.on_close(lambda: attachments.leave(client.id))
        return attached

    async def detach(call: Call, params: wire.StreamDetachParams) -> Empty:
        attachments.detach(params.session_id, call.client.id)
        return Empty()

    async def interrupt(_call: Call, params: wire.StreamInterruptParams) -> wire.StreamInterruptResult:
        session_id, turn_id = params.session_id, params.turn_id
        stopped = streams.interrupt(session_id, turn_id) or queries.interrupt(session_id, turn_id)
        if not stopped:
            await sessions.channel(session_id)  # raises if there is no such session
            sessions.tidy(session_id)
        return wire.StreamInterruptResult(interrupted=stopped)

    async def rewind(call: Call, params: wire.StreamRewindFilesParams) -> wire.StreamRewindFilesResult:
        return await rewinds.rewind(params, caller_of(call.client))

    async def close(_call: Call, params: wire.StreamCloseParams) -> Empty:
        await streams.close(params.session_id)
        return Empty()

    return {
        "stream/open": open_,
        "stream/send": send,
        "stream/attach": attach,
        "stream/detach": detach,
        "stream/interrupt": interrupt,
        "stream/rewindFiles": rewind,
        "stream/close": close,
    }


def _reader(client: Client, session_id: str) -> tuple[Deliver, Dropped]:
    """Return what sends each event, and what tells a client too slow for them where to continue."""

    def deliver(event: Published) -> bool:
        return client.event("stream/event", fitting(event), ephemeral=event.ephemeral)

    def dropped(cursor: str) -> None:
        client.notify("stream/dropped", wire.StreamDroppedParams(session_id=session_id, cursor=cursor))

    return deliver, dropped
