"""Bounds of what runs and of what waits, counted exactly."""

from typing import Any

import msgspec
import pytest
from dragoman_protocol.errors import RpcError
from dragoman_protocol.peer import Request
from dragomand.server.inbox import MAX_RUNNING, MAX_WAITING_BYTES, OVERHEAD_BYTES, Inbox
from dragomand.server.lanes import Incoming
from dragomand.server.routes import Prepared

FREE = Prepared("free", lambda *_: None, lambda raw: raw, False, False, None, False)
INLINE = FREE._replace(name="inline", inline=True)


def incoming(id: int, route: Prepared = FREE, size: int = 2, session: str | None = None) -> Incoming:
    return Incoming(Request(id, "m", msgspec.Raw(b"x" * size)), route, session, 0.0)


def test_64_begin_at_once() -> None:
    inbox = Inbox()
    for n in range(MAX_RUNNING):
        assert inbox.may_begin(None)
        inbox.begin(incoming(n))
    assert not inbox.may_begin(None)
    inbox.wait(incoming(100))
    assert inbox.next() is None
    inbox.ended(inbox.running[3])
    assert inbox.next() is not None
    assert len(inbox.running) == MAX_RUNNING
    assert inbox.waiting == {}


def test_inline_ones_need_no_room_and_keep_their_order() -> None:
    inbox = Inbox()
    for n in range(MAX_RUNNING):
        inbox.begin(incoming(n))
    inbox.wait(incoming(100))
    assert not inbox.holds_inline
    for n in (101, 102, 103):
        inbox.wait(incoming(n, INLINE))
    inbox.remove(inbox.waiting[102])
    assert inbox.holds_inline
    taken: list[Any] = []
    while (following := inbox.next()) is not None:
        taken.append(following.request.id)
    assert taken == [101, 103]
    assert not inbox.holds_inline
    assert list(inbox.waiting) == [100]
    inbox.wait(incoming(104, INLINE))
    inbox.remove(inbox.waiting[104])
    assert not inbox.holds_inline


def test_what_waits_is_bounded_to_the_byte() -> None:
    inbox = Inbox()
    half = MAX_WAITING_BYTES // 2 - OVERHEAD_BYTES
    inbox.wait(incoming(1, size=half))
    inbox.wait(incoming(2, size=half))
    assert inbox.waiting_bytes == MAX_WAITING_BYTES
    with pytest.raises(RpcError) as caught:
        inbox.wait(incoming(3, size=0))
    assert caught.value.kind == "overloaded"
    assert list(inbox.waiting) == [1, 2]
    inbox.remove(inbox.waiting[1])
    inbox.wait(incoming(3, size=0))
    assert inbox.next() is not None
    assert inbox.next() is not None
    assert inbox.waiting_bytes == 0


def test_what_waits_keeps_its_parameters_and_not_the_message_around_them() -> None:
    class Envelope(msgspec.Struct):
        params: msgspec.Raw

    raw = msgspec.json.decode(b'{"other":"' + b"x" * 1000 + b'","params":{"a":1}}', type=Envelope).params
    waiting = incoming(1)
    waiting.request.params = raw
    Inbox().wait(waiting)
    assert bytes(waiting.request.params) == b'{"a":1}'
    assert waiting.request.params is not raw


def test_sessions_wait_for_each_other() -> None:
    inbox = Inbox()
    inbox.begin(incoming(1, session="s"))
    assert not inbox.may_begin("s")
    assert inbox.may_begin("t")
    inbox.wait(incoming(2, session="s"))
    assert inbox.next() is None
    inbox.ended(inbox.running[1])
    following = inbox.next()
    assert following is not None
    assert following.request.id == 2
