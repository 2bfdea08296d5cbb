"""`dragoman locate`: print where the daemon is, starting it if there is none. Standard library only."""

import sys

from dragoman import locate
from dragoman.cli import exits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_HELP = """\
Usage: dragoman locate [--no-start]

Print {"socket": PATH, "pid": N, "version": TEXT} of the user's daemon, starting it if there is none.

Exit status: 0 done, 2 usage, 69 no daemon (the reason is on stderr).
"""


def main(arguments: "Sequence[str]") -> int:
    """Run `dragoman locate` with *arguments* and return the exit status."""
    if list(arguments) in (["--help"], ["-h"]):
        sys.stdout.write(_HELP)
        return exits.OK
    if list(arguments) not in ([], ["--no-start"]):
        text = f"dragoman locate: unexpected argument {arguments[0]!r}; see dragoman locate --help"
        print(text, file=sys.stderr)
        return exits.USAGE
    import json

    try:
        print(json.dumps(find(start=not arguments)))
    except locate.LocateError as failed:
        print(f"dragoman locate: {failed}", file=sys.stderr)
        return exits.UNAVAILABLE
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    return exits.OK


def find(*, start: bool) -> dict[str, object]:
    """Return `socket`, `pid` and `version` of the daemon, starting it if *start* and there is none.

    `version` is None if the daemon has not written it down. Raises `LocateError`.
    """
    paths = locate.find_paths()
    if start:
        from dragoman import launch

        connection = launch.ensure_daemon(paths)
    else:
        connection = locate.connect(paths)
    with connection:
        return place(paths, connection)


def place(paths: locate.Paths, connection: "socket.socket") -> dict[str, object]:
    """Return `socket`, `pid` and `version` of the daemon at the other end of *connection*."""
    pid = locate.peer_pid(connection)
    record = locate.read_record(paths)
    version = record.get("version") if record.get("pid") == pid else None
    return {"socket": connection.getpeername(), "pid": pid, "version": version}
