"""Whether a Claude Code can send its API calls over a unix socket: whether its executable knows the variable.

There is no question that it would answer; so its bytes are searched, from the end, where its program is. Once
for each version of the file.
"""

import os

SOCKET_VARIABLE = "ANTHROPIC_UNIX_SOCKET"
"""Names the unix socket that API calls go to; the base URL's host is then only a name."""

_STEP = 4 << 20


class UnixSocketSupport:
    """Remembers what was found."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._known: dict[tuple[str, int, int], bool] = {}

    def look(self, executable: str) -> bool:
        """Tell whether *executable* knows the variable; blocks for some 50 ms the first time."""
        try:
            found = os.stat(executable)
            key = (os.path.realpath(executable), found.st_size, found.st_mtime_ns)
            if key not in self._known:
                self._known[key] = _contains(executable, found.st_size, SOCKET_VARIABLE.encode())
            return self._known[key]
        except OSError:
            return False


def _contains(path: str, size: int, wanted: bytes) -> bool:
    with open(path, "rb", buffering=0) as file:
        end = size
        while end > 0:
            begin = max(0, end - _STEP)
            file.seek(begin)
            # Some bytes more than a step, for a word that lies across two.
            if wanted in file.read(end - begin + len(wanted)):
                return True
            end = begin
    return False
