"""The seam: the connection is what handlers were promised, and a route is what `app.py` was promised."""

import inspect
from typing import Any

import pytest
from dragoman_protocol.values import Empty
from dragomand.server.connection import Connection
from dragomand.server.route import Call, Client, Route

MEMBERS = sorted(name for name in vars(Client) if not name.startswith("_"))


def test_there_is_a_promise() -> None:
    assert {"notify", "event", "request", "on_close", "scopes"} < set(MEMBERS)


@pytest.mark.parametrize("member", [name for name in MEMBERS if inspect.isfunction(vars(Client)[name])])
def test_a_connection_takes_what_was_promised(member: str) -> None:
    promised, kept = vars(Client)[member], vars(Connection)[member]
    assert str(inspect.signature(kept)) == str(inspect.signature(promised))
    assert inspect.iscoroutinefunction(kept) == inspect.iscoroutinefunction(promised)


async def test_a_connection_tells_what_was_promised(world: Any) -> None:
    await (await world.open()).call("do/now")
    client = world.work.clients[0]
    told = {name: getattr(client, name) for name in MEMBERS if isinstance(vars(Client)[name], property)}
    assert told == {
        "id": "c1", "name": "", "scopes": frozenset(), "capabilities": {}, "closed": False, "peer_pid": 4321,
    }  # fmt: skip


def test_a_route_is_free_and_for_everybody_unless_said_otherwise() -> None:
    async def handler(_call: Call, _params: Empty) -> Empty:
        return Empty()

    assert Route("a/b", Empty, handler)[3:] == ("free", None, False)


def test_a_call_cannot_be_changed(world: Any) -> None:
    call = Call(world, 5)
    assert (call.client, call.request_id) == (world, 5)
    with pytest.raises(AttributeError):
        call.request_id = 6  # type: ignore[misc]
