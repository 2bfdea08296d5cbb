"""Finding, reading and deleting sessions; who may write to one; whose they are; no channel is left over."""

import asyncio
from typing import Any

import pytest
from dragoman_protocol.session import Usage
from dragoman_protocol.stream import TurnCompleted
from dragomand.engine import sessions
from dragomand.engine.errors import EngineError
from dragomand.store.errors import StorageError
from dragomand.store.rows import ItemRow, SessionRow, TurnRow


async def listed(engine: Any, **chosen: Any) -> Any:
    return await engine.sessions.list(
        **{"limit": 50, "cursor": None, "cwd": None, "tag": None, "only": None, **chosen}
    )


async def test_a_session_is_told_whole(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts = [
            kit.answering("one", cost_usd=0.25),
            kit.failing("quota"),
            kit.answering("two"),
        ]
        first = await engine.queries.run(engine.params("what?", tags=["b", "a"], model="opus"), kit.caller())
        again = engine.params("and?", session_id=first.session_id, message_id="m")
        await kit.refused("quota_exhausted", engine.queries.run(again, kit.caller()))
        got = await engine.sessions.get(first.session_id)
        info = got.session
        assert (info.session_id, info.state, info.title, info.model) == (
            first.session_id,
            "idle",
            "what?",
            "opus",
        )
        assert (info.cwd, info.tags, info.claude_session_id) == (
            str(engine.cwd),
            ["b", "a"],
            first.session_id,
        )
        assert (info.turn_count, info.item_count, info.cost_usd) == (2, 9, 0.25)
        assert info.usage == Usage(input_tokens=3, output_tokens=5)
        one, two = got.turns
        assert (one.turn_id, one.status, one.error_kind, one.model) == (
            first.turn_id,
            "completed",
            None,
            "claude-x",
        )
        assert (two.status, two.error_kind, two.message_id) == ("failed", "quota_exhausted", "m")
        assert one.completed_at is not None
        assert one.started_at < one.completed_at


async def test_states(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        started: list[str] = []
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.soon(gate.reached)
        assert (await engine.sessions.get(started[0])).session.state == "running"
        engine.queries.stop_all()
        await kit.ended(query)
        assert (await engine.sessions.get(started[0])).session.state == "interrupted"


async def test_what_is_not_there(kit: Any) -> None:
    async with kit.engine() as engine:
        for work in (
            engine.sessions.get("x"),
            engine.sessions.messages("x", limit=10, cursor=None),
            engine.sessions.delete("x"),
            engine.sessions.channel("x"),
            engine.sessions.load("x"),
        ):
            assert (await kit.refused("session_not_found", work)).data == {"session_id": "x"}
        engine.check_idle()


async def test_a_store_that_fails(kit: Any) -> None:
    async with kit.engine() as engine:
        await engine.store.close()
        for work in (
            engine.sessions.get("x"),
            engine.sessions.messages("x", limit=10, cursor=None),
            engine.sessions.delete("x"),
            engine.sessions.channel("x"),
            listed(engine),
        ):
            await kit.refused("storage_failed", work)
        engine.check_idle()


# -- lists


async def test_lists_are_paged_and_filtered(kit: Any) -> None:
    async with kit.engine() as engine:
        made = []
        for number in range(5):
            tags = ["odd"] if number % 2 else []
            made.append((await engine.queries.run(engine.params(tags=tags), kit.caller())).session_id)
        newest_first = made[::-1]
        first = await listed(engine, limit=2)
        second = await listed(engine, limit=2, cursor=first.next_cursor)
        third = await listed(engine, limit=2, cursor=second.next_cursor)
        pages = [[info.session_id for info in page.data] for page in (first, second, third)]
        assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:]]
        assert third.next_cursor is None
        assert [info.session_id for info in (await listed(engine, tag="odd")).data] == [made[3], made[1]]
        assert (await listed(engine, cwd="/elsewhere")).data == []
        assert len((await listed(engine, cwd=str(engine.cwd))).data) == 5
        assert [info.session_id for info in (await listed(engine, only={made[2], "unknown"})).data] == [
            made[2]
        ]
        assert (await listed(engine, only=[])).data == []


