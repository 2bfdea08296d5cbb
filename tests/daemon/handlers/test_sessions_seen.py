"""Sessions are noted for a connection, and forgotten with it."""

from typing import Any

from dragomand.handlers.sessions_seen import noting


async def test_noted_until_the_connection_closes(house: Any) -> None:
    async with house() as at:
        client, sessions = at.client(), at.engine.sessions
        note = noting(client, sessions)
        note("a")
        note("b")
        noting(client, sessions)("c")
        assert set(sessions.seen_by(client.id)) == {"a", "b", "c"}
        client.close()
        assert set(sessions.seen_by(client.id)) == set()


async def test_of_a_connection_that_is_closed_nothing_is_kept(house: Any) -> None:
    async with house() as at:
        client, sessions = at.client(), at.engine.sessions
        client.close()
        noting(client, sessions)("a")
        assert set(sessions.seen_by(client.id)) == set()
