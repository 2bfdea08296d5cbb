import base64
from types import SimpleNamespace
from typing import Any

import pytest
from dragomand.store import sessions
from dragomand.store.store import Store


async def fill(store: Store, rows: SimpleNamespace) -> None:
    for number, (cwd, tags) in enumerate(
        [("/a", ("x",)), ("/b", ()), ("/a", ("x", "y")), (None, ("y",)), ("/a", ())], start=1
    ):
        session = rows.session(f"s{number}", updated_at=float(number), cwd=cwd, tags=tags)
        await store.open_turn(rows.turn(f"t{number}", f"s{number}", started_at=0.0), [], session)


async def pages(store: Store, limit: int, **filters: Any) -> list[list[str]]:
    found, cursor = [], None
    while True:
        page, cursor = await store.sessions(limit=limit, cursor=cursor, **filters)
        found.append([row.session_id for row in page])
        if cursor is None:
            return found


async def test_newest_first_in_pages(store: Store, rows: SimpleNamespace) -> None:
    assert await pages(store, 2) == [[]]
    await fill(store, rows)
    assert await pages(store, 2) == [["s5", "s4"], ["s3", "s2"], ["s1"]]
    assert await pages(store, 5) == [["s5", "s4", "s3", "s2", "s1"]]
    assert await pages(store, 100) == [["s5", "s4", "s3", "s2", "s1"]]


async def test_sessions_of_the_same_instant_come_once_each(store: Store, rows: SimpleNamespace) -> None:
    for number in range(7):
        session = rows.session(f"s{number}", updated_at=0.1 + 0.2)
        await store.open_turn(rows.turn(f"t{number}", f"s{number}", started_at=0.0), [], session)
    found = [session_id for page in await pages(store, 2) for session_id in page]
    assert found == [f"s{number}" for number in range(6, -1, -1)]


async def test_an_update_moves_a_session_to_the_front(store: Store, rows: SimpleNamespace) -> None:
    await fill(store, rows)
    await store.append_items([rows.item("t2", "s2", 1, created_at=50.0)])
    assert (await pages(store, 2))[0] == ["s2", "s5"]
    # An earlier instant (the clock was set back) does not move it down again.
    await store.append_items([rows.item("t2", "s2", 2, created_at=3.0)])
    assert (await pages(store, 2))[0] == ["s2", "s5"]


async def test_filters(store: Store, rows: SimpleNamespace) -> None:
    await fill(store, rows)
    assert await pages(store, 2, cwd="/a") == [["s5", "s3"], ["s1"]]
    assert await pages(store, 9, cwd="/") == [[]]
    assert await pages(store, 1, tag="y") == [["s4"], ["s3"]]
    assert await pages(store, 9, tag="y", cwd="/a") == [["s3"]]
    assert await pages(store, 1, ids=["s1", "s4", "none"]) == [["s4"], ["s1"]]
    assert await pages(store, 9, ids=["s1", "s4"], tag="x") == [["s1"]]
    assert await pages(store, 9, ids=[]) == [[]]
    assert await pages(store, 9, ids={'s"1', "s'2", "s5"}) == [["s5"]]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "x",
        "é",
        "AAAA",
        base64.urlsafe_b64encode(b'["a",1]').decode(),
        base64.urlsafe_b64encode(b"[1.0]").decode(),
        base64.urlsafe_b64encode(b"[1.0,9223372036854775808]").decode(),
        base64.urlsafe_b64encode(b"[1.0,1,1]").decode(),
        base64.urlsafe_b64encode(b"\xff\xff\xff").decode(),
    ],
)
async def test_a_cursor_from_elsewhere_is_refused(store: Store, bad: str) -> None:
    with pytest.raises(ValueError, match="not a cursor"):
        await store.sessions(limit=1, cursor=bad)


@pytest.mark.parametrize("place", [(0.0, 0), (1e18, 2**63 - 1), (0.1 + 0.2, 7), (-1.5, -(2**63))])
def test_a_cursor_is_exact(place: tuple[float, int]) -> None:
    assert sessions.from_cursor(sessions.to_cursor(place)) == place


async def test_a_cursor_of_a_deleted_session_still_leads_on(store: Store, rows: SimpleNamespace) -> None:
    await fill(store, rows)
    page, cursor = await store.sessions(limit=2, cursor=None)
    await store.delete_session(page[-1].session_id)
    page, _ = await store.sessions(limit=2, cursor=cursor)
    assert [row.session_id for row in page] == ["s3", "s2"]