@pytest.mark.parametrize("limit", [0, -1, 501])
async def test_how_many_may_be_listed(kit: Any, limit: int) -> None:
    async with kit.engine() as engine:
        error = await kit.refused("invalid_params", listed(engine, limit=limit))
        assert (error.data["path"], str(error)) == ("$.limit", f"limit must be from 1 to 500; got {limit}.")


async def test_a_cursor_that_is_none(kit: Any) -> None:
    async with kit.engine() as engine:
        assert (await kit.refused("invalid_params", listed(engine, cursor="!"))).data["path"] == "$.cursor"


# -- items


async def test_items_are_paged(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params("what?"), kit.caller())).session_id
        pages, cursor = [], None
        while True:
            page = await engine.sessions.messages(session_id, limit=2, cursor=cursor)
            pages.append(page.data)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert [len(page) for page in pages] == [2, 2, 1]
        items = [item for page in pages for item in page]
        assert [item.kind for item in items] == [
            "turnStarted",
            "userMessage",
            "assistantText",
            "usage",
            "turnCompleted",
        ]
        assert [item.seq for item in items] == [1, 2, 3, 4, 5]
        assert items[1].body == {"itemId": items[1].item_id, "content": "what?"}
        assert items[2].body == {"itemId": "text-1", "text": "hello"}
        assert items[4].body["status"] == "completed"
        assert (await engine.sessions.messages(session_id, limit=10, cursor="5")).data == []
        assert (await engine.sessions.messages(session_id, limit=5, cursor=None)).next_cursor is None


async def test_an_item_longer_than_an_answer_may_be(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "LONGEST_ITEM", 1000)
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params("x" * 2000), kit.caller())).session_id
        items = (await engine.sessions.messages(session_id, limit=10, cursor=None)).data
        assert [item.kind for item in items][:3] == ["turnStarted", "userMessage", "assistantText"]
        assert list(items[1].body) == ["omittedBytes"]
        assert items[1].body["omittedBytes"] > 2000
        assert items[2].body["text"] == "hello"


@pytest.mark.parametrize("cursor", ["", "x", "-1", " 1", "1.0", "١", "9" * 400])
async def test_cursors_of_items_that_are_none(kit: Any, cursor: str) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params(), kit.caller())).session_id
        error = await kit.refused(
            "invalid_params", engine.sessions.messages(session_id, limit=5, cursor=cursor)
        )
        assert error.data["path"] == "$.cursor"


@pytest.mark.parametrize("limit", [0, 1001])
async def test_how_many_items(kit: Any, limit: int) -> None:
    async with kit.engine() as engine:
        await kit.refused("invalid_params", engine.sessions.messages("x", limit=limit, cursor=None))


async def test_an_item_of_a_newer_version_can_be_read(kit: Any) -> None:
    async with kit.engine() as engine:
        row = SessionRow(session_id="s", created_at=1, updated_at=1, epoch="e")
        turn = TurnRow(turn_id="t", session_id="s", status="completed", started_at=1)
        item = ItemRow(
            session_id="s",
            turn_id="t",
            seq=1,
            item_id="i",
            kind="hologram",
            created_at=2,
            body=b'{"depth":3}',
        )
        await engine.store.open_turn(turn, [item], row)
        (told,) = (await engine.sessions.messages("s", limit=5, cursor=None)).data
        assert (told.kind, told.body) == ("raw", {"frame": {"depth": 3}})


# -- deleting


async def test_what_is_deleted_is_gone(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params(message_id="m"), kit.caller())).session_id
        await engine.sessions.delete(session_id)
        await kit.refused("session_not_found", engine.sessions.get(session_id))
        await kit.refused(
            "session_not_found", engine.queries.run(engine.params(session_id=session_id), kit.caller())
        )
        assert not (await engine.queries.run(engine.params(message_id="m"), kit.caller())).replayed
        engine.check_idle()


