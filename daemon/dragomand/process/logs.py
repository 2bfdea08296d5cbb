"""The log's file: private, bounded, and written so that a line is whole or not there.

Lines are written at once, in the thread that logs: they are few, and an append to the page cache takes a few
microseconds. What cannot be written (a full disk) is counted and left out; a log never stops the daemon.
"""

import contextlib
import os
import stat
import threading

from dragoman.locate import UntrustedError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LogFile:
    """The file at `path` and, put aside when it exceeded `max_bytes`, ``path.1`` (newest) to ``path.<keep>``.

    Usable from several threads. All files are mode 0600. One process writes it: who holds the instance lock.
    """

    def __init__(self, path: str, max_bytes: int, keep: int) -> None:
        """Open the file or create it; its folder must exist.

        Raises `UntrustedError` for what is not a file of our own, `OSError` if it cannot be opened.
        """
        self.path = path
        self.max_bytes = max_bytes
        self.keep = keep
        self.dropped = 0
        """Lines left out because they could not be written."""
        self._lock = threading.Lock()
        self._next_rotation = max_bytes
        self._torn = False  # the last write stopped inside a line
        self._fd = _open(path)

    def write(self, line: bytes) -> bool:
        """Append one line (without its newline); False if it could not be written, and was counted.

        Puts the file aside first if it would grow beyond `max_bytes`, and makes it anew if it was removed.
        """
        with self._lock:
            try:
                self._make_room(len(line) + 1)
                self._append((b"\n" if self._torn else b"") + line + b"\n")
            except (OSError, UntrustedError):
                self.dropped += 1
                return False
            return True

    def reopen(self) -> None:
        """Open the path anew: for whoever moves log files by himself and then sends SIGHUP.

        If that fails, the old file goes on being written.
        """
        with self._lock, contextlib.suppress(OSError, UntrustedError):
            self._replace()

    def close(self) -> None:
        """Close it; what is written afterwards is counted as dropped. Does nothing the second time."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _make_room(self, needed: int) -> None:
        found = os.fstat(self._fd)
        if found.st_nlink == 0:
            self._replace()
        elif found.st_size and found.st_size + needed > self._next_rotation:
            # Where files cannot be renamed, the next attempt comes after as much again.
            self._next_rotation = found.st_size + self.max_bytes
            with contextlib.suppress(OSError):
                self._rotate()

    def _rotate(self) -> None:
        for number in range(self.keep - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.rename(self.path, f"{self.path}.1")
        self._replace()

    def _replace(self) -> None:
        new = _open(self.path)
        os.close(self._fd)
        self._fd = new
        self._next_rotation = self.max_bytes
        self._torn = False

    def _append(self, data: bytes) -> None:
        written = os.write(self._fd, data)
        while written < len(data):
            self._torn = True
            written += os.write(self._fd, data[written:])
        self._torn = False


def _open(path: str) -> int:
    file = os.open(path, _FLAGS, 0o600)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(file)
        raise UntrustedError(f"{path} is not a file of our own. Remove it.")
    if stat.S_IMODE(found.st_mode) != 0o600:
        os.fchmod(file, 0o600)
    return file
