from types import SimpleNamespace

import pytest
from dragomand.store import transcripts
from dragomand.store.rows import SessionRow
from dragomand.store.store import Store


async def session_of(store: Store, session_id: str) -> SessionRow:
    found = await store.session(session_id)
    assert found is not None
    return found


async def test_unknown_cost_stays_unknown_and_known_costs_add_up(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t1", "s"), [], rows.session("s"))
    await store.close_turn(rows.turn("t1", "s", status="completed", output_tokens=1), [])
    assert (await session_of(store, "s")).cost_usd is None
    for number, cost in enumerate((0.25, None, 0.0, 0.5), start=2):
        await store.open_turn(rows.turn(f"t{number}", "s"), [])
        end = rows.turn(f"t{number}", "s", status="completed", output_tokens=10, cost_usd=cost)
        await store.close_turn(end, [])
    session = await session_of(store, "s")
    assert (session.cost_usd, session.output_tokens, session.turn_count) == (0.75, 41, 5)


async def test_a_turn_that_begins_ended_counts_at_once(store: Store, rows: SimpleNamespace) -> None:
    turn = rows.turn("t", "s", status="failed", completed_at=3.0, input_tokens=9, cost_usd=0.5)
    await store.open_turn(turn, [], rows.session("s"))
    session = await session_of(store, "s")
    assert (session.last_turn_status, session.input_tokens, session.cost_usd) == ("failed", 9, 0.5)


async def test_figures_of_a_running_turn_do_not_count_yet(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s", input_tokens=9, cost_usd=0.5), [], rows.session("s"))
    session = await session_of(store, "s")
    assert (session.input_tokens, session.cost_usd) == (0, None)
    # Written once more while it runs, as a checkpoint of its figures.
    await store.close_turn(rows.turn("t", "s", input_tokens=10), [])
    assert (await session_of(store, "s")).input_tokens == 0
    await store.close_turn(rows.turn("t", "s", status="cancelled", input_tokens=11), [])
    assert (await session_of(store, "s")).input_tokens == 11


async def test_a_session_can_begin_with_counters(store: Store, rows: SimpleNamespace) -> None:
    imported = rows.session("s", last_seq=10, turn_count=3, item_count=10, cost_usd=1.0, input_tokens=100)
    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 11)], imported)
    session = await session_of(store, "s")
    assert (session.last_seq, session.turn_count, session.item_count) == (11, 4, 11)


async def test_items_of_an_earlier_turn_may_follow_later_ones(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t1", "s"), [rows.item("t1", "s", 1)], rows.session("s"))
    await store.open_turn(rows.turn("t2", "s"), [rows.item("t2", "s", 2)])
    await store.append_items([rows.item("t1", "s", 3), rows.item("t2", "s", 4), rows.item("t1", "s", 5)])
    assert [item.seq for item in await store.turn_items("t1")] == [1, 3, 5]
    assert [item.seq for item in await store.turn_items("t2")] == [2, 4]


@pytest.mark.parametrize("body", [b"", b"{}", b"\x00\xff", b"x" * 5_000_000])
async def test_bodies_come_back_byte_for_byte(store: Store, rows: SimpleNamespace, body: bytes) -> None:
    await store.open_turn(rows.turn("t", "s"), [rows.item("t", "s", 1, body=body)], rows.session("s"))
    assert (await store.items("s"))[0].body == body


@pytest.mark.parametrize("text", ["", "é😀", "a\0b", "line\nline", "'; DROP TABLE item; --"])
async def test_text_comes_back_as_it_was(store: Store, rows: SimpleNamespace, text: str) -> None:
    session = rows.session("s" + text, title=text, cwd=text, tags=(text,), model=text)
    await store.open_turn(rows.turn("t" + text, "s" + text, message_id=text), [], session)
    found = await session_of(store, "s" + text)
    assert (found.title, found.cwd, found.tags, found.model) == (text, text, (text,), text)
    assert (await store.sessions(limit=5, cursor=None, cwd=text, tag=text))[0] == [found]
    turn = await store.turn_by_message(text)
    assert turn is not None
    assert turn.turn_id == "t" + text


async def test_what_sqlite_cannot_take_fails_alone(store: Store, rows: SimpleNamespace) -> None:
    await store.open_turn(rows.turn("t", "s"), [], rows.session("s"))
    with pytest.raises(UnicodeEncodeError):
        await store.update_session("s", title="\ud800")
    with pytest.raises(OverflowError):
        await store.open_turn(rows.turn("u", "s", queued_ms=2**63), [])
    assert (await session_of(store, "s")).turn_count == 1


async def test_a_page_of_long_items_is_short(
    store: Store, rows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand long items in one answer would be longer than a message may be."""
    monkeypatch.setattr(transcripts, "PAGE_BYTES", 100)
    sizes = [40, 60, 1, 500, 100]
    items = [rows.item("t", "s", seq, body=b"x" * size) for seq, size in enumerate(sizes, 1)]
    await store.open_turn(rows.turn("t", "s"), items, rows.session("s"))
    after, pages = 0, []
    while page := await store.items("s", after_seq=after, limit=1000):
        pages.append([item.seq for item in page])
        after = page[-1].seq
    assert pages == [[1, 2], [3], [4], [5]]