async def test_what_is_watched_can_be_deleted(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params(), kit.caller())).session_id
        await engine.attachments.attach(session_id, None, "c", lambda _event: True, lambda _cursor: None)
        await engine.sessions.delete(session_id)
        await kit.refused("session_not_found", engine.sessions.channel(session_id))
        engine.attachments.leave("c")
        engine.check_idle()


async def test_not_while_something_runs_in_it(kit: Any) -> None:
    async with kit.engine() as engine:
        engine.upstream.scripts.append(gate := kit.Gated())
        started: list[str] = []
        query = asyncio.create_task(engine.queries.run(engine.params(), kit.caller(), started=started.append))
        await kit.soon(gate.reached)
        await kit.refused("session_busy", engine.sessions.delete(started[0]))
        gate.go.set()
        await query
        await engine.check_whole(started[0])


async def test_a_delete_that_fails_leaves_it(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params(), kit.caller())).session_id
        whole = engine.store.delete_session

        async def fails(_session_id: str) -> bool:
            raise StorageError("/db", "disk I/O error")

        engine.store.delete_session = fails
        await kit.refused("storage_failed", engine.sessions.delete(session_id))
        engine.store.delete_session = whole
        assert (await engine.sessions.get(session_id)).session.session_id == session_id
        engine.check_idle()


# -- one writer, and channels


async def test_claims(kit: Any) -> None:
    async with kit.engine() as engine:
        sessions = engine.sessions
        with sessions.claim("s", "turn"):
            assert sessions.claimed("s")
            assert not sessions.claimed("t")
            with (
                pytest.raises(EngineError, match="stop it with stream/interrupt"),
                sessions.claim("s", "stream"),
            ):
                pytest.fail("two writers")
            with sessions.claim("t", "stream"), pytest.raises(EngineError, match="use stream/send"):
                sessions.claim("t", "turn").__enter__()
            assert sessions.open == 1
        assert sessions.open == 0


async def test_a_channel_lives_while_it_is_claimed_or_watched(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params(), kit.caller())).session_id
        sessions = engine.sessions
        channel = await sessions.channel(session_id)
        assert await sessions.channel(session_id) is channel
        leave = channel.subscribe(lambda _event: None)
        sessions.tidy(session_id)
        assert await sessions.channel(session_id) is channel
        leave()
        with sessions.claim(session_id, "turn"):
            sessions.tidy(session_id)
            assert await sessions.channel(session_id) is channel
        sessions.tidy(session_id)
        sessions.tidy(session_id)
        another = await sessions.channel(session_id)
        assert another is not channel
        assert (another.cursor, another.last_seq) == (channel.cursor, 5)


async def test_two_who_ask_at_once_get_one_channel(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params(), kit.caller())).session_id
        channels = await asyncio.gather(*(engine.sessions.channel(session_id) for _ in range(4)))
        assert len(set(map(id, channels))) == 1


async def test_a_watcher_from_before_sees_the_next_turn(kit: Any) -> None:
    async with kit.engine() as engine:
        session_id = (await engine.queries.run(engine.params(), kit.caller())).session_id
        watcher = kit.Watcher()
        (await engine.sessions.channel(session_id)).subscribe(watcher)
        await engine.queries.run(engine.params(session_id=session_id), kit.caller())
        await watcher.sees(TurnCompleted)
        assert [event.params.seq for event in watcher.seen if event.params.seq] == [6, 7, 8, 9, 10]


# -- whose


def known(engine: Any, client: str) -> set[str]:
    return set(engine.sessions.seen_by(client))


async def test_a_client_knows_what_it_made_or_continued(kit: Any) -> None:
    async with kit.engine() as engine:
        assert known(engine, "a") == set()
        assert engine.sessions.note("a", "s1")
        assert not engine.sessions.note("a", "s2")
        assert engine.sessions.note("b", "s1")
        assert known(engine, "a") == {"s1", "s2"}
        engine.sessions.forget("a")
        engine.sessions.forget("a")
        assert (known(engine, "a"), known(engine, "b")) == (set(), {"s1"})
        assert engine.sessions.note("a", "s3")
