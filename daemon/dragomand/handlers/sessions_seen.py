"""Which sessions a connection knows: remembered by the engine, forgotten when the connection closes."""

from collections.abc import Callable

from dragomand.engine.sessions import Sessions
from dragomand.server.route import Client


def noting(client: Client, sessions: Sessions) -> Callable[[str], None]:
    """Return what is told each session id that *client* makes or continues."""

    def note(session_id: str) -> None:
        if sessions.note(client.id, session_id):
            client.on_close(lambda: sessions.forget(client.id))

    return note
