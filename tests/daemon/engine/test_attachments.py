"""Attaching, cut off and attached again at any moment of a turn: no gap, no duplicate, whole texts."""

import asyncio
import random
from typing import Any

import pytest
from dragoman_protocol.stream import AssistantText, TextDelta
from dragomand.engine import attachments as module
from dragomand.engine.channel import Published, cursor_of
from dragomand.upstream.interface import TurnOutcome
from hypothesis import given, settings
from hypothesis import strategies as st


class Reader:
    """A client that attaches; it may stop taking events."""

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.texts: dict[str, str] = {}
        """By item, rebuilt from deltas and their offsets."""
        self.finals: dict[str, str] = {}
        self.ephemeral: list[Any] = []
        self.cursor: str | None = None
        self.dropped: list[str] = []
        self.takes = True

    def deliver(self, event: Published) -> bool:
        if not self.takes:
            return False
        what = event.params.event
        if event.params.seq is not None:
            self.seqs.append(event.params.seq)
            self.cursor = event.params.cursor
        else:
            self.ephemeral.append(what)
        if isinstance(what, TextDelta):
            before = self.texts.get(what.item_id, "")
            assert len(before) >= what.offset, f"a hole before {what}"
            self.texts[what.item_id] = before[: what.offset] + what.text
        elif isinstance(what, AssistantText):
            self.finals[what.item_id] = what.text
        return True

    def was_dropped(self, cursor: str) -> None:
        self.dropped.append(cursor)


async def attach(
    engine: Any, session_id: str, reader: Reader, cursor: str | None = None, who: str = "c"
) -> Any:
    return await engine.attachments.attach(session_id, cursor, who, reader.deliver, reader.was_dropped)


