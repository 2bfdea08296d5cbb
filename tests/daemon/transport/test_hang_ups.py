"""Gone, or only silent: what the kernel says (the rest is shown over real sockets in `test_socket`)."""

import socket

from dragomand.transport.hang_ups import HangUps


def test_where_the_system_cannot_tell_a_half_close_is_taken_at_its_word() -> None:
    class Connection:
        def abort(self) -> None:
            raise AssertionError("it was not gone")

    hang_ups = HangUps(platform="darwin")
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.shutdown(socket.SHUT_WR)
            assert hang_ups.watch(theirs.fileno(), Connection())  # type: ignore[arg-type]
            hang_ups.forget(Connection())  # type: ignore[arg-type]
        assert not hang_ups.watch(theirs.fileno(), Connection())  # type: ignore[arg-type]
