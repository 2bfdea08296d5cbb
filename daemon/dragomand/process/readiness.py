"""The daemon's end of the start: detach from the starter, and tell it how it went.

The other end, with the format of the word, is `dragoman.launch`. The sequence of a daemon:

1. `Readiness.from_env(os.environ)`
2. ``left = readiness.detach()``: in the starter's child this returns an exit status, and main returns it;
   in the daemon proper it returns None
3. flags, settings, folders, lock, bind
4. `ready` with the lock's record, or `failed` with the text, then leave with a status other than 0

If the daemon dies without a word, the pipe's end and the exit status tell the starter so.
"""

import contextlib
import json
import os
import stat
from collections.abc import Mapping, MutableMapping

from dragoman.launch import READY_FD

_TEXT_CHARS = 10_000  # at most six bytes each: below what `dragoman.launch` reads, and what a pipe holds


class Readiness:
    """What the starter waits for. Without a starter (`fd` None) every call does nothing."""

    def __init__(self, fd: int | None) -> None:
        """Speak to the write end of the readiness pipe, `fd`; None: to nobody."""
        self._word = fd
        self._status: int | None = None

    @classmethod
    def from_env(cls, env: MutableMapping[str, str]) -> "Readiness":
        """Take the pipe's number out of `env`, so that no child of ours finds it there.

        A number that is no pipe (a variable left over from elsewhere) counts as no starter.
        """
        number = env.pop(READY_FD, "")
        if not number.isascii() or not number.isdigit() or int(number) < 3:
            return cls(None)
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(int(number)).st_mode)
        except OSError:
            is_pipe = False
        if not is_pipe:
            return cls(None)
        os.set_inheritable(int(number), False)
        return cls(int(number))

    def detach(self) -> int | None:
        """Fork, so that the starter is not our parent. Call it first of all, before threads and locks.

        The parent's half waits until the daemon is ready or dead, and returns the exit status with which the
        process is to end. The daemon's half returns None. Without a starter nothing is forked.
        """
        if self._word is None:
            return None
        reader, writer = os.pipe()
        child = os.fork()
        if child:
            os.close(writer)
            os.close(self._word)
            self._word = None
            return _await_child(child, reader)
        os.close(reader)
        self._status = writer
        return None

    def ready(self, info: Mapping[str, object]) -> None:
        """Tell the starter that clients can connect; `info` has ``pid``, ``socket``, ``version``."""
        if self._status is not None:
            _write(self._status, b"r")
        self._send({**info, "ready": True})

    def failed(self, text: str) -> None:
        """Tell the starter why there will be no daemon: one text, for people."""
        self._send({"error": text[:_TEXT_CHARS]})

    def _send(self, message: dict[str, object]) -> None:
        if self._word is not None:
            text = json.dumps(message, ensure_ascii=False)
            _write(self._word, text.encode(errors="replace") + b"\n")
        for fd in (self._word, self._status):
            if fd is not None:
                os.close(fd)
        self._word = self._status = None


def _await_child(child: int, reader: int) -> int:
    word = os.read(reader, 1)
    os.close(reader)
    if word:
        return 0
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _write(fd: int, data: bytes) -> None:
    # A broken pipe: the starter gave up or was killed. Other clients may still want the daemon.
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, data)
