"""The store against a naive model, in any order of calls, with the store closed and opened in between."""

import asyncio
import os
import shutil
import tempfile
from copy import deepcopy
from typing import Any

import pytest
from dragomand.store.errors import DuplicateMessageError, StorageError, UnknownRowError
from dragomand.store.rows import ItemRow, SessionRow, TurnRow
from dragomand.store.store import Store
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

SESSIONS = st.sampled_from(["a", "b", "c", "d"])
MESSAGES = st.sampled_from([None, None, None, None, "m1", "m2", "m3"])
INSTANTS = st.floats(min_value=0, max_value=2e9, allow_nan=False)
TAGS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=3).map(tuple)
SELDOM = st.sampled_from([False] * 7 + [True])
TOKENS = st.integers(min_value=0, max_value=2**40)
COSTS = st.none() | st.sampled_from([0.0, 0.25, 0.5, 3.0])  # sums of these are exact in any order
BODIES = st.lists(st.binary(max_size=40) | st.just(b"x" * 9000), max_size=4)
FIELDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")


class Model:
    """What the store should hold, in plain dicts; every call has the result or the error of the store's."""

    def __init__(self) -> None:
        self.sessions: dict[str, SessionRow] = {}
        self.order: list[str] = []  # of creation: what sessions of the same instant are sorted by
        self.turns: dict[str, TurnRow] = {}
        self.items: dict[str, list[ItemRow]] = {}
        self.state: dict[str, bytes] = {}

    def open_turn(self, turn: TurnRow, items: list[ItemRow], session: SessionRow | None) -> None:
        for other in self.turns.values():
            if turn.message_id is not None and other.message_id == turn.message_id:
                raise DuplicateMessageError(other.turn_id)
        if session is None and turn.session_id not in self.sessions:
            raise UnknownRowError("", "")
        if (session is not None and session.session_id in self.sessions) or turn.turn_id in self.turns:
            raise StorageError("", "")
        if session is not None:
            self.sessions[session.session_id] = session
            self.order.append(session.session_id)
            self.items[session.session_id] = []
        self.turns[turn.turn_id] = turn
        row = self.sessions[turn.session_id]
        row.turn_count += 1
        row.last_turn_status = turn.status
        self.add(items)
        row.updated_at = max(row.updated_at, turn.started_at)
        self.total(turn.session_id)

    def close_turn(self, turn: TurnRow, items: list[ItemRow]) -> None:
        before = self.turns.get(turn.turn_id)
        if before is None or before.status != "running" or before.session_id != turn.session_id:
            raise UnknownRowError("", "")
        self.turns[turn.turn_id] = turn
        self.add(items)
        row = self.sessions[turn.session_id]
        row.last_turn_status = turn.status
        row.updated_at = max(row.updated_at, turn.completed_at or turn.started_at)
        self.total(turn.session_id)

    def append(self, session_id: str, turn_id: str, items: list[ItemRow]) -> None:
        if not items:
            return
        turn = self.turns.get(turn_id)
        if turn is None or turn.session_id != session_id:
            raise UnknownRowError("", "")
        self.add(items)

    def add(self, items: list[ItemRow]) -> None:
        for item in items:
            row = self.sessions[item.session_id]
            self.items[item.session_id].append(item)
            row.last_seq = item.seq
            row.item_count += 1
        if items:
            row.updated_at = max(row.updated_at, items[-1].created_at)

    def total(self, session_id: str) -> None:
        row = self.sessions[session_id]
        ended = [turn for turn in self.turns_of(session_id) if turn.status != "running"]
        known = [turn.cost_usd for turn in ended if turn.cost_usd is not None]
        row.cost_usd = sum(known) if known else None
        for name in FIELDS:
            setattr(row, name, sum(getattr(turn, name) for turn in ended))

    def turns_of(self, session_id: str) -> list[TurnRow]:
        return [turn for turn in self.turns.values() if turn.session_id == session_id]

    def delete(self, session_id: str) -> bool:
        if session_id not in self.sessions:
            return False
        del self.sessions[session_id], self.items[session_id]
        self.order.remove(session_id)
        self.turns = {key: turn for key, turn in self.turns.items() if turn.session_id != session_id}
        return True

    def listed(self, cwd: str | None, tag: str | None, ids: list[str] | None) -> list[SessionRow]:
        found = [
            row
            for row in self.sessions.values()
            if (cwd is None or row.cwd == cwd)
            and (tag is None or tag in row.tags)
            and (ids is None or row.session_id in ids)
        ]
        return sorted(found, key=lambda row: (row.updated_at, self.order.index(row.session_id)), reverse=True)

    def interrupted(self) -> set[str]:
        running = {turn.session_id for turn in self.turns.values() if turn.status == "running"}
        for turn in self.turns.values():
            if turn.status == "running":
                turn.status = "interrupted"
        for session_id in running:
            self.sessions[session_id].last_turn_status = "interrupted"
            self.total(session_id)
        return running


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="store-model-")
        self.runner = asyncio.Runner()
        self.model = Model()
        self.opened = 0
        self.store: Store

    @initialize(instants=st.lists(INSTANTS, min_size=1, max_size=4))
    def begin(self, instants: list[float]) -> None:
        """Open the store with some sessions in it: most of what can go wrong needs more than one."""
        self.open()
        for session, at in zip("abcd", instants, strict=False):
            turn = TurnRow(turn_id=f"first-{session}", session_id=session, status="running", started_at=at)
            new = SessionRow(
                session_id=session, created_at=at, updated_at=at, epoch="e", tags=("x",), cwd="/a"
            )
            self.open_both(turn, [b"first"], new)

    def open(self) -> None:
        path = os.path.join(self.folder, "dragoman.db")
        self.store = self.runner.run(Store.open(path, clock=lambda: 5.0))

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def both(self, theirs: Any, ours: Any) -> Any:
        """Make the call on the store and on the model: the same result, or the same kind of error."""
        before = deepcopy(self.model.__dict__)
        try:
            expected, error = ours(), None
        except (StorageError, DuplicateMessageError) as refused:
            self.model.__dict__.update(before)
            expected, error = None, refused
        if error is None:
            assert self.runner.run(theirs) == expected
        else:
            with pytest.raises(type(error)) as caught:
                self.runner.run(theirs)
            if isinstance(error, DuplicateMessageError):
                assert caught.value.turn_id == error.turn_id
        return expected

    def next_items(self, session_id: str, turn_id: str, bodies: list[bytes], at: float) -> list[ItemRow]:
        row = self.model.sessions.get(session_id)
        first = 1 if row is None else row.last_seq + 1
        return [
            ItemRow(
                session_id=session_id,
                turn_id=turn_id,
                seq=seq,
                item_id=str(seq),
                kind="k",
                created_at=at,
                body=body,
            )
            for seq, body in enumerate(bodies, first)
        ]

    @rule(
        session=SESSIONS,
        again=SELDOM,
        message=MESSAGES,
        odd=SELDOM,
        status=st.sampled_from(["running", "running", "running", "failed"]),
        at=INSTANTS,
        tags=TAGS,
        cwd=st.sampled_from([None, "/a", "/b"]),
        bodies=BODIES,
        tokens=TOKENS,
        cost=COSTS,
    )
    def open_turn(
        self, session: str, again: bool, message: str | None, odd: bool, status: Any, at: float, **rest: Any
    ) -> None:
        self.opened += 1
        turn = min(self.model.turns) if again and self.model.turns else f"t{self.opened:03d}"
        row = TurnRow(
            turn_id=turn,
            session_id=session,
            status=status,
            started_at=at,
            message_id=message,
            output_tokens=rest["tokens"],
            cost_usd=rest["cost"],
        )
        made = None
        if odd is (session in self.model.sessions):
            made = SessionRow(
                session_id=session,
                created_at=at,
                updated_at=at,
                epoch="e",
                tags=rest["tags"],
                cwd=rest["cwd"],
            )
        self.open_both(row, rest["bodies"], made)

    def open_both(self, row: TurnRow, bodies: list[bytes], made: SessionRow | None) -> None:
        items = self.next_items(row.session_id, row.turn_id, bodies, row.started_at)
        self.both(
            self.store.open_turn(row, items, made),
            lambda: self.model.open_turn(deepcopy(row), items, deepcopy(made)),
        )

    @precondition(lambda self: self.model.turns)
    @rule(data=st.data(), session=SESSIONS, odd=SELDOM, bodies=BODIES, at=INSTANTS)
    def append(self, data: Any, session: str, odd: bool, bodies: list[bytes], at: float) -> None:
        turn = data.draw(st.sampled_from(sorted(self.model.turns)))
        session = session if odd else self.model.turns[turn].session_id
        items = self.next_items(session, turn, bodies, at)
        self.both(self.store.append_items(items), lambda: self.model.append(session, turn, items))

    @precondition(lambda self: self.model.turns)
    @rule(
        data=st.data(),
        status=st.sampled_from(["completed", "cancelled", "failed", "interrupted", "running"]),
        at=st.none() | INSTANTS,
        bodies=BODIES,
        tokens=st.tuples(TOKENS, TOKENS, TOKENS, TOKENS),
        cost=COSTS,
    )
    def close_turn(
        self, data: Any, status: Any, at: float | None, bodies: list[bytes], tokens: Any, cost: Any
    ) -> None:
        turn = deepcopy(
            data.draw(st.sampled_from(sorted(self.model.turns.values(), key=lambda one: one.turn_id)))
        )
        turn.status, turn.completed_at, turn.cost_usd = status, at, cost
        for name, value in zip(FIELDS, tokens, strict=True):
            setattr(turn, name, value)
        items = self.next_items(turn.session_id, turn.turn_id, bodies, at or 0.0)
        self.both(self.store.close_turn(turn, items), lambda: self.model.close_turn(deepcopy(turn), items))

    @precondition(lambda self: self.model.sessions)
    @rule(data=st.data(), title=st.none() | st.text(max_size=5), tags=TAGS, at=INSTANTS)
    def update(self, data: Any, title: str | None, tags: tuple[str, ...], at: float) -> None:
        session_id = data.draw(st.sampled_from(sorted(self.model.sessions)))
        row = self.model.sessions[session_id]
        given: dict[str, Any] = {"title": title, "tags": tags, "updated_at": at}
        for name in data.draw(st.sets(st.sampled_from(sorted(given)))) ^ set(given):
            del given[name]
        self.runner.run(self.store.update_session(session_id, **given))
        for name, value in given.items():
            setattr(row, name, value)

    @rule(session=SESSIONS, odd=SELDOM)
    def delete(self, session: str, odd: bool) -> None:
        if len(self.model.sessions) < 3 and not odd:
            return
        self.both(self.store.delete_session(session), lambda: self.model.delete(session))

    @rule(key=st.sampled_from(["k", "l"]), value=st.binary(max_size=50))
    def set_state(self, key: str, value: bytes) -> None:
        self.runner.run(self.store.set_state(key, value))
        self.model.state[key] = value

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.store.close())
        self.open()
        expected = self.model.interrupted()
        assert sorted(self.store.recovered) == sorted(expected)
        for session_id in expected:
            found = self.runner.run(self.store.session(session_id))
            assert found is not None
            assert found.epoch != self.model.sessions[session_id].epoch
            self.model.sessions[session_id].epoch = found.epoch

    @rule(
        limit=st.integers(1, 3),
        cwd=st.sampled_from([None, None, None, "/a", "/b"]),
        tag=st.sampled_from([None, None, None, "x", "y"]),
        ids=st.none() | st.none() | st.lists(st.sampled_from(["a", "b", "c", "none"]), max_size=3),
    )
    def pages(self, limit: int, cwd: str | None, tag: str | None, ids: list[str] | None) -> None:
        expected = self.model.listed(cwd, tag, ids)
        found: list[SessionRow] = []
        cursor = None
        while True:
            page, cursor = self.runner.run(
                self.store.sessions(limit=limit, cursor=cursor, cwd=cwd, tag=tag, ids=ids)
            )
            found += page
            assert len(found) <= len(expected)
            if cursor is None:
                break
            assert len(page) == limit
        assert found == expected

    @rule(session=SESSIONS, after=st.integers(0, 12), limit=st.integers(1, 5))
    def page_of_items(self, session: str, after: int, limit: int) -> None:
        expected = [item for item in self.model.items.get(session, []) if item.seq > after][:limit]
        assert self.runner.run(self.store.items(session, after_seq=after, limit=limit)) == expected
        turns = self.model.turns_of(session)
        assert self.runner.run(self.store.turns(session, limit=limit)) == turns[-limit:]

    @invariant()
    def same_rows(self) -> None:
        self.runner.run(self.compare())

    async def compare(self) -> None:
        for session_id in ("a", "b", "c", "d"):
            assert await self.store.session(session_id) == self.model.sessions.get(session_id)
            assert await self.store.items(session_id) == self.model.items.get(session_id, [])
        for turn_id, turn in self.model.turns.items():
            expected = [item for item in self.model.items[turn.session_id] if item.turn_id == turn_id]
            assert await self.store.turn_items(turn_id) == expected
        for message_id in ("m1", "m2", "m3"):
            begun = [turn for turn in self.model.turns.values() if turn.message_id == message_id]
            assert await self.store.turn_by_message(message_id) == (begun[0] if begun else None)
        for key in ("k", "l"):
            assert await self.store.get_state(key) == self.model.state.get(key)
        counts = await self.store.counts()
        assert (counts["sessions"], counts["turns"], counts["items"]) == (
            len(self.model.sessions),
            len(self.model.turns),
            sum(map(len, self.model.items.values())),
        )


COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}


class TestStore(StoreMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=30, stateful_step_count=50, derandomize=True, **COMMON)


@pytest.mark.slow
class TestStoreAtLength(StoreMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=100, stateful_step_count=60, **COMMON)