async def test_a_session_that_rests_is_replayed_from_the_beginning(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        reader = Reader()
        attached = await attach(engine, result.session_id, reader)
        assert reader.seqs == [1, 2, 3, 4, 5]
        assert (attached.status, attached.reason, attached.turn_id) == ("replayed", None, None)
        assert attached.cursor == reader.cursor
        assert reader.finals == {"text-1": "hello"}
        engine.attachments.detach(result.session_id, "c")
        engine.check_idle()


@pytest.mark.parametrize("page", [1, 2, 200])
async def test_only_what_came_after_the_cursor(kit: Any, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(module, "PAGE", page)
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        whole = Reader()
        cursor = (await attach(engine, result.session_id, whole)).cursor
        epoch = cursor.rpartition(":")[0]
        for seen in range(6):
            reader = Reader()
            attached = await attach(engine, result.session_id, reader, cursor_of(epoch, seen))
            assert reader.seqs == list(range(seen + 1, 6))
            assert attached.status == "replayed"


async def test_a_turn_that_runs_is_shown_with_its_text_so_far_and_then_live(kit: Any) -> None:
    async with kit.engine() as engine:
        gate = kit.Gated()
        engine.upstream.scripts.append(gate)
        started: list[str] = []
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.soon(gate.reached)
        reader = Reader()
        attached = await attach(engine, started[0], reader)
        assert reader.seqs == [1, 2]
        assert reader.texts == {"text-1": "half"}
        gate.go.set()
        result = await query
        assert attached.turn_id == result.turn_id
        assert reader.seqs == [1, 2, 3, 4, 5]
        assert reader.texts == reader.finals == {"text-1": "half and half"}


async def test_a_cursor_of_another_epoch_or_of_the_future_begins_anew(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        cursor = (await attach(engine, result.session_id, Reader())).cursor
        epoch = cursor.rpartition(":")[0]
        for lost in ("other:3", cursor_of(epoch, 6), ":2"):
            reader = Reader()
            attached = await attach(engine, result.session_id, reader, lost)
            assert (attached.status, attached.reason) == ("resync", "epoch_reset")
            assert reader.seqs == [1, 2, 3, 4, 5]


async def test_what_is_no_cursor_and_what_is_no_session(kit: Any) -> None:
    async with kit.engine() as engine:
        error = await kit.refused("invalid_params", attach(engine, "x", Reader(), "nonsense"))
        assert error.data["path"] == "$.cursor"
        await kit.refused("session_not_found", attach(engine, "x", Reader()))
        engine.check_idle()


async def test_attaching_again_replaces_and_stays_live(kit: Any) -> None:
    """On a session that rests, the channel must survive the change of readers."""
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        first, second = Reader(), Reader()
        await attach(engine, result.session_id, first)
        await attach(engine, result.session_id, second, first.cursor)
        assert engine.attachments.open == 1
        again = engine.params("more", session_id=result.session_id)
        await engine.queries.run(again, kit.caller())
        assert first.seqs == [1, 2, 3, 4, 5]
        assert second.seqs == [6, 7, 8, 9, 10]


async def test_two_attachments_of_one_client_at_once_leave_one(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        readers = [Reader(), Reader(), Reader()]
        await asyncio.gather(*(attach(engine, result.session_id, reader) for reader in readers))
        assert engine.attachments.open == 1
        engine.attachments.leave("c")
        engine.check_idle()


async def test_a_slow_reader_is_dropped_with_where_to_continue(kit: Any) -> None:
    async with kit.engine() as engine:
        gate = kit.Gated()
        engine.upstream.scripts.append(gate)
        started: list[str] = []
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.soon(gate.reached)
        slow, other = Reader(), Reader()
        await attach(engine, started[0], slow)
        await attach(engine, started[0], other, who="d")
        slow.takes = False
        gate.go.set()
        await query
        assert slow.seqs == [1, 2]
        assert slow.dropped == [slow.cursor]
        assert other.seqs == [1, 2, 3, 4, 5]
        assert engine.attachments.open == 1
        slow.takes = True
        await attach(engine, started[0], slow, slow.dropped[0])
        assert slow.seqs == [1, 2, 3, 4, 5]


async def test_ephemeral_events_that_are_not_taken_drop_nobody(kit: Any) -> None:
    async with kit.engine() as engine:
        reader = Reader()
        gate = kit.Gated()
        engine.upstream.scripts.append(gate)
        started: list[str] = []
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.soon(gate.reached)
        await attach(engine, started[0], reader)
        reader.takes = False
        assert gate.turn is not None
        gate.turn.say("lost", offset=4)
        reader.takes = True
        assert (reader.dropped, engine.attachments.open) == ([], 1)
        gate.turn.run.upstream.scripts.clear()
        query.cancel()
        await asyncio.wait([query])


@pytest.mark.parametrize("taken", [0, 2])
async def test_a_reader_that_is_too_slow_for_the_replay(kit: Any, taken: int) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        reader = Reader()

        def deliver(event: Published) -> bool:
            reader.takes = len(reader.seqs) < taken
            return reader.deliver(event)

        await engine.attachments.attach(result.session_id, None, "c", deliver, reader.was_dropped)
        assert engine.attachments.open == 0
        assert len(reader.dropped) == 1
        reader.takes = True
        await attach(engine, result.session_id, reader, reader.dropped[0])
        assert reader.seqs == [1, 2, 3, 4, 5]


async def test_where_to_continue_is_of_the_present_epoch_after_a_resync(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        reader = Reader()
        reader.takes = False
        await attach(engine, result.session_id, reader, "old:4")
        reader.takes = True
        attached = await attach(engine, result.session_id, reader, reader.dropped[0])
        assert attached.status == "replayed"
        assert reader.seqs == [1, 2, 3, 4, 5]


async def test_whoever_is_cancelled_in_the_middle_of_a_replay_is_not_attached(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        task = asyncio.create_task(attach(engine, result.session_id, Reader()))
        await kit.until(lambda: engine.attachments.open == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine.check_idle()


async def test_a_store_that_fails_during_the_replay(kit: Any) -> None:
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        engine.sessions.channel_of(await engine.store.session(result.session_id))
        await engine.store.close()
        await kit.refused("storage_failed", attach(engine, result.session_id, Reader()))
        engine.check_idle()


async def test_a_client_that_goes_takes_its_attachments_with_it(kit: Any) -> None:
    async with kit.engine() as engine:
        sessions = [(await engine.queries.run(engine.params(), kit.caller())).session_id for _ in range(2)]
        for session_id in sessions:
            await attach(engine, session_id, Reader())
            await attach(engine, session_id, Reader(), who="d")
        assert engine.attachments.enters("c")
        assert not engine.attachments.enters("c")
        engine.attachments.leave("c")
        assert engine.attachments.open == 2
        assert engine.attachments.enters("c")
        engine.attachments.leave("d")
        engine.attachments.detach(sessions[0], "nobody")
        engine.check_idle()


async def test_a_session_that_is_deleted_during_the_replay(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    async with kit.engine() as engine:
        result = await engine.queries.run(engine.params(), kit.caller())
        reader = Reader()
        attaching = asyncio.create_task(attach(engine, result.session_id, reader))
        await kit.until(lambda: reader.seqs == [1, 2])
        await engine.sessions.delete(result.session_id)
        await kit.ended(attaching)
        assert reader.seqs[:2] == [1, 2]
        engine.attachments.leave("c")
        engine.check_idle()


async def test_what_is_published_during_the_replay_comes_once_and_after_it(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 1)
    async with kit.engine() as engine:
        reader, go = Reader(), asyncio.Event()

        async def script(turn: Any) -> TurnOutcome:
            for number in range(5):
                turn.said(str(number), item=f"i{number}")
            await go.wait()
            turn.say("li", item="live")
            turn.said("6", item="i6")
            turn.say("ve", item="live", offset=2)
            turn.said("7", item="i7")
            await turn.interrupted.wait()
            return TurnOutcome(status="completed", text="done")

        engine.upstream.scripts.append(script)
        started: list[str] = []
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.until(lambda: bool(started))
        channel = await engine.sessions.channel(started[0])
        await kit.until(lambda: channel.last_seq == 7)
        attaching = asyncio.create_task(attach(engine, started[0], reader))
        await kit.until(lambda: reader.seqs == [1, 2])
        go.set()
        await attaching
        await kit.until(lambda: len(reader.seqs) == 9)
        assert reader.seqs == [1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert reader.texts["live"] == "live"
        engine.queries.turn_of(started[0]).stop("client")
        await query


# -- any cuts


class Talk:
    """One turn that speaks in pieces, with something done after each piece."""

    def __init__(self, engine: Any, seed: int) -> None:
        self.engine = engine
        self.random = random.Random(seed)
        self.said: dict[str, str] = {}

    def speak(self, steps: list[int], each: Any) -> None:
        """Let the next turn publish pieces of so many letters, four an item."""

        async def script(turn: Any) -> TurnOutcome:
            for at, size in enumerate(steps):
                item = f"i{at // 4}"
                piece = "".join(self.random.choice("abö😀\n") for _ in range(size))
                before = self.said.get(item, "")
                turn.say(piece, item=item, offset=len(before))
                self.said[item] = before + piece
                if at % 4 == 3 or at == len(steps) - 1:
                    turn.said(self.said[item], item=item)
                await each(turn.run.spec.session_id)
            return TurnOutcome(status="completed", text="done")

        self.engine.upstream.scripts.append(script)


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.integers(0, 6), min_size=1, max_size=16),
    cuts=st.lists(st.integers(0, 4), min_size=1, max_size=16),
    seed=st.integers(0, 2**16),
    page=st.integers(1, 3),
)
def test_cut_off_and_attached_again_at_any_moment(
    new_kit: Any, steps: list[int], cuts: list[int], seed: int, page: int
) -> None:
    async def run() -> None:
        kit = new_kit()
        async with kit.engine() as engine:
            reader, steady = Reader(), Reader()
            talk = Talk(engine, seed)
            attaching: list[asyncio.Task[Any]] = []
            at = 0

            async def again(session_id: str) -> None:
                # Whoever was cut off has the whole items, and needs the running ones from their beginning.
                reader.texts = {item: text for item, text in reader.texts.items() if item in reader.finals}
                await attach(engine, session_id, reader, reader.cursor)

            async def each(session_id: str) -> None:
                nonlocal at
                cut = cuts[at % len(cuts)]
                at += 1
                if at == 1:
                    await attach(engine, session_id, steady, who="steady")
                if cut == 1:
                    engine.attachments.detach(session_id, "c")
                elif cut == 2:
                    await again(session_id)
                elif cut == 3:  # while the turn goes on publishing
                    attaching.append(asyncio.create_task(again(session_id)))
                elif cut == 4:
                    for _ in range(cuts[0] + 1):
                        await asyncio.sleep(0)

            talk.speak(steps, each)
            result = await engine.queries.run(engine.params(), kit.caller())
            await asyncio.gather(*attaching)
            await attach(engine, result.session_id, reader, reader.cursor)
            whole = Reader()
            await attach(engine, result.session_id, whole, who="whole")
            last = len(await engine.store.items(result.session_id, limit=1000))
            assert reader.seqs == steady.seqs == whole.seqs == list(range(1, last + 1))
            assert reader.finals == steady.finals == whole.finals == talk.said
            # An item that was complete before the replay had caught up comes whole, without deltas.
            assert all(talk.said[item] == text for item, text in steady.texts.items())
            assert set(steady.texts) | {"i0"} == set(talk.said)
            assert all(talk.said[item].startswith(text) for item, text in reader.texts.items())

    before, module.PAGE = module.PAGE, page
    try:
        asyncio.run(run())
    finally:
        module.PAGE = before
