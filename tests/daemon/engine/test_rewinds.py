"""Files of a stream put back as they were when a turn began."""

import asyncio
from typing import Any

from dragoman_protocol.stream import StreamRewindFilesParams, StreamSendParams, TurnCompleted
from dragomand.engine.rewinds import Rewinds
from dragomand.upstream.interface import Failure, UpstreamError


async def opened(engine: Any, kit: Any, **chosen: Any) -> tuple[Rewinds, str, Any]:
    """Open a stream, run a turn in it and return what rewinds it."""
    session_id, channel = await engine.streams.open(engine.opening(**chosen), kit.caller())
    watcher = kit.Watcher()
    channel.subscribe(watcher)
    send = StreamSendParams(session_id=session_id, prompt="write")
    turn_id = await engine.streams.send(send, kit.caller())
    await watcher.sees(TurnCompleted)
    params = StreamRewindFilesParams(session_id=session_id, turn_id=turn_id)
    return Rewinds(engine.streams, engine.store), session_id, params


async def test_the_turns_own_message_says_where(kit: Any) -> None:
    async with kit.engine() as engine:
        rewinds, session_id, params = await opened(engine, kit, file_checkpointing=True)
        items = await engine.store.turn_items(params.turn_id)
        message = next(item.item_id for item in items if item.kind == "user_message")
        done = await rewinds.rewind(params, kit.caller())
        assert (done.files, done.insertions, done.deletions, done.rewound) == (["/a/file"], 1, 2, True)
        params.dry_run = True
        assert not (await rewinds.rewind(params, kit.caller())).rewound
        assert engine.upstream.rewound == [(message, False), (message, True)]
        await engine.streams.close(session_id)
        await kit.refused("stream_not_open", rewinds.rewind(params, kit.caller()))


async def test_a_stream_that_sleeps_is_woken(kit: Any) -> None:
    async with kit.engine(sleep_s=0.01) as engine:
        rewinds, session_id, params = await opened(engine, kit, file_checkpointing=True)
        await kit.until(lambda: engine.upstream.runs[0].closed)
        await rewinds.rewind(params, kit.caller())
        assert engine.upstream.runs[1].spec.resume == session_id
        # It sleeps again after that.
        await kit.until(lambda: engine.upstream.runs[1].closed)
        await engine.streams.close(session_id)


async def test_not_beside_a_turn(kit: Any) -> None:
    async with kit.engine(sleep_s=0.01) as engine:
        rewinds, session_id, params = await opened(engine, kit, file_checkpointing=True)
        gate = kit.Gated()
        engine.upstream.scripts = [gate]
        send = StreamSendParams(session_id=session_id, prompt="more")
        turn_id = await engine.streams.send(send, kit.caller())
        await kit.soon(gate.reached)
        error = await kit.refused("session_busy", rewinds.rewind(params, kit.caller()))
        assert error.data["turn_id"] == turn_id
        gate.go.set()
        await kit.until(lambda: engine.streams.turn_of(session_id) is None)
        # And no turn beside it; nor is the process put to sleep under it.
        engine.upstream.hold_rewind = asyncio.Event()
        rewinding = asyncio.create_task(rewinds.rewind(params, kit.caller()))
        await kit.until(lambda: bool(engine.upstream.rewound))
        engine.streams.rest()
        await kit.refused("session_busy", engine.streams.send(send, kit.caller()))
        assert not engine.upstream.runs[-1].closed
        engine.upstream.hold_rewind.set()
        await kit.ended(rewinding)
        await engine.streams.close(session_id)


async def test_what_cannot_be_rewound(kit: Any) -> None:
    async with kit.engine() as engine:
        rewinds, session_id, params = await opened(engine, kit)
        error = await kit.refused("invalid_params", rewinds.rewind(params, kit.caller()))
        assert error.data["reason"] == "no copies"
        other = (await engine.queries.run(engine.params(), kit.caller())).turn_id
        for turn in ("none", other):
            wrong = StreamRewindFilesParams(session_id=session_id, turn_id=turn)
            error = await kit.refused("invalid_params", rewinds.rewind(wrong, kit.caller()))
            assert error.data["reason"] == "no such turn"
        await engine.streams.close(session_id)
        rewinds, session_id, params = await opened(engine, kit, file_checkpointing=True)
        engine.upstream.rewind_error = UpstreamError(Failure("caller", "no checkpoint"))
        error = await kit.refused("upstream_rejected", rewinds.rewind(params, kit.caller()))
        assert "no checkpoint" in str(error)
        await engine.streams.close(session_id)
